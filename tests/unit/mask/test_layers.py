# SPDX-License-Identifier: Apache-2.0
"""What a mask may cover, against shapes and multiply-accumulates by hand."""

from math import prod

import pytest
import torch
from torch import Tensor, nn

from edgeprune.channels import macs
from edgeprune.errors import InputError
from edgeprune.mask import look
from edgeprune.model import Event, Model, capture
from tests import networks
from tests.architectures import ARCHITECTURES
from tests.unit.channels.graphs import captured

Row = tuple[str, str, tuple[int, ...], int, int, int]
"""Name, operator, shape, dimensions of outputs and inputs, multiply-accumulates."""


def rows(model: Model, *exclude: str) -> list[Row]:
    found = look(model, exclude)
    assert found.macs == macs(model), "layers and the rest make the whole"
    assert found.size == sum(layer.size for layer in found.layers)
    return [(n.name, n.op, n.shape, n.out_dim, n.in_dim, n.macs) for n in found.layers]


def of(module: nn.Module, *x: Tensor) -> Model:
    torch.manual_seed(0)
    return captured(module, *x)


class Forms(nn.Module):
    """A parameter multiplied in many ways; the same function each time: 2x3x4 to 2x3x5."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        shape = (4, 5) if form in ("matmul", "einsum", "bmm", "conv") else (5, 4)
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "matmul":
            return x @ self.weight
        if self.form == "transposed":
            return x @ self.weight.t()
        if self.form == "permuted":
            return torch.matmul(x, self.weight.permute(1, 0))
        if self.form == "linear":
            return nn.functional.linear(x, self.weight)
        if self.form == "conv":
            return torch.conv1d(x.transpose(1, 2), self.weight.t()[:, :, None]).transpose(1, 2)
        if self.form == "bmm":
            return torch.bmm(x, self.weight[None].expand(x.shape[0], -1, -1))
        if self.form == "einsum":
            return torch.einsum("btc,cd->btd", x, self.weight)
        return torch.einsum("btc,dc->btd", x, self.weight)


@pytest.mark.parametrize(
    ("form", "out_dim"),
    [
        ("matmul", 1), ("transposed", 0), ("permuted", 0), ("linear", 0), ("bmm", 1), ("conv", 1),
    ],
)  # fmt: skip
def test_matrix_products(form: str, out_dim: int) -> None:
    ((name, _, shape, out, inner, cost),) = rows(of(Forms(form), torch.randn(2, 3, 4)))
    assert (name, cost) == ("weight", 3 * 4 * 5)
    assert (out, inner) == (out_dim, 1 - out_dim) and shape[out] == 5 and shape[inner] == 4


@pytest.mark.parametrize("form", ["einsum", "einsum, turned"])
def test_einsum(form: str) -> None:
    ((name, _, shape, _, _, cost),) = rows(of(Forms(form), torch.randn(2, 3, 4)))
    assert (name, cost, prod(shape)) == ("weight", 3 * 4 * 5, 20)


def test_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, 1, groups=4),
        nn.ConvTranspose2d(12, 6, 2, 2),
        nn.Flatten(),
        nn.Linear(6 * 16 * 16, 5),
    )
    assert rows(of(net, torch.randn(2, 3, 16, 16))) == [
        ("0.weight", "conv2d", (8, 3, 3, 3), 0, 1, 8 * 8 * 8 * 27),
        ("2.weight", "conv2d", (8, 1, 3, 3), 0, 1, 8 * 8 * 8 * 9),
        ("3.weight", "conv2d", (12, 2, 1, 1), 0, 1, 8 * 8 * 12 * 2),
        ("4.weight", "conv_transpose2d", (12, 6, 2, 2), 1, 0, 8 * 8 * 12 * 6 * 4),
        ("6.weight", "linear", (5, 1536), 0, 1, 5 * 1536),
    ]


class Last(nn.Module):
    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize(("make", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(make, gates: int) -> None:
    """Seven steps of two products each, for each of the gates."""
    found = rows(of(Last(make(3, 5, batch_first=True)), torch.randn(2, 7, 3)))
    weights = {name: (shape, out, inner, cost) for name, _, shape, out, inner, cost in found}
    assert weights["recurrent.weight_ih_l0"] == ((gates * 5, 3), 0, 1, 7 * gates * 5 * 3)
    assert weights["recurrent.weight_hh_l0"] == ((gates * 5, 5), 0, 1, 7 * gates * 5 * 5)
    assert weights["head.weight"] == ((2, 5), 0, 1, 10)
    assert len(weights) == 3


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 6)
        self.body, self.head = nn.Linear(6, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        return self.head(self.body(self.body(x)))


def test_a_weight_that_is_used_twice_stands_once_with_both_costs() -> None:
    found = rows(of(Tied(), torch.randint(0, 20, (2, 3))))
    costs = {name.split(".")[0]: cost for name, *_, cost in found}
    assert sorted(costs.values()) == [2 * 3 * 36, 3 * 120]
    assert len(look(of(Tied(), torch.randint(0, 20, (2, 3))))["body.weight"].nodes) == 2


def test_products_of_activations_are_fixed() -> None:
    model = of(networks.TinyViT(16, 2, depth=1), torch.randn(2, 3, 32, 32))
    found = look(model)
    assert [layer.name for layer in found.layers] == [
        "patch.weight",
        "layers.0.attention.qkv.weight",
        "layers.0.attention.out.weight",
        "layers.0.mlp.0.weight",
        "layers.0.mlp.2.weight",
        "head.weight",
    ]
    assert found["layers.0.attention.qkv.weight"].macs == 17 * 16 * 48
    assert found.fixed == 2 * 17 * 17 * 16
    assert found.macs == macs(model)


def test_layers_stand_in_the_order_of_the_graph() -> None:
    model = of(networks.tiny_resnet(), torch.randn(2, 3, 32, 32))
    assert [row[0] for row in rows(model)] == [
        "conv1.weight",
        *(f"layer{s}.0.conv{c}.weight" for s in (1, 2, 3) for c in (1, 2)),
        "linear.weight",
    ]
    assert look(model)["layer2.0.conv1.weight"].macs == 16 * 16 * 16 * 8 * 9


@pytest.mark.parametrize("name", list(ARCHITECTURES)[:3])
def test_architectures(name: str) -> None:
    module, example = ARCHITECTURES[name].build()
    model, _ = capture(module, example, event=Event("test"))
    found = look(model)
    assert found.macs == macs(model)
    shapes = {n: tuple(p.shape) for n, p in module.named_parameters() if p.ndim > 1}
    for layer in found.layers:
        assert layer.shape == shapes[layer.name]
        assert {layer.out_dim, layer.in_dim} == {0, 1}
        assert layer.macs % layer.size == 0 and layer.macs, "each weight as often as another"


def test_excluded_weights_cost_all_the_same() -> None:
    model = of(networks.tiny_resnet(), torch.randn(2, 3, 32, 32))
    whole, part = look(model), look(model, ["layer1.*", "linear.weight"])
    assert {row.name for row in whole.layers} - {row.name for row in part.layers} == {
        "layer1.0.conv1.weight", "layer1.0.conv2.weight", "linear.weight",
    }  # fmt: skip
    assert part.macs == whole.macs and part.fixed > whole.fixed == 0
    with pytest.raises(InputError, match=r"--exclude layr1\.\*: fits no weight"):
        look(model, ["layr1.*"])
    with pytest.raises(InputError, match="no weight is left for a mask"):
        look(model, ["*"])
    with pytest.raises(KeyError):
        part["linear.weight"]


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="no weights that a mask could cover"):
        look(of(nn.BatchNorm1d(3), torch.randn(2, 3)))
