# SPDX-License-Identifier: Apache-2.0
"""Where the boxes and lines of a directed graph go: rows, order, places, columns.

The layered method of Sugiyama, Tagawa and Toda (1981): each node stands in the row of its longest
path from a source, nodes within a row are ordered by the barycentre of their neighbours, and places
follow by least squares. What a node sends far down runs in one trunk, from which each of its
readers branches off. A long graph is cut into columns where few lines cross.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt

__all__ = ["Layout", "Link", "Spot", "arrange"]

_SWEEPS, _LAST = 8, 4
"""Sweeps over the rows, down and up in turn; the last few all run down."""
_GAP = 18.0
"""Between two neighbours in a row, in pixels."""
_TRUNK = 6.0
"""Width that a line takes which passes through a row."""
_ASPECT = 1.5
"""Width by height that the columns aim at."""
_FEW = 3
"""Lines that may cross from one column into the next."""


@dataclass(frozen=True)
class Spot:
    """Where a box, or a line that passes through a row, stands."""

    node: int
    """The box, or the box whose trunk this is."""
    real: bool
    x: float
    """Its middle, from the left edge of its column."""
    row: int
    """Within its column."""
    column: int


@dataclass(frozen=True)
class Link:
    """A line between spots of one row and the next; ``lane`` counts those between two columns."""

    start: int
    end: int
    lane: int | None = None


@dataclass(frozen=True)
class Layout:
    """The spots (the boxes first, in their order), the lines, and each column's width and rows."""

    spots: tuple[Spot, ...]
    links: tuple[Link, ...]
    widths: tuple[float, ...]
    rows: tuple[int, ...]
    lanes: tuple[int, ...]
    """How many lines run from each column into the next; links of one start share one."""


@dataclass
class _Net:
    """Boxes and trunk pieces with their rows and neighbours."""

    boxes: int
    owner: list[int]
    row: list[int]
    width: list[float]
    links: list[tuple[int, int]] = field(default_factory=list)
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)


def arrange(widths: Sequence[float], edges: Sequence[tuple[int, int]], row_height: float) -> Layout:
    """Lay out a graph. The same graph gives the same layout.

    Args:
        widths: The width of each box, in pixels.
        edges: From box to box, each from a lower number to a higher one.
        row_height: The distance of two rows, in pixels.

    Raises:
        ValueError: An edge doesn't run upwards in number.
    """
    if any(a >= b for a, b in edges):
        raise ValueError("edges run from a lower number to a higher one")
    net = _net(widths, edges)
    rows = _ordered(net)
    x = _placed(net, rows)
    return _columns(net, rows, x, _cuts(net, rows, x, row_height))


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    rank = [0] * count
    into: list[list[int]] = [[] for _ in range(count)]
    out: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        into[b].append(a)
        out[a].append(b)
    for node in range(count):
        rank[node] = max((rank[a] + 1 for a in into[node]), default=0)
    for node in range(count):
        if not into[node] and out[node]:  # a source stands right above its first reader
            rank[node] = min(rank[b] for b in out[node]) - 1
    return rank


def _net(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> _Net:
    rank = _ranks(len(widths), edges)
    net = _Net(len(widths), list(range(len(widths))), list(rank), list(widths))
    readers: dict[int, list[int]] = {}
    for a, b in edges:
        readers.setdefault(a, []).append(b)
    for a, ends in sorted(readers.items()):
        piece = a
        for row in range(rank[a] + 1, max(rank[b] for b in ends) + 1):
            net.links += [(piece, b) for b in sorted(set(ends)) if rank[b] == row]
            if any(rank[b] > row for b in ends):
                net.owner.append(a)
                net.row.append(row)
                net.width.append(_TRUNK)
                net.links.append((piece, len(net.owner) - 1))
                piece = len(net.owner) - 1
    net.above = [[] for _ in net.owner]
    net.below = [[] for _ in net.owner]
    for a, b in net.links:
        net.below[a].append(b)
        net.above[b].append(a)
    return net


def _ordered(net: _Net) -> list[list[int]]:
    """The rows, each in an order with few crossings: the best of some barycentre sweeps."""
    rows: list[list[int]] = [[] for _ in range(max(net.row, default=-1) + 1)]
    for spot in sorted(range(len(net.owner)), key=lambda s: (net.owner[s], s)):
        rows[net.row[spot]].append(spot)
    best, fewest = [list(row) for row in rows], _crossings(net, rows)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            _sort(row, net.above if down else net.below, rows, net)
        now = _crossings(net, rows)
        if now < fewest:
            best, fewest = [list(row) for row in rows], now
    return best


def _sort(row: list[int], near: list[list[int]], rows: list[list[int]], net: _Net) -> None:
    place: dict[int, int] = {}
    for other in {net.row[n] for spot in row for n in near[spot]}:
        place.update({spot: i for i, spot in enumerate(rows[other])})
    middle = {
        spot: sum(place[n] for n in near[spot]) / len(near[spot]) if near[spot] else float(i)
        for i, spot in enumerate(row)
    }
    row.sort(key=middle.__getitem__)


def _crossings(net: _Net, rows: list[list[int]]) -> int:
    place = {spot: i for row in rows for i, spot in enumerate(row)}
    found = 0
    for row in rows:
        seen: list[int] = []
        for spot in row:
            ends = sorted(place[b] for b in net.below[spot])
            found += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return found


def _placed(net: _Net, rows: list[list[int]]) -> list[float]:
    """The middle of each spot: boxes in line with boxes, trunks straight beside them."""
    x = [0.0] * len(net.owner)
    for row in rows:
        for spot, place in zip(row, _apart(net, row, [0.0] * len(row)), strict=True):
            x[spot] = place
    for sweep in range(2 * _SWEEPS):
        last = sweep >= 2 * _SWEEPS - _LAST
        down = last or sweep % 2 == 0
        trunks = _straight(net, x) if last else {}
        for row in rows if down else reversed(rows):
            wish = [trunks[s] if s in trunks else _wish(net, x, s, down=down) for s in row]
            for spot, place in zip(row, _apart(net, row, wish), strict=True):
                x[spot] = place
    return x


def _straight(net: _Net, x: list[float]) -> dict[int, float]:
    """For each trunk the outermost of its places."""
    pieces: dict[int, list[int]] = {}
    for spot in range(net.boxes, len(net.owner)):
        pieces.setdefault(net.owner[spot], []).append(spot)
    found = {}
    for owner, spots in pieces.items():
        places = [x[spot] for spot in spots]
        left = sum(places) / len(places) < x[owner]
        found.update(dict.fromkeys(spots, min(places) if left else max(places)))
    return found


def _wish(net: _Net, x: list[float], spot: int, *, down: bool) -> float:
    """The mean of the neighbours. A box looks past trunks, at where they begin, so that a line
    that bends around it doesn't draw it aside."""
    near = (net.above if down else net.below)[spot]
    if spot < net.boxes:
        near = [net.owner[n] for n in near] if down else [n for n in near if n < net.boxes]
    return sum(x[n] for n in near) / len(near) if near else x[spot]


def _apart(net: _Net, row: list[int], wish: list[float]) -> list[float]:
    """The places nearest to ``wish``, in the sense of weighted least squares, that overlap nowhere:
    the pool-adjacent-violators method on the wishes less the room that their neighbours take.
    Trunks give way to boxes."""
    offsets = [0.0]
    for a, b in pairwise(row):
        offsets.append(offsets[-1] + (net.width[a] + net.width[b]) / 2 + _GAP)
    pools: list[tuple[float, float, int]] = []
    for spot, target, offset in zip(row, wish, offsets, strict=True):
        mean, weight, count = target - offset, 1000.0 if spot < net.boxes else 1.0, 1
        while pools and pools[-1][0] > mean:
            before, its, size = pools.pop()
            mean = (before * its + mean * weight) / (its + weight)
            weight, count = its + weight, size + count
        pools.append((mean, weight, count))
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(flat, offsets, strict=True)]


def _span(net: _Net, rows: list[list[int]], x: list[float]) -> tuple[float, float]:
    spots = [spot for row in rows for spot in row]
    left = min((x[s] - net.width[s] / 2 for s in spots), default=0.0)
    return left, max((x[s] + net.width[s] / 2 for s in spots), default=0.0)


def _cuts(net: _Net, rows: list[list[int]], x: list[float], row_height: float) -> list[int]:
    """The rows at which a column begins."""
    left, right = _span(net, rows, x)
    columns = max(1, round(sqrt(_ASPECT * len(rows) * row_height / (right - left + 1))))
    aim = len(rows) / columns
    crossing = [sum(1 for spot in row if net.below[spot]) for row in rows]
    cuts = [0]
    while len(rows) - cuts[-1] > 1.3 * aim:
        low, high = cuts[-1] + max(1, round(0.7 * aim)), cuts[-1] + round(1.2 * aim)
        near = [r for r in range(low, min(high, len(rows) - 1) + 1) if crossing[r - 1] <= _FEW]
        goal = cuts[-1] + aim
        if near:
            cuts.append(min(near, key=lambda r: (crossing[r - 1], abs(r - goal))))
            continue
        later = (r for r in range(high + 1, len(rows)) if crossing[r - 1] <= _FEW)
        following = next(later, None)
        if following is None:
            break
        cuts.append(following)
    return cuts


def _columns(net: _Net, rows: list[list[int]], x: list[float], cuts: list[int]) -> Layout:
    bounds = [*cuts, len(rows)]
    column_of = [c for c, (a, b) in enumerate(pairwise(bounds)) for _ in range(a, b)]
    spans = [_span(net, rows[a:b], x) for a, b in pairwise(bounds)]
    spots = []
    for spot, row in enumerate(net.row):
        column = column_of[row]
        place = x[spot] - spans[column][0]
        spots.append(Spot(net.owner[spot], spot < net.boxes, place, row - cuts[column], column))
    lanes: list[dict[int, int]] = [{} for _ in cuts]
    links = []
    for a, b in sorted(net.links):
        own = lanes[spots[a].column]
        crosses = spots[b].column != spots[a].column
        links.append(Link(a, b, own.setdefault(a, len(own)) if crosses else None))
    return Layout(
        tuple(spots),
        tuple(links),
        tuple(right - left for left, right in spans),
        tuple(b - a for a, b in pairwise(bounds)),
        tuple(map(len, lanes)),
    )
