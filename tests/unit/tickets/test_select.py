# SPDX-License-Identifier: Apache-2.0
"""From scores to masks: exact counts, patterns, and only the living."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.mask import About, Layer, Mask, Network
from edgeprune.tickets.select import Ranking, emptied, parse_pattern, select

ABOUT = About("test")


def network(*shapes: tuple[int, ...], turned: bool = False) -> Network:
    axes = (1, 0) if turned else (0, 1)
    return Network(
        tuple(
            Layer(f"w{i}", shape, "conv2d", *axes, math.prod(shape), ("n",))
            for i, shape in enumerate(shapes)
        ),
        0,
    )


def drawn(net: Network, seed: int, levels: int = 0) -> dict[str, Tensor]:
    """Random scores; with ``levels`` few different ones, so that many are equal."""
    random = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randint(levels, layer.shape, generator=random).float()
        if levels
        else torch.rand(layer.shape, generator=random)
        for layer in net.layers
    }


def living(mask: Mask, scores: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Scores of those that live and of those that don't, over all layers."""
    alive = torch.cat([scores[name][kept] for name, kept in mask.keep.items()])
    dead = torch.cat([scores[name][~kept] for name, kept in mask.keep.items()])
    return alive, dead


def test_global_ranking_by_hand() -> None:
    net = network((2, 2), (1, 4))
    scores = {
        "w0": torch.tensor([[9.0, 1.0], [2.0, 8.0]]),
        "w1": torch.tensor([[7.0, -1.0, 0.0, 3.0]]),
    }
    mask = select(net, scores, 0.5, Ranking("global"), ABOUT)
    assert mask.keep["w0"].tolist() == [[True, False], [False, True]]
    assert mask.keep["w1"].tolist() == [[True, False, False, True]]
    assert mask.about is ABOUT


def test_local_ranking_by_hand() -> None:
    net = network((2, 2), (1, 4))
    scores = {
        "w0": torch.tensor([[9.0, 6.0], [7.0, 8.0]]),
        "w1": torch.tensor([[3.0, -1.0, 0.0, 1.0]]),
    }
    mask = select(net, scores, 0.5, Ranking("uniform"), ABOUT)
    assert mask.keep["w0"].tolist() == [[True, False], [False, True]]
    assert mask.keep["w1"].tolist() == [[True, False, False, True]]


def test_a_density_by_hand_holds_beside_a_global_ranking() -> None:
    net = network((10, 10), (10, 10), (10, 10))
    scores = {**drawn(net, 0), "w1": torch.full((10, 10), -5.0)}
    mask = select(net, scores, 0.5, Ranking("global", {"w1": 0.9}), ABOUT)
    assert mask.densities["w1"] == 0.9
    assert mask.kept == 150
    others = Mask({n: k for n, k in mask.keep.items() if n != "w1"}, ABOUT)
    alive, dead = living(others, scores)
    assert alive.min() > dead.max()


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5),
    st.floats(0.01, 1),
    st.sampled_from(["global", "uniform", "erk"]),
    st.integers(0, 3),
)
def test_counts_are_exact_and_the_best_live(
    shapes: list[tuple[int, ...]], density: float, rule: Any, levels: int
) -> None:
    net = network(*shapes)
    total = max(1, round(density * net.size))
    if rule != "global" and total < len(shapes):
        return
    scores = drawn(net, 1, levels)
    mask = select(net, scores, density, Ranking(rule), ABOUT)
    assert mask.kept == total
    parts = [mask] if rule == "global" else [Mask({n: k}, ABOUT) for n, k in mask.keep.items()]
    for part in parts:
        alive, dead = living(part, scores)
        if len(alive) and len(dead):
            assert alive.min() >= dead.max()


@given(
    st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 8)]),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3),
    st.sampled_from(["global", "uniform", "erk"]),
    st.floats(0.3, 1),
    st.booleans(),
    st.integers(0, 3),
)
def test_a_pattern_holds_in_each_block(
    pattern: tuple[int, int],
    sizes: list[tuple[int, int]],
    rule: Any,
    share: float,
    turned: bool,
    levels: int,
) -> None:
    kept, block = pattern
    shapes = [(out, block * blocks, 3) for out, blocks in sizes]
    if turned:
        shapes = [(inner, out, kernel) for out, inner, kernel in shapes]
    net = network(*shapes, turned=turned)
    density = share * kept / block
    ranking = Ranking(rule, pattern=f"{kept}:{block}")
    scores = drawn(net, 2, levels)
    mask = select(net, scores, density, ranking, ABOUT)
    assert mask.kept == max(1, round(density * net.size))
    for layer in net.layers:
        values = mask.keep[layer.name].movedim(layer.in_dim, -1)
        counts = values.reshape(-1, block).sum(1)
        assert counts.max() <= kept
        if share == 1:
            assert (counts == kept).all()
        ranks = scores[layer.name].movedim(layer.in_dim, -1).reshape(-1, block)
        for alive, row in zip(values.reshape(-1, block), ranks, strict=True):
            if alive.any() and not alive.all():
                assert row[alive].min() >= row[~alive].max()


def test_two_of_four_by_hand() -> None:
    net = network((2, 8))
    rows = [[1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0], [0.0, 0.0, 5.0, 6.0, -1.0, -2.0, -3.0, -4.0]]
    mask = select(net, {"w0": torch.tensor(rows)}, 0.5, Ranking(pattern="2:4"), ABOUT)
    expected = [[0, 1, 0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0]]
    assert mask.keep["w0"].int().tolist() == expected


def test_among_lets_only_the_living_go_on() -> None:
    net = network((10, 10), (10, 10))
    scores = drawn(net, 3)
    few = select(net, drawn(net, 4), 0.6, Ranking("global", {"w0": 0.25}), ABOUT)
    for rule in ("global", "uniform", "erk"):
        mask = select(net, scores, 0.55, Ranking(rule), ABOUT, among=few)  # type: ignore[arg-type]
        assert mask <= few
        assert mask.kept == 110
    # A layer with too few of them leaves its share to the other.
    assert select(net, scores, 0.55, Ranking("uniform"), ABOUT, few).densities["w0"] == 0.25
    with pytest.raises(InputError, match=r"density 0\.7 is more than may go on living: 0\.6"):
        select(net, scores, 0.7, Ranking("global"), ABOUT, among=few)


@given(st.integers(0, 50), st.floats(0.05, 0.5), st.integers(0, 2))
def test_among_and_a_pattern_hold_together(seed: int, density: float, levels: int) -> None:
    net = network((6, 8), (4, 12))
    before = Mask({n: s < 0.8 for n, s in drawn(net, seed).items()}, ABOUT)
    try:
        mask = select(
            net, drawn(net, seed + 1, levels), density, Ranking(pattern="2:4"), ABOUT, before
        )
    except InputError as error:
        assert "more than the pattern 2:4 allows" in str(error)
        return
    assert mask <= before
    for kept in mask.keep.values():
        assert kept.reshape(-1, 4).sum(1).max() <= 2


def test_on_the_way_what_the_pattern_will_keep_lives_first() -> None:
    net = network((8, 16))
    mask, scores = Mask.full({"w0": (8, 16)}, ABOUT), drawn(net, 5)
    for density in (0.9, 0.7, 0.55, 0.5):
        ranking = Ranking(pattern="2:4", final=density == 0.5)
        mask = select(net, scores, density, ranking, ABOUT, among=mask)
        assert mask.kept == round(density * 128)
        scores = drawn(net, int(density * 100))  # other scores each time: as while training
    assert (mask.keep["w0"].reshape(-1, 4).sum(1) == 2).all()


def test_equal_scores_are_drawn_by_the_seed() -> None:
    net = network((40, 40), (40, 40))
    same = {"w0": torch.ones(40, 40), "w1": torch.ones(40, 40)}

    def chosen(seed: int, rule: Any, pattern: str | None = None) -> Mask:
        return select(net, same, 0.25, Ranking(rule, pattern=pattern, seed=seed), ABOUT)

    for rule, pattern in (("global", None), ("uniform", None), ("uniform", "2:4")):
        first = chosen(0, rule, pattern)
        assert first.same(chosen(0, rule, pattern))
        assert not first.same(chosen(1, rule, pattern))
        assert not torch.equal(first.keep["w0"], first.keep["w1"])
        halves = first.keep["w0"].reshape(2, -1).float().mean(1)  # no end is preferred
        assert (halves - 0.25).abs().max() < 0.06


def test_an_emptied_layer_is_named() -> None:
    net = network((4, 4), (4, 4))
    scores = {"w0": torch.zeros(4, 4), "w1": torch.ones(4, 4)}
    mask = select(net, scores, 0.25, Ranking("global"), ABOUT)
    assert emptied(mask) == ("layer collapse: no weight lives in w0",)
    assert emptied(select(net, scores, 0.25, Ranking("uniform"), ABOUT)) == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    net = network((4, 4))
    scores = drawn(net, 0)
    scores["w0"][1, 2] = bad
    with pytest.raises(InputError, match="scores of 'w0' are NaN or infinite"):
        select(net, scores, 0.5, Ranking(), ABOUT)


def test_missing_scores_are_refused() -> None:
    net = network((4, 4), (2, 2))
    with pytest.raises(InputError, match="'w1' has no scores of shape"):
        select(net, {"w0": torch.ones(4, 4)}, 0.5, Ranking(), ABOUT)


def test_a_pattern_that_does_not_divide_is_refused() -> None:
    net = network((4, 3, 3, 3), (4, 8), (4, 6))
    expected = (
        r"pattern 2:4: 'w0' has 3 inputs, which 4 doesn't divide; keep such weights dense: "
        r"--exclude w0 --exclude w2"
    )
    with pytest.raises(InputError, match=expected):
        select(net, drawn(net, 0), 0.5, Ranking(pattern="2:4"), ABOUT)


@pytest.mark.parametrize("pattern", ["0:4", "4:4", "5:4", "2", "2:4:8", "a:b", "-1:4", "2:"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="takes N:M with N from 1 to below M, as 2:4"):
        parse_pattern(pattern)


def test_a_density_beyond_the_pattern_is_refused() -> None:
    net = network((4, 8))
    with pytest.raises(InputError, match=r"0\.6 is more than the pattern 2:4 allows: 0\.5"):
        select(net, drawn(net, 0), 0.6, Ranking(pattern="2:4"), ABOUT)
    loose = replace(Ranking(pattern="2:4"), final=False)
    assert select(net, drawn(net, 0), 0.6, loose, ABOUT).kept == round(0.6 * 32)
