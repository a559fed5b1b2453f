# SPDX-License-Identifier: Apache-2.0
"""Coefficients change no function at 1, cut a channel at 0, and go back into the weights."""

import numpy as np
import pytest
import torch

from edgeprune.channels import analyse, masked
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import look
from edgeprune.model import Event
from edgeprune.tickets.early_bird_coefficients import readers, with_coefficients
from tests.unit.finetune.toy import cnn
from tests.unit.tickets.transformers import bert, vit

EVENT = Event("test")


def example(kind):
    torch.manual_seed(1)
    return {
        "cnn": torch.randn(5, 1, 8, 8),
        "vit": torch.randn(3, 3, 32, 32),
        "bert": torch.randint(0, 100, (3, 16)),
    }[kind]


@pytest.fixture(scope="module", params=["cnn", "vit", "bert"])
def scaled(request):
    """A model, its groups, those with coefficients, the model with them, and an input."""
    model = {"cnn": cnn, "vit": vit, "bert": bert}[request.param]()
    network, groups = look(model), analyse(model)
    chosen = [group for group in groups.groups if readers(network, groups, group)]
    return (
        model,
        groups,
        chosen,
        *with_coefficients(model, network, groups, chosen),
        example(request.param),
    )


def test_heads_neurons_and_plain_layers_are_read_but_no_stream(scaled):
    _, groups, chosen, _, _, _ = scaled
    names = [group.name for group in chosen]
    if "layers.0.mlp.0" not in names:
        assert names == ["conv1", "conv3"]
        return
    assert names == [f"layers.{i}.{part}" for i in (0, 1) for part in ("attention.qkv", "mlp.0")]
    assert {g.size for g in chosen} == {4, 64}
    assert all(group.renormalises for group in groups.groups if group not in chosen)


def test_at_one_the_network_is_the_same(scaled):
    model, _, _, new, _, x = scaled
    assert new.dynamic_batch
    assert torch.equal(new.module()(x), model.module()(x))


def test_at_zero_a_channel_is_cut_off(scaled):
    """What ``channels.masked`` makes of the same channels, on any weights."""
    model, groups, chosen, new, coefficients, x = scaled
    removed = groups.keep_all()
    for group in chosen:
        removed[group.channels[1::3]] = True
    state = read_state(new.module())
    state[coefficients.name][torch.from_numpy(removed[coefficients.channels])] = 0
    found = with_state(new, state, EVENT).module()(x)
    torch.testing.assert_close(found, masked(model, groups, removed)(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, model.module()(x), atol=1e-3)


def test_folded_into_the_weights_it_is_the_same_function(scaled):
    model, _, _, new, coefficients, x = scaled
    state = read_state(new.module())
    state[coefficients.name].uniform_(0.2, 2.0, generator=torch.Generator().manual_seed(0))
    folded = coefficients.folded(state)
    assert folded.keys() == read_state(model.module()).keys()
    found = with_state(model, folded, EVENT).module()(x)
    torch.testing.assert_close(found, with_state(new, state, EVENT).module()(x))
    assert not torch.allclose(found, model.module()(x), atol=1e-3)


def test_they_learn(scaled):
    """Each coefficient's gradient is that of its channel: the sum of weight times gradient over
    the columns that read it."""
    _, groups, _, new, coefficients, x = scaled
    module = new.module()
    module(x).square().sum().backward()
    gradient = module.get_parameter(coefficients.name).grad
    expected = np.zeros(groups.channels)
    for name, (dim, _) in coefficients.acts.items():
        weight = module.get_parameter(name)
        others = [d for d in range(weight.ndim) if d != dim]
        sums = (weight.detach() * weight.grad).sum(others).numpy()
        label = groups.labels[name, dim]
        np.add.at(expected, label[label >= 0], sums[label >= 0])
    np.testing.assert_allclose(gradient, expected[coefficients.channels], rtol=1e-3, atol=1e-4)
    assert np.abs(expected[coefficients.channels]).min() > 0


def test_a_name_that_is_taken_gives_way():
    from edgeprune.tickets.early_bird_coefficients import _free

    assert _free({}) == "early_bird_coefficients"
    assert _free({"early_bird_coefficients_0": torch.ones(1)}) == "early_bird_coefficients__"
