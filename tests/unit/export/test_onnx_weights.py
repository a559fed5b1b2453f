# SPDX-License-Identifier: Apache-2.0
"""Stored integers under names that no other weight, and no tool, takes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune.export.check import check, expect
from edgeprune.export.feed import random_batches
from edgeprune.export.onnx import write_onnx
from edgeprune.quantize import quantize
from edgeprune.recipe import Numerics, QuantizeOptions
from tests.unit.quantize.toy import captured, context


class Straight(nn.Module):
    """Looked-up rows go into a linear layer without anything between."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.out(self.table(ids)).mean(1)
        return found


class Tied(nn.Module):
    """The table is the weight of the last layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 16), nn.Linear(16, 20, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.out(self.table(ids).mean(1))
        return found


@pytest.mark.parametrize("numerics", ["int8-dynamic", "int8-weights"])
@pytest.mark.parametrize("kind", [Straight, Tied])
def test_a_table_beside_a_linear_layer(
    kind: type[nn.Module], numerics: Numerics, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    dense = captured(kind().eval(), torch.randint(0, 20, (2, 7)))
    model, _ = quantize(dense, QuantizeOptions(numerics=numerics), context(None))
    path = tmp_path / "m.onnx"
    write_onnx(model, path, opset=20, batch=1, activations="uint8")
    batches = random_batches(model, 16, 0)
    check(path, model, expect(model, batches, "random"), name="m")
