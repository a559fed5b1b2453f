# SPDX-License-Identifier: Apache-2.0
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.model import Event, read, save, set_training
from edgeprune.model.state import read_state, with_state, write_state
from tests.networks import TinyMobileNet
from tests.unit.finetune.toy import captured

EVENT = Event("finetune")


class Tied(nn.Module):
    """Embedding and head share their weight; one buffer isn't in the state dict."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((4,), 2.0), persistent=False)

    def forward(self, x):
        return self.head(self.norm((self.embedding(x) * self.scale).mean(1)))


def trained(model, *inputs, steps=3):
    """A module of the model after some steps in training mode, in eval mode again."""
    module = model.module()
    set_training(module, True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        output = module(*inputs)
        F.cross_entropy(output, torch.arange(len(output)) % output.shape[1]).backward()
        optimizer.step()
    set_training(module, False)
    return module


@pytest.mark.parametrize(
    ("network", "inputs"),
    [(TinyMobileNet, torch.randn(4, 3, 32, 32)), (Tied, torch.arange(20).reshape(4, 5) % 10)],
)
def test_the_program_computes_what_the_trained_module_does_bit_for_bit(network, inputs):
    model = captured(network(), inputs)
    before, name = model.module()(inputs), model.fingerprint()
    module = trained(model, inputs)
    new = with_state(model, read_state(module), EVENT)
    with torch.no_grad():
        expected = module(inputs)
        assert torch.equal(new.module()(inputs), expected)
    assert not torch.equal(expected, before)
    assert new.fingerprint() != name
    assert model.fingerprint() == name  # the input is left as it was
    assert torch.equal(model.module()(inputs), before)
    assert new.history == (*model.history, EVENT)
    state, given = new.module().state_dict(), module.state_dict()
    assert state.keys() == given.keys()
    assert all(torch.equal(state[name], given[name]) for name in state)


@pytest.mark.parametrize("network", [TinyMobileNet, Tied])
def test_trained_weights_survive_a_file(tmp_path, network):
    inputs = {TinyMobileNet: torch.randn(4, 3, 32, 32), Tied: torch.arange(20).reshape(4, 5) % 10}
    model, x = captured(network(), inputs[network]), inputs[network]
    new = with_state(model, read_state(trained(model, x)), EVENT)
    save(new, tmp_path / "model.pt2")
    back = read(tmp_path / "model.pt2")
    assert back.fingerprint() == new.fingerprint()
    assert back.history == new.history
    with torch.no_grad():
        assert torch.equal(back.module()(x), new.module()(x))


def test_running_statistics_come_along():
    x = torch.randn(4, 3, 32, 32) + 1
    model = captured(TinyMobileNet(), x)
    new = with_state(model, read_state(trained(model, x)), EVENT)
    assert new.program.state_dict["features.1.running_mean"].abs().min() > 0


def test_tied_parameters_stay_tied():
    x = torch.arange(20).reshape(4, 5) % 10
    model = captured(Tied(), x)
    new = with_state(model, read_state(trained(model, x)), EVENT)
    state = new.program.state_dict
    assert state["embedding.weight"].data_ptr() == state["head.weight"].data_ptr()
    module = trained(new, x)
    assert module.head.weight is module.embedding.weight


def test_buffers_outside_the_state_dict_are_written_too():
    x = torch.arange(20).reshape(4, 5) % 10
    model = captured(Tied(), x)
    state = read_state(model.module())
    state["scale"] += 1
    new = with_state(model, state, EVENT)
    assert torch.equal(new.program.constants["scale"], torch.full((4,), 3.0))
    assert torch.equal(model.program.constants["scale"], torch.full((4,), 2.0))


def test_an_equal_state_gives_an_equal_model_without_a_warning():
    x = torch.arange(20).reshape(4, 5) % 10
    model = captured(Tied(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = with_state(model, read_state(model.module()), EVENT)
    assert new.fingerprint() == model.fingerprint()


class Both(nn.Module):
    """Two parameters that a test ties afterwards."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.ones(3, 3))
        self.b = nn.Parameter(torch.ones(3, 3) * 2)

    def forward(self, x):
        return x @ self.a @ self.b


def test_tied_parameters_that_were_trained_apart_are_refused():
    model = captured(Both(), torch.ones(2, 3))
    state = read_state(model.module())
    model.program.state_dict["b"] = model.program.state_dict["a"]
    with pytest.raises(ModelError, match="'a' and 'b' are tied"):
        with_state(model, state, EVENT)


def test_nan_is_not_taken_for_weights_that_were_trained_apart():
    model = captured(Both(), torch.ones(2, 3))
    state = read_state(model.module())
    model.program.state_dict["b"] = model.program.state_dict["a"]
    state["a"][0, 0] = torch.nan
    state["b"] = state["a"].clone()
    new = with_state(model, state, EVENT).program.state_dict
    assert torch.equal(new["b"].isnan(), state["b"].isnan())
    state["b"][0, 1] = torch.nan
    with pytest.raises(ModelError, match="are tied, but were trained apart"):
        with_state(model, state, EVENT)


def test_a_state_that_was_read_is_a_copy_and_can_be_put_back():
    model = captured(Tied(), torch.arange(20).reshape(4, 5) % 10)
    module = model.module()
    state = read_state(module)
    parameter = module.head.weight
    with torch.no_grad():
        parameter.add_(1)
    assert not torch.equal(state["head.weight"], parameter)
    write_state(module, state)
    assert torch.equal(state["head.weight"], parameter)
    assert module.head.weight is parameter


def test_an_input_named_like_a_word_of_python_keeps_its_name(tmp_path):
    # A bare nn.Sequential calls its input ``input``.
    model = captured(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    module = trained(model, torch.randn(8, 4))
    tuned = with_state(model, read_state(module), EVENT)
    save(tuned, tmp_path / "tuned.pt2")
    x = torch.randn(3, 4)
    assert torch.equal(read(tmp_path / "tuned.pt2").module()(x), module(x))
