# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.export.locate import Refused, Unlike, locate
from edgeprune.export.onnx import write_onnx
from edgeprune.model import Event, capture, recapture

aten = torch.ops.aten


class Branches(nn.Module):
    """Two branches; the fault is in one of them, neither first nor last in the graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.left = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.right, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 4)

    def forward(self, x):
        y = self.stem(x).relu()
        left = nn.functional.avg_pool2d(self.left(y).sigmoid(), 2, 1, 1)
        right = nn.functional.max_pool2d(self.right(y).tanh(), 2, 1, 1)
        return self.head((left + right).mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    return capture(Branches().eval(), (torch.zeros(2, 3, 8, 8),), event=Event("load"))[0]


BATCH = (np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype("float32"),)


def calls(part, target):
    return part.program.graph.find_nodes(op="call_function", target=target)


def plainly(part, path):
    write_onnx(part, path, opset=20, batch="dynamic")


def refusing(part, path):
    if calls(part, aten.avg_pool2d.default):
        raise Refused("operator xyz is refused")
    plainly(part, path)


def wrong(part, path):
    """Writes another function in the place of tanh."""
    module = part.module()
    for node in module.graph.find_nodes(op="call_function", target=aten.tanh.default):
        node.target = aten.neg.default
    module.recompile()
    plainly(recapture(part, module, Event("test")), path)


def test_a_refused_operator_is_named_with_its_settings(model):
    where = locate(model, "onnx", refusing, Refused("no"), BATCH)
    assert where == (
        "operator avg_pool2d.default (Nx8x4x4 to Nx8x5x5, kernel_size [2, 2], stride [1, 1], "
        "padding [1, 1]), which reads sigmoid.default"
    )


def test_the_operator_at_which_values_become_wrong_is_named(model):
    where = locate(model, "onnx", wrong, Unlike("17 dB", 60.0), BATCH)
    assert where == "operator tanh.default (Nx8x4x4 to Nx8x4x4), which reads conv2d.default"


def test_a_layer_is_called_by_its_module(model):
    def refuses_last(part, path):
        if calls(part, aten.linear.default):
            raise Refused("no")
        plainly(part, path)

    where = locate(model, "onnx", refuses_last, Refused("no"), BATCH)
    assert where.startswith("layer 'head', operator linear.default (Nx8 to Nx4), which reads mean")


def test_where_no_part_shows_the_fault_nothing_is_named(model):
    assert locate(model, "onnx", plainly, Unlike("17 dB", 60.0), BATCH) is None
    assert locate(model, "onnx", plainly, Refused("no"), BATCH) is None
