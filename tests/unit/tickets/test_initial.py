# SPDX-License-Identifier: Apache-2.0
"""Newly drawn weights: the distributions of torch's own layers, one stream a parameter."""

import math

import pytest
import torch
from torch import Tensor, nn

from edgeprune.finetune import read_state
from edgeprune.model import Model
from edgeprune.tickets.initial import fresh_state
from tests.networks import TinyBert
from tests.unit.finetune.toy import captured


class Mixed(nn.Module):
    """A convolution with a norm, linear layers with and without bias, a free parameter."""

    def __init__(self, *, extra: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.middle = nn.Linear(32, 64, bias=False)
        self.layer_norm = nn.LayerNorm(64)
        self.shift = nn.Parameter(torch.randn(64) * 0.3)
        self.head = nn.Linear(64, 50)
        self.extra = nn.Linear(50, 50) if extra else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.extra(self.head(self.layer_norm(self.middle(x)) + self.shift))


def trained(net: nn.Module) -> nn.Module:
    """Every parameter and buffer somewhere else than at its start."""
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.is_floating_point():
                value.add_(torch.rand_like(value))
            else:
                value.add_(7)
    return net


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(1)
    return captured(trained(Mixed()), torch.zeros(2, 4, 4, 4))


@pytest.mark.parametrize(
    ("name", "fan"),
    [
        ("conv.weight", 36),
        ("conv.bias", 36),
        ("middle.weight", 32),
        ("head.weight", 64),
        ("head.bias", 64),
    ],
)
def test_weights_and_biases_are_uniform_within_one_over_the_root_of_the_fan(
    model: Model, name: str, fan: int
) -> None:
    drawn = torch.cat([fresh_state(model, seed)[name].flatten() for seed in range(8)])
    bound = 1 / math.sqrt(fan)
    assert float(drawn.abs().max()) <= bound
    assert float(drawn.abs().max()) > 0.95 * bound
    # The mean of n uniform values deviates by bound / sqrt(3n); the spread is bound / sqrt(3).
    assert abs(float(drawn.mean())) < 5 * bound / math.sqrt(3 * drawn.numel())
    assert float(drawn.std()) == pytest.approx(bound / math.sqrt(3), rel=0.12)


def test_weights_are_drawn_as_torch_draws_them(model: Model) -> None:
    """The spread of torch's own layer, by torch's own code."""
    fresh = fresh_state(model, 0)["middle.weight"]
    own = nn.Linear(32, 64).weight
    assert float(fresh.std()) == pytest.approx(float(own.std()), rel=0.05)


def test_norms_begin_as_new(model: Model) -> None:
    fresh = fresh_state(model, 0)
    for name in ("norm.weight", "norm.running_var", "layer_norm.weight"):
        assert torch.equal(fresh[name], torch.ones_like(fresh[name]))
    for name in ("norm.bias", "norm.running_mean", "layer_norm.bias", "norm.num_batches_tracked"):
        assert torch.equal(fresh[name], torch.zeros_like(fresh[name]))


def test_free_parameters_keep_their_spread(model: Model) -> None:
    old, fresh = read_state(model.module())["shift"], fresh_state(model, 0)["shift"]
    assert not torch.equal(old, fresh)
    assert float(fresh.std()) == pytest.approx(float(old.std()), rel=0.4)


def test_one_parameter_more_changes_no_other() -> None:
    torch.manual_seed(0)
    small = fresh_state(captured(Mixed(), torch.zeros(2, 4, 4, 4)), 3)
    large = fresh_state(captured(Mixed(extra=True), torch.zeros(2, 4, 4, 4)), 3)
    common = small.keys() - {"shift"}  # whose spread is drawn from the weights themselves
    assert common < large.keys()
    assert all(torch.equal(small[name], large[name]) for name in common)


def test_seeds_differ_and_repeat(model: Model) -> None:
    one, again, other = fresh_state(model, 1), fresh_state(model, 1), fresh_state(model, 2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    for name in ("conv.weight", "conv.bias", "middle.weight", "shift", "head.bias"):
        assert not torch.equal(one[name], other[name])


def test_no_two_parameters_share_a_stream() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    fresh = fresh_state(captured(net, torch.zeros(2, 8)), 0)
    assert not torch.equal(fresh["0.weight"], fresh["2.weight"])


def test_the_model_is_as_it_was_and_the_global_stream_too(model: Model) -> None:
    before, state = model.fingerprint(), torch.random.get_rng_state()
    fresh_state(model, 5)
    assert model.fingerprint() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_transformer_has_everything_drawn_but_its_index() -> None:
    torch.manual_seed(0)
    model = captured(TinyBert(), torch.zeros(2, 16, dtype=torch.int64))
    old, fresh = read_state(model.module()), fresh_state(model, 0)
    assert old.keys() == fresh.keys()
    assert torch.equal(old["index"], fresh["index"])
    for name, value in fresh.items():
        assert value.shape == old[name].shape
        assert value.dtype == old[name].dtype
        assert torch.isfinite(value).all()
        if name != "index" and "norm" not in name:
            assert not torch.equal(value, old[name]), name


class Odd(nn.Module):
    """A recurrent layer, a transposed convolution, and scales that the code itself multiplies with:
    one for each channel, a constant, a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 16, 3)
        self.rnn = nn.LSTM(16, 64, batch_first=True)
        self.scale = nn.Parameter(1 + 0.1 * torch.randn(64))
        self.layer_scale = nn.Parameter(torch.full((64,), 1e-4))
        self.temperature = nn.Parameter(torch.tensor(2.65))

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(self.up(x).flatten(2).transpose(1, 2))[0]
        return x * self.scale + self.temperature * (x * self.layer_scale)


@pytest.fixture(scope="module")
def odd() -> tuple[Odd, dict[str, Tensor]]:
    torch.manual_seed(0)
    net = Odd()
    return net, fresh_state(captured(net, torch.zeros(2, 4, 4, 4)), 0)


@pytest.mark.parametrize(
    "name", ["up.weight", "up.bias", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0"]
)
def test_odd_layers_are_drawn_as_torch_draws_them(
    odd: tuple[Odd, dict[str, Tensor]], name: str
) -> None:
    net, fresh = odd
    own = net.get_parameter(name)
    assert not torch.equal(own, fresh[name])
    assert float(fresh[name].abs().max()) == pytest.approx(float(own.abs().max()), rel=0.15)


def test_scales_of_the_code_begin_about_where_they_are(
    odd: tuple[Odd, dict[str, Tensor]],
) -> None:
    """Around 0 half of them would turn the sign of what they scale."""
    net, fresh = odd
    assert torch.equal(fresh["layer_scale"], net.layer_scale)
    assert torch.equal(fresh["temperature"], net.temperature)
    assert not torch.equal(fresh["scale"], net.scale)
    assert float(fresh["scale"].mean()) == pytest.approx(1.0, abs=0.06)
    assert float(fresh["scale"].std()) == pytest.approx(0.1, rel=0.4)


class Normed(nn.Module):
    """Weight norm, and a weight that is divided by its own length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 6, 3))
        self.middle = nn.Linear(6, 6)
        self.cosine = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        return nn.functional.linear(self.middle(x), nn.functional.normalize(self.cosine))


def test_weights_that_a_norm_divides_are_drawn() -> None:
    model = captured(Normed(), torch.zeros(2, 1, 5, 5))
    fresh = fresh_state(model, 0)
    length = fresh["conv.parametrizations.weight.original0"]
    direction = fresh["conv.parametrizations.weight.original1"]
    torch.testing.assert_close(length.flatten(), direction.flatten(1).norm(dim=1))
    assert (length > 0).all()
    assert (fresh["cosine"] != 0).all()
    assert not torch.equal(fresh["cosine"], read_state(model.module())["cosine"])
