# SPDX-License-Identifier: Apache-2.0
"""What is drawn of a network: which boxes there are, and which groups they have."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from edgeprune.channels import Groups, analyse
from edgeprune.model import Event, capture
from edgeprune.report.drawing import Box, Drawing
from edgeprune.sketch import sketch
from tests import networks


def drawn(network: nn.Module, *shape: int) -> tuple[Drawing, Groups]:
    model, _ = capture(network.eval(), (torch.zeros(2, *shape),), event=Event("test"))
    groups = analyse(model)
    return sketch(model, groups, "test"), groups


def boxes(drawing: Drawing) -> dict[str, Box]:
    found = {box.label: box for box in drawing.boxes}
    assert len(found) == len(drawing.boxes), "labels aren't distinct"
    return found


def lines(drawing: Drawing) -> set[tuple[str, str]]:
    label = [box.label for box in drawing.boxes]
    return {(label[a], label[b]) for a, b in drawing.edges}


class Block(nn.Module):
    """A residual block with a batch norm behind each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + F.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """Two branches laid end to end, read by a third layer; and one parameter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Linear(6, 8)
        self.scale = nn.Parameter(torch.ones(12))
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x)
        joined = torch.cat([left, right], 1)
        return self.last(joined * self.scale) + self.last(F.relu(joined))


class Tied(nn.Module):
    """A table that is read twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(F.relu(self.one(x))))


def test_a_residual_block() -> None:
    drawing, groups = drawn(Block(), 3, 8, 8)
    found = boxes(drawing)
    assert set(found) == {"x", "conv1 + bn1", "conv2 + bn2", "add", "head", "output"}
    assert lines(drawing) == {
        ("x", "conv1 + bn1"),
        ("conv1 + bn1", "conv2 + bn2"),
        ("conv1 + bn1", "add"),
        ("conv2 + bn2", "add"),
        ("add", "head"),
        ("head", "output"),
    }
    assert [found[name].kind for name in ("x", "add", "head")] == ["end", "join", "layer"]
    assert {found[n].groups for n in ("conv1 + bn1", "conv2 + bn2", "add")} == {(0,)}
    assert found["head"].groups == ()
    assert found["head"].takes == (0,)
    assert "frozen: head.weight[0]: output (output)" in found["head"].notes
    assert [entry.macs for entry in drawing.groups] == [group.macs for group in groups.groups]


def test_a_concatenation_has_the_groups_of_its_parts() -> None:
    drawing, groups = drawn(Branches(), 6)
    number = {group.name: i for i, group in enumerate(groups.groups)}
    (cat,) = (box for box in drawing.boxes if box.label == "cat")
    assert cat.groups == (number["left"], number["right"])
    (scale,) = (box for box in drawing.boxes if box.label == "scale")
    assert scale.groups == cat.groups
    assert ("cat", "scale") in lines(drawing)


def test_shared_parameters_are_counted_once() -> None:
    drawing, groups = drawn(Branches(), 6)
    counts = [
        int(note.split()[0])
        for box in drawing.boxes
        for note in box.notes
        if " parameters, " in note
    ]
    assert sum(counts) == groups.totals().parameters


def test_tied_parameters_are_one() -> None:
    drawing, _ = drawn(Tied(), 6)
    layers = [box for box in drawing.boxes if box.kind == "layer"]
    assert [box.groups for box in layers[:2]] == [layers[0].groups] * 2
    assert all("one" in box.notes[0] for box in layers[:2])


def test_weights_that_pass_operators_keep_their_layer() -> None:
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))
    drawing, groups = drawn(net, 6)
    first = next(box for box in drawing.boxes if box.kind == "layer")
    assert len(groups.groups) == 1
    assert first.groups == (0,)


def test_attention_has_the_group_of_its_heads() -> None:
    drawing, groups = drawn(networks.TinyViT(), 3, 32, 32)
    number = {group.name: i for i, group in enumerate(groups.groups)}
    products = [b for b in drawing.boxes if b.label == "scaled_dot_product_attention"]
    heads = [(number[f"layers.{i}.attention.qkv"],) for i in range(2)]
    assert [box.groups for box in products] == heads
    qkv = [box for box in drawing.boxes if box.label.endswith("attention.qkv")]
    assert [box.groups for box in qkv] == heads
    assert {box.takes for box in qkv} == {(number["patch"],)}


def test_token_and_position_share_the_box_of_the_patches() -> None:
    drawing, _ = drawn(networks.TinyViT(), 3, 32, 32)
    first = drawing.boxes[1]
    assert first.label == "patch + token + position"
    assert first.notes[:3] == ("patch", "token", "position")
