# SPDX-License-Identifier: Apache-2.0
"""Which residual branches go: chosen by the same importance, for the same share of channels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.channels import analyse, find_branches
from edgeprune.context import Context
from edgeprune.data import open_data
from edgeprune.errors import InputError
from edgeprune.model import Event, Model, capture
from edgeprune.prune import PrunePlan, plan, prune
from edgeprune.prune.criteria import CRITERIA
from edgeprune.prune.depth import Depth
from edgeprune.prune.plan import decide
from edgeprune.recipe import PruneOptions
from edgeprune.target import find_target
from tests import networks
from tests.unit.channels.graphs import captured
from tests.unit.channels.residual import Images
from tests.unit.prune import drawn

USELESS = "layer2.1"


@pytest.fixture(scope="module")
def resnet() -> Model:
    torch.manual_seed(0)
    return captured(networks.resnet20(), torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="module")
def weak() -> Model:
    """A ResNet-20 of which one block does next to nothing."""
    torch.manual_seed(0)
    net = networks.resnet20()
    with torch.no_grad():
        for parameter in net.get_submodule(USELESS).parameters():
            parameter.mul_(1e-4)
    return capture(net, (torch.randn(2, 3, 32, 32),), event=Event("test"))[0]


def context(folder: Path, with_data: bool = False) -> Context:
    data = None
    if with_data:
        random = np.random.default_rng(0)
        images = random.standard_normal((64, 3, 32, 32)).astype(np.float32)
        np.savez(folder / "data.npz", x=images, y=np.arange(64) % 10)
        data = open_data(str(folder / "data.npz"), seed=0)
    return Context(find_target("host"), folder, data)


def going(decision: PrunePlan) -> list[str]:
    return [b.name for b in decision.branches or () if b.goes]


def decided(model: Model, options: PruneOptions, multiple: int = 1, seed: int = 0) -> PrunePlan:
    groups = analyse(model)
    branches = find_branches(model, groups)
    scores = drawn(groups, seed, branches)
    depth = Depth(model, branches, scores[groups.channels :])
    return decide(groups, scores[: groups.channels], "random", options, multiple, depth)


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"random", "wanda", "apoz", "fpgm"}))
def test_a_useless_branch_goes_first(weak, criterion, tmp_path) -> None:
    options = PruneOptions(ratio=0.5, importance=criterion, allow_depth=True)
    decision = plan(weak, options, context(tmp_path, CRITERIA[criterion].needs != "weights"))
    assert USELESS in going(decision)
    scores = {b.name: b.importance for b in decision.branches or ()}
    assert min(scores, key=lambda name: scores[name]) == USELESS
    # One of three in the first stage, one of two in each of the others
    assert [name[:6] for name in going(decision)] == ["layer1", "layer2", "layer3"]


def test_size_does_not_decide(weak, tmp_path) -> None:
    """Branches of larger stages have more weights, and smaller ones by their initialisation."""
    options = PruneOptions(ratio=0.5, importance="l2", allow_depth=True)
    scores = {b.name: b.importance for b in plan(weak, options, context(tmp_path)).branches or ()}
    assert scores["layer1.0"] > scores["layer3.1"] > 10 * scores[USELESS]


def test_random_goes_by_its_seed(resnet, tmp_path) -> None:
    options = PruneOptions(ratio=0.5, importance="random", allow_depth=True)
    one = context(tmp_path)
    assert going(plan(resnet, options, one)) == going(plan(resnet, options, one))
    found = {tuple(going(decided(resnet, options, seed=seed))) for seed in range(8)}
    assert len(found) > 1


@pytest.mark.parametrize(
    ("ratio", "expected", "rest"),
    [
        (0.3, {}, None),
        (0.34, {"layer1": 1}, 1.98 / 3 / (2 / 3)),
        (0.5, {"layer1": 1, "layer2": 1, "layer3": 1}, 0.75),
        (0.9, {"layer1": 2, "layer2": 1, "layer3": 1}, None),
    ],
)
def test_the_ratio_is_concentrated(resnet, ratio, expected, rest) -> None:
    """In a stage of three blocks a third of the channels is one block."""
    decision = decided(resnet, PruneOptions(ratio=ratio, importance="random", allow_depth=True))
    stages = [name[:6] for name in going(decision)]
    assert {stage: stages.count(stage) for stage in stages} == expected
    # As many channels go inside a stage as without depth pruning, up to rounding
    plain = {g.name: g for g in decided_plainly(resnet, ratio).groups}
    for stage, blocks in (("layer1", "012"), ("layer2", "12"), ("layer3", "12")):
        inner = [f"{stage}.{block}.conv1" for block in blocks]
        left = sum(g.after for g in decision.groups if g.name in inner)
        assert abs(left - sum(plain[name].after for name in inner)) <= len(inner)
    if rest is not None:
        (first, second) = (g for g in decision.groups if g.name in STAGE_ONE and g.after)
        assert first.after == second.after == round(16 * rest)


STAGE_ONE = [f"layer1.{block}.conv1" for block in "012"]


def decided_plainly(model: Model, ratio: float) -> PrunePlan:
    groups = analyse(model)
    scores = drawn(groups, 0)
    return decide(groups, scores, "random", PruneOptions(ratio=ratio), 1)


@settings(max_examples=25)
@given(
    ratio=st.floats(0.05, 0.95),
    scope=st.sampled_from(["uniform", "global"]),
    multiple=st.sampled_from([1, 4, 8]),
    seed=st.integers(0, 99),
)
def test_widths_and_stages_survive(resnet, ratio, scope, multiple, seed) -> None:
    options = PruneOptions(ratio=ratio, scope=scope, allow_depth=True)
    decision = decided(resnet, options, multiple, seed)
    within = {name for branch in decision.gone for name in branch.groups}
    for group in decision.groups:
        assert (group.after == 0) == (group.name in within)
        assert group.after % multiple == 0 or group.note
    assert decision.after.macs < decision.before.macs or not decision.removed.any()
    names = going(decision)
    assert [b.name for b in decision.gone if b.name not in names] == []


def test_a_branch_goes_whole_where_channels_could_not(resnet) -> None:
    """Of 16 channels a multiple of 16 takes none; a whole block needs no rounding."""
    plain = decide(groups := analyse(resnet), drawn(groups, 0), "r", PruneOptions(ratio=0.5), 16)
    assert {g.after for g in plain.groups if g.name in STAGE_ONE} == {16}
    options = PruneOptions(ratio=0.5, allow_depth=True)
    assert sum(name.startswith("layer1") for name in going(decided(resnet, options, 16))) == 1


def test_an_excluded_parameter_keeps_its_branch(resnet, tmp_path) -> None:
    options = PruneOptions(
        ratio=0.9, importance="l2", allow_depth=True, exclude=("layer2.1.bn2.*",)
    )
    decision = plan(resnet, options, context(tmp_path))
    (kept,) = (b for b in decision.branches or () if b.name == "layer2.1")
    assert (kept.goes, kept.note) == (False, "excluded")
    with pytest.raises(InputError, match="matches no parameter"):
        plan(resnet, PruneOptions(exclude=("nothing",), allow_depth=True), context(tmp_path))


def test_branches_without_a_score_stay(tmp_path) -> None:
    torch.manual_seed(0)
    model = captured(networks.TinyViT(), torch.randn(2, 3, 32, 32))
    options = PruneOptions(ratio=0.5, importance="bn-scale", allow_depth=True)
    decision = plan(model, options, context(tmp_path))
    assert going(decision) == []
    assert {b.note for b in decision.branches or ()} == {"no score for it"}
    assert {b.importance for b in decision.branches or ()} == {None}


def test_attention_is_not_weighed_against_feed_forward(tmp_path) -> None:
    torch.manual_seed(0)
    model = captured(networks.TinyViT(depth=4), torch.randn(2, 3, 32, 32))
    options = PruneOptions(ratio=0.5, importance="l2", allow_depth=True)
    names = going(plan(model, options, context(tmp_path)))
    assert sum(name.endswith("attention") for name in names) == 2
    assert sum(name.endswith("mlp") for name in names) == 2


def test_branches_of_one_layer_count_one_each() -> None:
    torch.manual_seed(0)
    model = captured(Images(["one-layer"] * 5), torch.randn(2, 3, 8, 8))
    for ratio, count in ((0.15, 0), (0.2, 1), (0.5, 2), (0.99, 4)):
        assert len(going(decided(model, PruneOptions(ratio=ratio, allow_depth=True)))) == count


def test_a_nested_branch_goes_with_the_outer_one() -> None:
    torch.manual_seed(0)
    model = captured(Images(["nested"] * 4), torch.randn(2, 3, 8, 8))
    decision = decided(model, PruneOptions(ratio=0.5, allow_depth=True))
    names = going(decision)
    outer = [name for name in names if not name.endswith("inner")]
    assert len(outer) == 2
    assert all(f"{name}.inner" in names for name in outer)


class OnlyBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)) for _ in "ab")

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def test_the_last_layer_stays() -> None:
    model = captured(OnlyBlocks(), torch.randn(2, 4))
    groups = analyse(model)
    branches = find_branches(model, groups)
    # A criterion may want both gone; a branch then stays, the more important one
    scores = np.array([2.0, 1.0])
    everything = PruneOptions(ratio=0.999999999999, allow_depth=True)
    decision = decide(
        groups,
        drawn(groups, 0),
        "random",
        everything,
        1,
        Depth(model, branches, scores),
    )
    assert going(decision) == ["blocks.1"]
    assert {b.name: b.note for b in decision.branches or ()}["blocks.0"].startswith("without it")


def test_the_stage_removes_them_and_says_so(weak, tmp_path) -> None:
    options = PruneOptions(ratio=0.5, importance="l2", allow_depth=True)
    decision = plan(weak, options, context(tmp_path))
    pruned, report = prune(weak, options, context(tmp_path))
    assert analyse(pruned).totals() == decision.after
    assert not any(name.startswith(USELESS) for name in pruned.program.state_dict)
    assert pruned.history[-1].facts["branches"] == going(decision)
    assert any(note.startswith("3 of 7 residual branches go whole: ") for note in report.notes)
    rows = {row["name"]: row for row in report.details["branches"]}
    assert rows[USELESS]["goes"]
    assert rows[USELESS]["macs"] == 4718592
    removed = report.figures["channels_removed"].value
    assert removed == pytest.approx(100 * decision.ratio) == pytest.approx(50, abs=2)
    x = torch.randn(3, 3, 32, 32)
    assert torch.isfinite(pruned.module()(x)).all()


def test_a_plan_for_which_nothing_fits_says_so(resnet, tmp_path) -> None:
    options = PruneOptions(ratio=0.1, importance="l2", allow_depth=True)
    _, report = prune(resnet, options, context(tmp_path))
    (note,) = (n for n in report.notes if n.startswith("--allow-depth"))
    assert "none of 7 residual branches goes" in note


def test_a_network_without_branches_says_so(tmp_path) -> None:
    model = captured(Images(["conv"]), torch.randn(2, 3, 8, 8))
    options = PruneOptions(ratio=0.5, importance="l2", allow_depth=True)
    _, report = prune(model, options, context(tmp_path))
    assert any("no residual branch that could go whole" in note for note in report.notes)


def test_a_ratio_of_zero_leaves_the_program_as_it_is(resnet, tmp_path) -> None:
    options = PruneOptions(ratio=0, allow_depth=True, exclude=("layer3.2.*",))
    pruned, report = prune(resnet, options, context(tmp_path))
    assert pruned.program is resnet.program
    assert report.figures["channels_removed"].value == 0
    assert any("ratio 0 removes no residual branch" in note for note in report.notes)
    assert "layer3.2.conv1: excluded" in report.notes


def test_without_the_option_nothing_is_said_of_branches(resnet, tmp_path) -> None:
    pruned, report = prune(resnet, PruneOptions(ratio=0.5, importance="l2"), context(tmp_path))
    assert "branches" not in report.details
    assert "branches" not in pruned.history[-1].facts
    assert not any("branch" in note for note in report.notes)
