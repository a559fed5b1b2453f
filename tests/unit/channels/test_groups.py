# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.channels import analyse, apply
from edgeprune.channels.shapes import Block, blocks
from edgeprune.model import Event, read, save
from tests import networks
from tests.unit.channels.graphs import captured


def names(model) -> dict[str, int]:
    return {g.name: g.size for g in analyse(model).groups}


def test_a_residual_stream_with_padded_shortcuts_is_three_groups() -> None:
    model = captured(networks.tiny_resnet(), torch.randn(2, 3, 32, 32))
    groups = analyse(model)
    assert names(model)["conv1"] == 8
    stem = next(g for g in groups.groups if g.name == "conv1")
    assert ("layer3.0.conv2.weight", 0) in stem.members, "the stem's channels run to the last stage"
    assert groups.totals().parameters == sum(p.numel() for p in networks.tiny_resnet().parameters())


def test_attention_is_pruned_by_whole_heads() -> None:
    assert (
        names(captured(networks.TinyViT(), torch.randn(2, 3, 32, 32)))["layers.0.attention.qkv"]
        == 4
    )


def test_frozen_axes_say_why() -> None:
    groups = analyse(captured(networks.TinyBert(), torch.zeros(2, 16, dtype=torch.long)))
    causes = {(f.name, f.dim): f.cause for f in groups.frozen}
    assert causes["tokens.weight", 0] == "looked up by value"
    assert causes["head.weight", 0] == "output"


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.renorm(self.b(torch.relu(self.a(x))), 2.0, 0, 1.0))


def test_an_operator_without_a_rule_freezes_and_nothing_else() -> None:
    groups = analyse(captured(Unknown(), torch.randn(2, 6)))
    assert [g.name for g in groups.groups] == ["a"]
    why = {f.name: f.cause for f in groups.frozen}
    assert why["b.weight"].startswith("no rule for aten.renorm")


def test_a_group_never_loses_its_last_channel() -> None:
    model = captured(networks.digits_cnn(), torch.randn(2, 1, 8, 8))
    groups = analyse(model)
    removed = groups.keep_all()
    removed[groups.groups[0].channels] = True
    with pytest.raises(ValueError, match="all its 16 channels"):
        apply(model, groups, removed, Event("prune"))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.enter(x))
        return self.leave(x + self.b(torch.relu(x + self.a(x))))


def test_shared_weights_stay_shared() -> None:
    model = captured(Tied(), torch.randn(2, 4))
    groups = analyse(model)
    removed = groups.keep_all()
    removed[groups.groups[0].channels[:3]] = True
    pruned = apply(model, groups, removed, Event("prune"))
    state = pruned.program.state_dict
    assert state["a.weight"].shape == (5, 5)
    again = {n: p.data_ptr() for n, p in pruned.module().named_parameters(remove_duplicate=False)}
    assert again["a.weight"] == again["b.weight"]
    assert groups.totals().parameters == sum(p.numel() for p in Tied().parameters())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (networks.resnet20, (1, 3, 32, 32)),
        (networks.TinyMobileNet, (1, 3, 32, 32)),
        (networks.digits_cnn, (1, 1, 8, 8)),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, groups=2)),
         (1, 3, 9, 9)),
        (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.Linear(14, 5)), (1, 3, 16)),
        (lambda: nn.Conv3d(2, 4, 3), (1, 2, 6, 6, 6)),
    ],
)  # fmt: skip
def test_macs_equal_the_flop_counter(make, shape: tuple[int, ...]) -> None:
    module = make().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.randn(shape))
    model = captured(module, torch.randn(2, *shape[1:]))
    assert analyse(model).totals().macs * 2 == counter.get_total_flops()


def test_predicted_costs_are_those_of_the_pruned_network() -> None:
    for make, x in (
        (networks.TinyMobileNet, torch.randn(2, 3, 32, 32)),
        (networks.TinyViT, torch.randn(2, 3, 32, 32)),
    ):
        model = captured(make(), x)
        groups = analyse(model)
        removed = groups.keep_all()
        for group in groups.groups:
            removed[group.channels[: group.size // 2]] = True
        pruned = apply(model, groups, removed, Event("prune"))
        assert groups.totals(removed) == analyse(pruned).totals()
        names_of = dict(pruned.module().named_parameters())
        assert groups.totals(removed).parameters == sum(p.numel() for p in names_of.values())


def test_a_pruned_network_saves_reloads_and_is_pruned_again(tmp_path) -> None:
    x = torch.randn(4, 3, 32, 32)
    model = captured(networks.tiny_resnet(), x[:2])
    for _ in range(2):
        groups = analyse(model)
        removed = groups.keep_all()
        for group in groups.groups:
            removed[group.channels[::3]] = True
        model = apply(model, groups, removed, Event("prune"))
    save(model, tmp_path / "pruned.pt2")
    again = read(tmp_path / "pruned.pt2")
    assert torch.equal(again.module()(x), model.module()(x))
    assert [e.stage for e in again.history].count("prune") == 2


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((37, 4, 6), (37, 24), [((0,), (0,)), ((1, 2), (1,))]),
        ((37, 24), (37, 1, 4, 6), [((0,), (0,)), ((1,), (2, 3))]),
        ((37, 4, 1, 6), (148, 6), [((0, 1), (0,)), ((3,), (1,))]),
        ((4, 6), (6, 4), [((0, 1), (0, 1))]),
        ((1, 1), (1,), []),
    ],
)
def test_blocks_of_a_reshape(before, after, expected) -> None:
    assert blocks(before, after) == [Block(i, o) for i, o in expected]


def test_an_empty_reshape_has_no_blocks() -> None:
    assert blocks((0, 4), (4, 0)) is None


def test_channels_are_numbered_without_gaps() -> None:
    groups = analyse(captured(networks.TinyMobileNet(), torch.randn(2, 3, 32, 32)))
    numbers = np.concatenate([g.channels for g in groups.groups])
    assert np.array_equal(numbers, np.arange(groups.channels))
