# SPDX-License-Identifier: Apache-2.0
"""Residual branches: found in the graph, and a network without some computes what the dense one
does with zeros in their place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.channels import analyse, apply, cut, find_branches, masked, without
from edgeprune.model import Event, Model, read, save, set_training
from tests import networks
from tests.unit.channels.graphs import captured
from tests.unit.channels.residual import (
    IMAGE_BLOCKS,
    TOKEN_BLOCKS,
    Images,
    Tokens,
    image_blocks,
    token_blocks,
)

IMAGE, TOKENS = (2, 3, 8, 8), (2, 6, 5)
EVENT = Event("prune")

OFFERED = {
    "post-act": 1, "pre-act": 1, "in-place": 1, "in-place-entry": 1, "layer-scale": 1,
    "drop-path": 1, "one-layer": 1, "nested": 2, "shortcut": 0, "down": 0, "permuted": 1,
    "pooled-gate": 1, "conv": 0, "repeated": 2, "weight-scaled": 1, "dead-code": 1,
    "pre-norm": 2, "post-norm": 2, "parallel": 2, "windows": 2, "masked": 2, "own-mask": 2,
    "linear": 0,
}  # fmt: skip
"""How many branches each block has."""


def make(kinds: list[str], seed: int) -> tuple[Model, Tensor]:
    torch.manual_seed(seed)
    images = kinds[0] in IMAGE_BLOCKS
    x = torch.randn(IMAGE if images else TOKENS)
    return captured(Images(kinds) if images else Tokens(kinds), x), x


def assert_exact(model: Model, x: Tensor, seed: int) -> Model:
    """Remove random branches and random channels of what is left."""
    groups = analyse(model)
    random = np.random.default_rng(seed)
    branches = [b for b in find_branches(model, groups) if random.random() < 0.6]
    within = {name for b in branches for name in b.groups}
    removed = groups.keep_all()
    for group in groups.groups:
        if group.name not in within and not group.renormalises:
            count = int(random.integers(0, group.size))
            removed[random.choice(group.channels, count, replace=False)] = True
    pruned = apply(model, groups, removed, EVENT, branches)
    with torch.no_grad():
        expected = masked(model, groups, removed, branches)(x.clone())
        output = pruned.module()(x.clone())
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    gone = cut(model, groups, branches)
    assert without(groups, gone).totals(removed) == analyse(pruned).totals()
    assert not gone.states & pruned.program.state_dict.keys()
    return pruned


@pytest.mark.parametrize("kind", IMAGE_BLOCKS + TOKEN_BLOCKS)
def test_each_kind_of_block(kind: str) -> None:
    model, x = make([kind], 0)
    groups = analyse(model)
    branches = find_branches(model, groups)
    assert len(branches) == OFFERED[kind]
    pruned = apply(model, groups, groups.keep_all(), EVENT, branches)
    twin = masked(model, groups, groups.keep_all(), branches)
    assert torch.equal(pruned.module()(x.clone()), twin(x.clone()))
    if branches:
        assert analyse(pruned).totals().macs < groups.totals().macs
        assert not torch.allclose(model.module()(x.clone()), twin(x.clone()))
        left = {n.name for n in pruned.program.graph.nodes if "fill" in str(n.target)}
        assert not left, "what only a branch used is still built"


@settings(max_examples=25)
@given(image_blocks(), st.integers(0, 2**16))
def test_random_image_networks(kinds: list[str], seed: int) -> None:
    assert_exact(*make(kinds, seed), seed)


@settings(max_examples=15)
@given(token_blocks(), st.integers(0, 2**16))
def test_random_token_networks(kinds: list[str], seed: int) -> None:
    assert_exact(*make(kinds, seed), seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("net", [networks.resnet20, networks.TinyMobileNet, networks.TinyViT])
def test_whole_networks(net, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 32, 32)
    assert_exact(captured(net(), x), x, seed)


def test_costs_names_and_stages() -> None:
    model = captured(networks.resnet20(), torch.randn(2, 3, 32, 32))
    groups = analyse(model)
    branches = find_branches(model, groups)
    # The first block of a later stage has no identity: its shortcut is strided and padded
    expected = ["1.0", "1.1", "1.2", "2.1", "2.2", "3.1", "3.2"]
    assert [b.name for b in branches] == [f"layer{i}" for i in expected]
    assert len({b.stage for b in branches}) == 3
    assert branches[0].groups == ("layer1.0.conv1",)
    for branch in branches:
        rest = without(groups, cut(model, groups, [branch])).totals()
        whole = groups.totals()
        assert branch.macs == whole.macs - rest.macs > 0
        assert branch.parameters == whole.parameters - rest.parameters > 0
        assert branch.bytes == whole.bytes - rest.bytes
        assert f"{branch.name}.conv1.weight" in branch.states


def test_attention_and_feed_forward_are_kinds_of_their_own() -> None:
    model, _ = make(["pre-norm", "windows"], 0)
    kinds = {b.name: b.kind for b in find_branches(model, analyse(model))}
    assert kinds["blocks.0.attention"] == kinds["blocks.1.attention"]
    assert kinds["blocks.0"] == kinds["blocks.1"] != kinds["blocks.0.attention"]


def test_an_outer_branch_takes_the_inner_one_along() -> None:
    model, x = make(["nested"], 0)
    groups = analyse(model)
    inner, outer = find_branches(model, groups)
    assert inner.name == "blocks.0.inner"
    assert inner.nodes < outer.nodes
    one, both = (
        apply(model, groups, groups.keep_all(), EVENT, b) for b in ([outer], [inner, outer])
    )
    assert not any(name.startswith("blocks.") for name in one.program.state_dict)
    assert torch.equal(one.module()(x), both.module()(x))
    less = apply(model, groups, groups.keep_all(), EVENT, [inner])
    assert "blocks.0.a.0.weight" in less.program.state_dict
    assert "blocks.0.inner.a.0.weight" not in less.program.state_dict


class SharedLayers(nn.Module):
    """One residual layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.layer, self.leave = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for _ in range(2):
            x = x + self.layer(F.relu(x))
        return self.leave(x)


def test_a_shared_weight_goes_with_its_last_use() -> None:
    x = torch.randn(2, 4)
    model = captured(SharedLayers(), x)
    groups = analyse(model)
    first, second = find_branches(model, groups)
    assert (first.name, second.name) == ("layer", "layer#2")
    assert not first.states
    for branches in ([first], [second], [first, second]):
        pruned = apply(model, groups, groups.keep_all(), EVENT, branches)
        twin = masked(model, groups, groups.keep_all(), branches)
        assert torch.equal(pruned.module()(x), twin(x))
        assert ("layer.weight" in pruned.program.state_dict) == (len(branches) == 1)


class OnlyBlocks(nn.Module):
    """No layer besides the blocks'."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(F.relu(x))
        return x


def test_a_layer_is_left_before_each_output() -> None:
    model = captured(OnlyBlocks(), torch.randn(2, 4))
    groups = analyse(model)
    branches = find_branches(model, groups)
    assert len(branches) == 3
    cut(model, groups, branches[:2])
    with pytest.raises(ValueError, match="no layer would be left before the output add_2"):
        apply(model, groups, groups.keep_all(), EVENT, branches)


class TwoInputs(nn.Module):
    """A decoder layer: the only use of the second input is inside of a branch."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 8), nn.Linear(8, 3)
        self.layers = nn.ModuleList(nn.Linear(12, 8) for _ in range(layers))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(torch.cat([x, memory], 1))
        return self.leave(x)


@pytest.mark.parametrize("layers", [1, 2])
def test_no_input_loses_its_use(layers: int) -> None:
    model = captured(TwoInputs(layers), torch.randn(2, 4), torch.randn(2, 4))
    groups = analyse(model)
    branches = find_branches(model, groups)
    assert len(branches) == (0 if layers == 1 else 2)
    if branches:
        with pytest.raises(ValueError, match="the input memory would be of no use"):
            apply(model, groups, groups.keep_all(), EVENT, branches)


class Late(nn.Module):
    """The stream is read again after an in-place operator behind the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.layer, self.leave = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = F.relu_(x + self.layer(x))
        return self.leave(y * x)


class AtOnce(nn.Module):
    """The stream is the caller's own tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.leave = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.relu_(x + self.layer(x)))


@pytest.mark.parametrize("net", [Late, AtOnce])
def test_an_in_place_operator_behind_it_writes_to_a_copy(net) -> None:
    x = torch.randn(2, 4)
    model = captured(net(), x)
    groups = analyse(model)
    (branch,) = find_branches(model, groups)
    assert cut(model, groups, [branch]).copies == {branch.add}
    pruned = apply(model, groups, groups.keep_all(), EVENT, [branch]).module()
    twin = masked(model, groups, groups.keep_all(), [branch])
    given = x.clone()
    assert torch.equal(pruned(given), twin(x))
    assert torch.equal(given, x)


def test_without_need_nothing_is_copied() -> None:
    model, _ = make(["in-place-entry", "post-act", "pre-act", "layer-scale"], 0)
    groups = analyse(model)
    assert cut(model, groups, find_branches(model, groups)).copies == frozenset()


class Gate(nn.Module):
    """Sums that are no residual branches: of two layers, scaled by two, of unequal shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 1)
        self.leave = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) + self.b(x)
        y = torch.add(self.c(y).expand(-1, 8) * 1.0, y, alpha=2)
        return self.leave(y + self.c(y))


def test_other_sums_are_not_offered() -> None:
    model = captured(Gate(), torch.randn(2, 4))
    assert find_branches(model, analyse(model)) == ()


def test_a_group_goes_whole_only_with_its_branch() -> None:
    model, _ = make(["post-act", "post-act"], 0)
    groups = analyse(model)
    first, second = find_branches(model, groups)
    removed = groups.keep_all()
    (inner,) = (g for g in groups.groups if g.name in first.groups)
    removed[inner.channels] = True
    apply(model, groups, removed, EVENT, [first])
    with pytest.raises(ValueError, match="all its 6 channels"):
        apply(model, groups, removed, EVENT, [second])


@pytest.mark.parametrize(
    "kinds",
    [
        ["in-place", "in-place", "in-place", "down", "pre-act"],
        ["post-act", "layer-scale", "permuted", "nested"],
        ["windows", "post-norm", "own-mask"],
    ],
)
def test_what_is_left_trains_saves_and_exports(kinds: list[str], tmp_path) -> None:
    import onnxruntime

    model, x = make(kinds, 0)
    groups = analyse(model)
    branches = find_branches(model, groups)[1:]
    pruned = apply(model, groups, groups.keep_all(), EVENT, branches)

    save(pruned, tmp_path / "pruned.pt2")
    again = read(tmp_path / "pruned.pt2")
    expected = pruned.module()(x).detach()
    assert torch.equal(again.module()(x), expected)

    module = again.module()
    set_training(module, True)
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    labels, losses = torch.tensor([0, 1]), []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(module(x.clone()), labels))
        losses[-1].backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]

    torch.onnx.export(again.program, (x,), tmp_path / "pruned.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "pruned.onnx")
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-3, atol=1e-4)
    names = {w.name for w in session.get_overridable_initializers()}
    assert not names & {name for b in branches for name in b.states}
