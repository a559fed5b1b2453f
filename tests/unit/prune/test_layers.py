# SPDX-License-Identifier: Apache-2.0
"""Layers as matrices: sampled inputs times weights are the sampled outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgeprune.model import Event, Model, capture
from edgeprune.model.program import value
from edgeprune.prune.layers import find_layers, find_stream
from edgeprune.prune.sides import Side


class Product(nn.Module):
    """A layer without a class of its own."""

    def __init__(self, make: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.randn(4))
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return self.make(x, self.weight, self.bias)


IMAGE, LINE, CUBE, ROWS = (2, 6, 9, 7), (2, 6, 11), (2, 6, 5, 4, 6), (2, 5, 6)
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv2d": (nn.Conv2d(6, 8, 3), IMAGE),
    "stride, padding, dilation": (nn.Conv2d(6, 8, (3, 2), (2, 1), (1, 2), (1, 2)), IMAGE),
    "groups": (nn.Conv2d(6, 9, 3, padding=1, groups=3, bias=False), IMAGE),
    "depthwise": (nn.Conv2d(6, 12, 3, 2, 1, groups=6), IMAGE),
    "same": (nn.Conv2d(6, 8, (4, 3), padding="same"), IMAGE),
    "valid": (nn.Conv2d(6, 8, 3, padding="valid"), IMAGE),
    "conv1d": (nn.Conv1d(6, 8, 5, 2, 2), LINE),
    "conv3d": (nn.Conv3d(6, 8, (2, 3, 3), padding=(0, 1, 1)), CUBE),
    "transposed": (nn.ConvTranspose2d(6, 8, 4, 2, 1), IMAGE),
    "transposed, padded out": (nn.ConvTranspose2d(6, 8, 3, 2, 1, 1, dilation=2), IMAGE),
    "transposed, groups": (nn.ConvTranspose2d(6, 9, 3, 3, 0, groups=3, bias=False), IMAGE),
    "transposed, 1d": (nn.ConvTranspose1d(6, 8, 3, 2), LINE),
    "linear": (nn.Linear(6, 8), ROWS),
    "linear on rows": (nn.Linear(6, 8, bias=False), (4, 6)),
    "matmul": (Product(lambda x, w, b: x @ w), ROWS),
    "addmm": (Product(lambda x, w, b: torch.addmm(b, x, w)), (3, 6)),
}


def captured(net: nn.Module, *shape: int) -> Model:
    return capture(net.eval(), (torch.randn(shape),), event=Event("test"))[0]


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_times_weights_are_the_outputs(name: str) -> None:
    torch.manual_seed(0)
    net, shape = LAYERS[name]
    module = captured(net, *shape).module()
    (layer,) = find_layers(module)
    x = torch.randn(shape)
    out = module(x)
    weight = module.get_parameter(layer.weight).detach()
    chosen = torch.randperm(layer.positions(out.shape))[:20]
    made = layer.inputs_at(x, weight, out.shape, chosen) @ layer.matrix(weight)
    if layer.added is not None:
        made = made + value(module, layer.added).reshape(layer.groups, 1, -1)
    got = made.transpose(0, 1).reshape(len(chosen), -1)
    torch.testing.assert_close(got, layer.outputs_at(out, chosen))
    assert torch.equal(layer.stored(layer.matrix(weight), weight), weight)
    assert (layer.bias is None) == (layer.added is None)


class Mixed(nn.Module):
    """Weights that can be fitted, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 6)
        self.tied = nn.Linear(6, 8, bias=False)
        self.tied.weight = self.table.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.twice = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.other.bias = self.twice.bias

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.table(x.argmax(-1).clamp(max=7))
        x = self.twice(self.twice(self.normed(x)).relu())
        return self.tied(self.other(x))


def test_weights_of_others_are_left_alone() -> None:
    found = find_layers(captured(Mixed(), 3, 6).module())
    assert [(layer.weight, layer.bias) for layer in found] == [
        ("twice.weight", None),  # the bias is another layer's, too
        ("twice.weight", None),
        ("other.weight", None),
    ]


class Residual(nn.Module):
    """Additions behind a norm, behind dropout, and behind an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 1)
        self.c = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm(self.a(x))
        x = nn.functional.dropout(self.b(x), 0.1, self.training) + x
        return x + self.c(x).relu()


def test_the_stream_that_a_layer_adds_to() -> None:
    module = captured(Residual(), 2, 4, 5, 5).module()
    a, b, c = find_layers(module)
    assert a.mean == "norm.running_mean"
    (one, two, three) = (find_stream(layer) for layer in (a, b, c))
    assert one is not None
    assert one.norm is not None
    assert two is not None
    assert two.norm is None
    assert three is None
    with torch.no_grad():
        module.get_parameter("norm.weight")[:] = torch.tensor([2.0, 0.5, 1e-6, -1.0])
    scale = one.scale(module)
    assert scale is not None
    torch.testing.assert_close(scale, torch.tensor([0.5, 2.0, 0.0, -1.0]), rtol=1e-4, atol=0)


def test_a_network_in_pieces_gives_what_it_gives_whole() -> None:
    torch.manual_seed(0)
    module = captured(Residual(), 2, 4, 5, 5).module()
    side, x = Side(module), torch.randn(2, 4, 5, 5)
    side.start(0, (x,))
    for layer in find_layers(module):
        side.advance(0, layer.node)
        assert side.has(0, layer.input)
        assert side.held(0) > 0
    last = find_layers(module)[-1].node
    side.advance(0, last, past=True)
    (after,) = last.users
    (output,) = after.users
    side.advance(0, output, past=True)
    torch.testing.assert_close(side.value(0, output), module(x))
