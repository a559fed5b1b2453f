# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.quantize.weights import on_int8_grid, round_weights, to_half
from edgeprune.recipe import Numerics
from tests.unit.quantize.toy import captured, noise_db, outputs, reduced, trained


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-12, 12), st.integers(0, 2))
def test_the_int8_grid_is_a_grid(seed: int, power: int, axis: int) -> None:
    weight = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    weight[0] = 0
    once = on_int8_grid(weight, axis)
    assert torch.allclose(on_int8_grid(once, axis), once, rtol=3e-7, atol=0)
    others = [d for d in range(3) if d != axis]
    scale = weight.abs().amax(others, keepdim=True) / 127
    assert bool(((once - weight).abs() <= scale * 0.5001).all())
    for row in once.unbind(axis):
        assert len(row.unique()) <= 255


def test_half_precision_keeps_infinities_and_clamps_the_rest() -> None:
    given_ = torch.tensor([1e9, -1e9, float("-inf"), 1e-9, 0.1])
    rounded = to_half(given_)
    assert rounded[:3].tolist() == [65504.0, -65504.0, float("-inf")]
    assert to_half(rounded).equal(rounded)


@pytest.mark.parametrize(
    ("name", "numerics", "floor"),
    [
        ("resnet", "int8-weights", 32),
        ("mobilenet", "int8-dynamic", 28),
        ("vit", "int8-weights", 40),
        ("bert", "int8-dynamic", 35),
        ("resnet", "fp16", 55),
        ("bert", "fp16", 55),
    ],
)
def test_rounded_networks_keep_their_signal(name: str, numerics: Numerics, floor: float) -> None:
    model, x = trained(name)
    result, report = reduced(name, numerics)
    assert result.numerics == numerics
    found = noise_db(outputs(model, x), outputs(result, x))
    assert floor < found < 90  # rounded, and not by too much
    assert len(report.details["layers"]) == report.details["rounded_weights"]


def test_rounding_again_changes_nothing() -> None:
    result, _ = reduced("bert", "int8-weights")
    gm = result.module()
    before = {n: t.detach().clone() for n, t in gm.named_parameters()}
    layers = round_weights(gm, "int8-weights")
    assert "tokens" in layers.values() and "layers.0.attention.qkv" in layers.values()
    for name, tensor in gm.named_parameters():
        assert torch.allclose(tensor, before[name], rtol=3e-7, atol=0), name


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).mean(1))


def test_a_tied_weight_stays_tied() -> None:
    gm = captured(Tied(), torch.randint(0, 20, (4, 3))).module()
    layers = round_weights(gm, "int8-weights")
    assert len(layers) == 2
    held = {t.data_ptr() for t in gm.parameters()}
    assert len(held) == 1
