# SPDX-License-Identifier: Apache-2.0
"""Widths that meet a goal: what they cost, which ones there are, and what the narrower lose."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.channels import Group, Groups, analyse
from edgeprune.context import Context
from edgeprune.data import Batch, open_data
from edgeprune.errors import InputError
from edgeprune.model import Model
from edgeprune.prune import plan, prune
from edgeprune.prune.allocate import Costs, Goal, Ladder, ladder_widths, meet
from edgeprune.prune.allocate.sensitivity import measurements, sensitivity
from edgeprune.prune.plan import ladders
from edgeprune.recipe import PruneOptions, Scope
from edgeprune.target import find_target
from edgeprune.tasks import Classes
from tests import networks
from tests.unit.channels.graphs import captured


def images(net: nn.Module, *shape: int) -> Model:
    torch.manual_seed(0)
    return captured(net.eval(), torch.randn(2, *shape))


class Attention(nn.Module):
    """A transformer block behind a patch embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head((x + self.down(nn.functional.gelu(self.up(x)))).mean(1))


@pytest.fixture(scope="module")
def resnet() -> Model:
    return images(networks.tiny_resnet(), 3, 16, 16)


@pytest.mark.parametrize("make", [networks.tiny_resnet, Attention])
def test_costs_of_widths_are_the_totals(make: type[nn.Module]) -> None:
    groups = analyse(images(make(), 3, 16, 16))
    costs = Costs(groups)
    random = np.random.default_rng(0)
    for _ in range(20):
        widths = np.array([random.integers(1, g.size + 1) for g in groups.groups])
        removed = groups.keep_all()
        for group, width in zip(groups.groups, widths, strict=True):
            removed[random.permutation(group.channels)[width:]] = True
        right = asdict(groups.totals(removed))
        assert asdict(costs.totals(widths)) == pytest.approx(right, abs=1)


@pytest.mark.parametrize(
    ("size", "step", "floor", "widths"),
    [
        (32, 8, 0.0, (32, 24, 16, 8, 4, 2, 1)),
        (32, 8, 0.1, (32, 24, 16, 8, 4)),
        (20, 8, 0.0, (20, 16, 8, 4, 2, 1)),
        (6, 8, 0.0, (6, 4, 2, 1)),
        (5, 1, 0.3, (5, 4, 3, 2)),
        (1, 8, 0.0, (1,)),
    ],
)
def test_widths_of_a_ladder(size: int, step: int, floor: float, widths: tuple[int, ...]) -> None:
    assert ladder_widths(size, step, floor) == widths


def steps(groups: Groups, multiple: int, power: float) -> list[Ladder]:
    widths = ladders(groups, multiple)
    return [
        Ladder(own, tuple((group.size - w) ** power / (place + 1) for w in own))
        for place, (group, own) in enumerate(zip(groups.groups, widths, strict=True))
    ]


@pytest.mark.parametrize("what", ["macs", "parameters"])
@pytest.mark.parametrize("share", [0.35, 0.5, 0.8])
@pytest.mark.parametrize("per_cost", [False, True])
def test_the_goal_is_met(resnet: Model, what: str, share: float, per_cost: bool) -> None:
    groups = analyse(resnet)
    costs = Costs(groups)
    widths = meet(Goal(what, share), costs, steps(groups, 1, 2), per_cost=per_cost)
    left = asdict(costs.totals(widths))[what] / asdict(groups.totals())[what]
    assert left == pytest.approx(share, rel=0.01)


def test_the_best_of_all_widths_is_found_where_there_are_few(resnet: Model) -> None:
    groups = analyse(resnet)
    costs, made = Costs(groups), steps(groups, 4, 2)
    found = meet(Goal("macs", 0.6), costs, made, per_cost=True)
    dense = costs.totals(np.array([g.size for g in groups.groups])).macs

    def loss(widths: tuple[int, ...]) -> float:
        return sum(la.losses[la.widths.index(w)] for la, w in zip(made, widths, strict=True))

    near = [
        loss(widths)
        for widths in product(*(la.widths for la in made))
        if abs(costs.totals(np.array(widths)).macs / dense - 0.6) <= 0.006
    ]
    if near:
        assert loss(tuple(int(w) for w in found)) <= 1.25 * min(near)


def test_near_goals_that_need_several_changes_are_found() -> None:
    """Widths of 16 and 32 in steps of 8 have few sums, and the greedy order passes by most."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3),
        nn.ReLU(), nn.Conv2d(16, 4, 3),
    )  # fmt: skip
    groups = analyse(images(net, 3, 16, 16))
    costs, made = Costs(groups), steps(groups, 8, 2)
    for share in (0.3, 0.45, 0.6, 0.75):
        every = [costs.totals(np.array(w)).macs for w in product(*(la.widths for la in made))]
        wanted = share * max(every)
        off = abs(
            costs.totals(meet(Goal("macs", share), costs, made, per_cost=False)).macs - wanted
        )
        nearest = min(abs(each - wanted) for each in every)
        assert off == nearest or off <= 0.01 * wanted


def test_a_goal_that_the_grid_has_not_is_met_as_nearly_as_can_be(resnet: Model) -> None:
    groups = analyse(resnet)
    costs = Costs(groups)
    widest = [Ladder((g.size, g.size // 2), (0.0, 1.0)) for g in groups.groups]
    found = costs.totals(meet(Goal("macs", 0.9), costs, widest, per_cost=True)).macs
    every = [
        costs.totals(np.array(widths)).macs for widths in product(*(la.widths for la in widest))
    ]
    wanted = 0.9 * max(every)
    assert abs(found - wanted) == min(abs(each - wanted) for each in every)


class TwoPaths(nn.Module):
    """A wide path that does next to nothing beside one that does all; one that says all twice."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.idle_end = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.busy, self.busy_end = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.twice, self.twice_end = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)
        with torch.no_grad():
            self.idle_end.weight *= 1e-3
            for parameter in self.twice.parameters():
                parameter[4:] = parameter[:4]

    def forward(self, x: Tensor) -> Tensor:
        x = (
            self.idle_end(self.idle(x).relu())
            + self.busy_end(self.busy(x).relu())
            + self.twice_end(self.twice(x).relu())
        )
        return x.relu().mean((2, 3))


def batches(count: int, seed: int) -> list[Batch]:
    random = torch.Generator().manual_seed(seed)
    return [Batch((torch.randn(16, 3, 16, 16, generator=random),), None) for _ in range(count)]


def halves(model: Model) -> dict[str, float]:
    """The loss of each group at half of its width, the second half gone."""
    groups = analyse(model)
    scores = np.concatenate([-np.arange(g.size, dtype=float) for g in groups.groups])
    widths = [[g.size // 2, g.size // 4] for g in groups.groups]
    kinds = [Classes(labelled=False, axis=1)]
    curves = sensitivity(model, groups, scores, widths, kinds, batches(4, 0), batches(2, 1))
    return {g.name: curves[g.name](g.size // 2) for g in groups.groups}


def test_what_is_measured_is_what_is_lost_for_good() -> None:
    lost = halves(images(TwoPaths(), 3, 16, 16))
    assert lost["idle"] < 1e-3 * lost["busy"]
    assert lost["twice"] < 1e-3 * lost["busy"]  # the other half makes up for it


def test_channels_behind_a_layer_norm_are_cut_not_zeroed() -> None:
    model = images(Attention(), 3, 16, 16)
    groups = analyse(model)
    assert any(group.renormalises for group in groups.groups)
    assert all(0 < loss < 1e3 for loss in halves(model).values())


def test_where_groups_are_measured() -> None:
    def group(size: int) -> Group:
        return Group("g", np.arange(size), (), 0, 0, 0, ())

    sizes = (group(64), group(16), group(4))
    widths = [ladder_widths(64, 8, 0.1), ladder_widths(16, 8, 0.1), (4,)]
    assert measurements(sizes, widths) == [[48, 32, 16], [8, 4], []]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Context]:
    torch.manual_seed(0)
    model = captured(networks.digits_cnn().eval(), torch.randn(2, 1, 8, 8))
    data = open_data("digits", seed=0)
    folder: Path = tmp_path_factory.mktemp("prune")
    return model, Context(find_target("host"), folder, data, model)


@pytest.mark.parametrize("scope", ["auto", "uniform", "global", "cost", "sensitivity"])
def test_the_stage_meets_a_goal(scope: Scope, digits: tuple[Model, Context]) -> None:
    model, context = digits
    options = PruneOptions(macs=0.5, scope=scope, multiple=1, samples=128, recover=False)
    decision = plan(model, options, context)
    assert decision.after.macs / decision.before.macs == pytest.approx(0.5, rel=0.01)
    assert decision.scope == ("sensitivity" if scope == "auto" else scope)
    assert plan(model, options, context).removed.tolist() == decision.removed.tolist()


def test_the_report_tells_how_near_the_goal_is(digits: tuple[Model, Context]) -> None:
    model, context = digits
    _, report = prune(model, PruneOptions(params=0.5, multiple=1, samples=64), context)
    assert any(note.startswith("parameters: 0.") for note in report.notes)
    _, report = prune(model, PruneOptions(macs=0.0001, scope="uniform"), context)
    assert any("no group can be narrower" in note for note in report.notes)


def test_depth_and_goals_are_told_apart(digits: tuple[Model, Context]) -> None:
    model, context = digits
    with pytest.raises(InputError, match="--allow-depth goes with --ratio"):
        plan(model, PruneOptions(macs=0.5, allow_depth=True), context)
    with pytest.raises(InputError, match="sensitivity needs --data"):
        plan(model, PruneOptions(scope="sensitivity"), Context(context.target, context.folder))
