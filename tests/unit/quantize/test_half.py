# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from edgeprune.errors import InputError
from edgeprune.model import Event, Model, capture
from edgeprune.quantize.half import require_halves

X = torch.rand(8, 6)


class Scaled(nn.Module):
    """Two layers with weights of any scale."""

    def __init__(self, one: float, two: float, bias: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.one.weight.mul_(one)
            self.two.weight.mul_(two)
            self.two.bias.fill_(bias)

    def forward(self, x):
        return self.two(self.one(x).relu())


def scaled(one: float = 1.0, two: float = 1.0, bias: float = 0.0) -> Model:
    model, _ = capture(Scaled(one, two, bias).eval(), (X[:2],), event=Event("load"))
    return model


@pytest.mark.parametrize("inputs", [None, (X,)])
def test_weights_beyond_the_largest_half_are_named(inputs):
    words = r"'one.weight' holds 4\d of 48 values beyond 65504.*--numerics fp32"
    with pytest.raises(InputError, match=words):
        require_halves(scaled(1e6, 1e-6), inputs)


def test_weights_below_the_smallest_step_are_named_where_they_matter():
    with pytest.raises(InputError, match=r"leaves \d+\.\d dB of the outputs; two .* by itself"):
        require_halves(scaled(two=1e-7), (X,))
    require_halves(scaled(two=1e-7, bias=30.0), (X,))
    require_halves(scaled(), (X,))
