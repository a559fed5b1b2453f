# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor

from edgeprune.model.grid import fused

grid = torch.ops.quantized_decomposed
SPECIAL = (0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 1e-40, 1e30, -1e30, torch.inf, -torch.inf, torch.nan)


class Rounded(torch.nn.Module):
    def __init__(self, grid: tuple, back: tuple) -> None:
        super().__init__()
        self.grid, self.back = grid, back

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = grid.quantize_per_tensor(x, *self.grid)
        return grid.dequantize_per_tensor(levels, *self.back).relu_(), levels


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("zero", "low", "high", "dtype"),
    [
        (-7, -128, 127, torch.int8),
        (0, -127, 127, torch.int8),
        (3, 0, 255, torch.uint8),
        (0, -32768, 32767, torch.int16),
    ],
)
def test_the_values_are_those_of_the_two_operators(shared, zero, low, high, dtype):
    ours = (0.0237, zero, low, high, dtype)
    module = torch.fx.symbolic_trace(Rounded(ours, ours if shared else (0.1, 1, *ours[2:])))
    x = torch.cat([torch.randn(5_000) * 3, torch.tensor(SPECIAL)])
    before = x.clone()
    quick = fused(copy.deepcopy(module))
    targets = [node.target for node in quick.graph.nodes]
    assert grid.dequantize_per_tensor.default not in targets
    for mine, theirs in zip(quick(x), module(x), strict=True):
        assert torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))
    assert torch.equal(x.view(torch.uint8), before.view(torch.uint8))


def test_a_type_that_floats_cannot_hold_is_left_alone():
    ours = (0.5, 0, -(2**31), 2**31 - 1, torch.int32)
    module = torch.fx.symbolic_trace(Rounded(ours, ours))
    before = [node.target for node in module.graph.nodes]
    assert [node.target for node in fused(module).graph.nodes] == before
