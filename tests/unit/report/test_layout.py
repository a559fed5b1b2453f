# SPDX-License-Identifier: Apache-2.0
"""Rows, order and columns of random graphs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.report.layout import Layout, arrange

Graph = tuple[list[float], list[tuple[int, int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 25))
    widths = draw(st.lists(st.floats(40, 240), min_size=count, max_size=count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    found = draw(st.lists(pairs, max_size=40))
    return widths, sorted({(min(p), max(p)) for p in found if p[0] != p[1]})


def boxes(place: Layout) -> dict[int, tuple[int, int]]:
    """Each box's column and row."""
    return {spot.node: (spot.column, spot.row) for spot in place.spots if spot.real}


@given(graphs())
def test_every_edge_is_a_way_of_lines_downwards(graph: Graph) -> None:
    widths, edges = graph
    place = arrange(widths, edges, 60)
    found = boxes(place)
    assert sorted(found) == list(range(len(widths)))
    spots = place.spots
    reached = set()
    for link in place.links:
        start, end = spots[link.start], spots[link.end]
        # The same trunk, from row to row or from the last row of a column into the next column.
        assert end.real or end.node == start.node
        if link.lane is None:
            assert (end.column, end.row) == (start.column, start.row + 1)
        else:
            assert (end.column, end.row) == (start.column + 1, 0)
            assert start.row == place.rows[start.column] - 1
            assert link.lane < place.lanes[start.column]
        if end.real:
            reached.add((start.node, end.node))
    assert reached == set(edges)


@given(graphs())
def test_neighbours_in_a_row_do_not_touch(graph: Graph) -> None:
    widths, edges = graph
    place = arrange(widths, edges, 60)
    rows: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for spot in place.spots:
        half = widths[spot.node] / 2 if spot.real else 0
        rows.setdefault((spot.column, spot.row), []).append((spot.x - half, spot.x + half))
        assert spot.x - half >= -1e-6
        assert spot.x + half <= place.widths[spot.column] + 1e-6
    for spans in rows.values():
        spans.sort()
        assert all(b[0] - a[1] > 1 for a, b in pairwise(spans))


@given(graphs())
def test_the_same_graph_gives_the_same_layout(graph: Graph) -> None:
    widths, edges = graph
    assert arrange(widths, edges, 60) == arrange(list(widths), list(reversed(edges)), 60)


def test_a_chain_stands_in_line() -> None:
    place = arrange([50, 200, 80], [(0, 1), (1, 2)], 1)
    assert len({round(spot.x, 6) for spot in place.spots}) == 1


def test_a_long_chain_becomes_columns() -> None:
    place = arrange([200.0] * 100, [(i, i + 1) for i in range(99)], 60)
    assert 3 < len(place.rows) < 30
    assert max(place.rows) < 2 * min(place.rows) + 2


def test_lines_that_could_cross_do_not() -> None:
    # Two pairs given in the wrong order: 0 to 3, 1 to 2.
    place = arrange([50.0] * 4, [(0, 3), (1, 2)], 60)
    x = {spot.node: spot.x for spot in place.spots}
    assert (x[0] < x[1]) == (x[3] < x[2])


def test_edges_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match="lower number"):
        arrange([50, 50], [(1, 0)], 60)
