# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.channels import Groups, analyse
from edgeprune.errors import InputError
from edgeprune.prune.plan import decide
from edgeprune.recipe import PruneOptions
from tests import networks
from tests.unit.channels.graphs import captured
from tests.unit.prune import drawn


@pytest.fixture(scope="module")
def groups() -> Groups:
    return analyse(captured(networks.TinyMobileNet(), torch.randn(2, 3, 32, 32)))


@pytest.fixture(scope="module")
def transformer() -> Groups:
    return analyse(captured(networks.TinyViT(), torch.randn(2, 3, 32, 32)))


def widths(plan) -> dict[str, tuple[int, int]]:
    return {g.name: (g.before, g.after) for g in plan.groups}


@settings(max_examples=60, deadline=None)
@given(
    ratio=st.floats(0, 0.99),
    scope=st.sampled_from(["uniform", "global"]),
    multiple=st.sampled_from([1, 2, 4, 8, 16]),
    seed=st.integers(0, 99),
)
def test_no_group_is_emptied_and_widths_are_multiples(groups, ratio, scope, multiple, seed) -> None:
    options = PruneOptions(ratio=ratio, scope=scope)
    plan = decide(groups, drawn(groups, seed), "random", options, multiple)
    for group, its in zip(groups.groups, plan.groups, strict=True):
        assert its.after == group.size - plan.removed[group.channels].sum()
        assert 1 <= its.after <= its.before
        assert its.after % multiple == 0 or its.note
    assert plan.after == groups.totals(plan.removed)


def test_uniform_keeps_the_same_share_of_each_group(groups) -> None:
    plan = decide(groups, drawn(groups, 0), "random", PruneOptions(ratio=0.5), 1)
    assert all(after * 2 == before for before, after in widths(plan).values())
    assert plan.ratio == 0.5


def test_global_follows_the_scores(groups) -> None:
    scores = np.ones(groups.channels)
    cheap = groups.groups[1].channels
    scores[cheap[:20]] = 1e-6
    plan = decide(groups, scores, "l2", PruneOptions(ratio=0.05, scope="global"), 1)
    assert set(np.flatnonzero(plan.removed)) <= set(cheap[:20])
    assert plan.removed.any()


def test_the_least_important_channels_go(groups) -> None:
    scores = np.arange(groups.channels, dtype=float)
    plan = decide(groups, scores, "l2", PruneOptions(ratio=0.5), 1)
    for group in groups.groups:
        assert plan.removed[group.channels[: group.size // 2]].all()


def test_heads_need_no_rounding(transformer) -> None:
    plan = decide(transformer, drawn(transformer, 0), "r", PruneOptions(ratio=0.5), 8)
    assert widths(plan)["layers.0.attention.qkv"] == (4, 2)


def test_exclusion(groups) -> None:
    options = PruneOptions(ratio=0.5, exclude=("features.6.*",))
    plan = decide(groups, drawn(groups, 0), "random", options, 1)
    assert widths(plan)["features.6"] == (64, 64)
    with pytest.raises(InputError, match=r"'featres\.6' matches no parameter"):
        decide(groups, drawn(groups, 0), "r", PruneOptions(exclude=("featres.6",)), 1)


def test_a_group_without_a_score_stays(groups) -> None:
    scores = drawn(groups, 0)
    scores[groups.groups[0].channels] = np.nan
    plan = decide(groups, scores, "bn-scale", PruneOptions(ratio=0.5), 1)
    assert plan.groups[0].after == plan.groups[0].before
    assert "no score" in plan.groups[0].note


def test_a_ratio_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        PruneOptions(ratio=1.0)
