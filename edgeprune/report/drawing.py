# SPDX-License-Identifier: Apache-2.0
"""A network's graph as an SVG picture, coloured by the groups of its channels.

Plain data in, text out. Every group has a colour and a number; the number stands in each box, so
that colour is never the only key. No script, no font and no style from anywhere else.
"""

from __future__ import annotations

from colorsys import hls_to_rgb
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from edgeprune.report.layout import Layout, Spot, arrange
from edgeprune.report.text import ABSENT, count, plain

__all__ = ["Box", "Drawing", "Entry", "colour", "svg"]

_SAFE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
"""Told apart by all eyes: Okabe and Ito (2008), without black and yellow."""
_GOLDEN_ANGLE = 137.508
_LIGHT = (0.38, 0.58, 0.28)
"""Lightness of the hues that follow, in turn."""

_INK, _FAINT, _PAPER = "#1f2430", "#5b6472", "#ffffff"
_FROZEN, _FROZEN_LINE = "#ececec", "#8b8f96"

_LETTER, _SMALL = 6.7, 5.7
"""Width of a letter of fixed-width fonts at 11 and 9 pixels, with what hinting may add."""
_LONGEST, _LONGEST_DETAIL = 34, 44
_CHIP = 20.0
_CHIPS = 3
_HEIGHT, _ROW = 34.0, 60.0
_MARGIN, _GUTTER, _LANE = 24.0, 44.0, 7.0
_LEGEND, _LEGEND_ROW = 62.0, 18.0
_KEY = "right in a box: the group of its output channels; left: of its input, where that is another"


@dataclass(frozen=True)
class Box:
    """One layer, join or end of the network."""

    label: str
    detail: str
    """The second line: operator and shape."""
    groups: tuple[int, ...]
    """Of its output channels: places in the legend; none where it is frozen."""
    takes: tuple[int, ...] = ()
    """Of its input channels, where they are others."""
    notes: tuple[str, ...] = ()
    """What a mouse over it shows: full names, costs, why it is frozen."""
    kind: Literal["layer", "join", "end"] = "layer"


@dataclass(frozen=True)
class Entry:
    """A group of channels in the legend."""

    name: str
    size: int
    macs: int


@dataclass(frozen=True)
class Drawing:
    """What to draw. Edges run from box to box, from a lower number to a higher one."""

    title: str
    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]
    groups: tuple[Entry, ...]


def svg(drawing: Drawing) -> str:
    """The picture; equal text for equal drawings."""
    place = arrange([_width(box) for box in drawing.boxes], drawing.edges, _ROW)
    legend, lowest = _legend(drawing, _graph_width(place))
    width = max(_graph_width(place), *(right for right, _ in legend))
    pen = _Pen(drawing, place, top=lowest + 30)
    height = pen.top + max(place.rows, default=0) * _ROW + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" font-family='
            '"ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace">',
            f"<title>{_text(drawing.title)}</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>',
            *(part for _, part in legend),
            *pen.lines(),
            *pen.boxes(),
            "</svg>\n",
        ]
    )


def colour(group: int) -> str:
    """The colour of the group with this place: six that all eyes tell apart, then hues a golden
    angle apart, so that neighbours are never alike."""
    if group < len(_SAFE):
        return _SAFE[group]
    rest = group - len(_SAFE)
    hue = (20 + rest * _GOLDEN_ANGLE) % 360 / 360
    return _hex(hls_to_rgb(hue, _LIGHT[rest % len(_LIGHT)], 0.62))


def _text(value: str) -> str:
    return escape(plain(value), {'"': "&quot;"})


def _short(value: str) -> str:
    """A name that fits; the end of a long one tells more than its beginning."""
    value = plain(value)
    return value if len(value) <= _LONGEST else "…" + value[-_LONGEST + 1 :]


def _detail(box: Box) -> str:
    value = plain(box.detail)
    return value if len(value) <= _LONGEST_DETAIL else value[: _LONGEST_DETAIL - 1] + "…"


def _hex(parts: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _parts(value: str) -> tuple[float, float, float]:
    return (int(value[1:3], 16) / 255, int(value[3:5], 16) / 255, int(value[5:7], 16) / 255)


def _tint(value: str) -> str:
    r, g, b = (0.8 + 0.2 * part for part in _parts(value))
    return _hex((r, g, b))


def _ink_on(value: str) -> str:
    """Black or white, whichever contrasts more (relative luminance of WCAG 2.1)."""
    linear = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in _parts(value))
    r, g, b = linear
    luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return _PAPER if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _width(box: Box) -> float:
    text = max(len(_short(box.label)) * _LETTER, len(_detail(box)) * _SMALL)
    return max(46.0, text + 20 + _gives_width(box) + _chips_width(box.takes))


def _chips_width(groups: tuple[int, ...]) -> float:
    return min(len(groups), _CHIPS + 1) * _CHIP


def _gives_width(box: Box) -> float:
    return 0.0 if box.kind == "end" else _chips_width(box.groups) or _CHIP


def _graph_width(place: Layout) -> float:
    between = sum(_gutter(place, column) for column in range(len(place.widths) - 1))
    return 2 * _MARGIN + sum(place.widths) + between


def _gutter(place: Layout, column: int) -> float:
    return _GUTTER + _LANE * place.lanes[column]


def _chip(x: float, y: float, group: int | None, more: int = 0) -> str:
    """A small square with the number of a group, counted from 1."""
    fill = colour(group) if group is not None else _FROZEN_LINE
    label = f"+{more}" if more else str(group + 1) if group is not None else ABSENT
    ink = _ink_on(fill)
    size = 9 if len(label) < 3 else 8
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{_CHIP - 2:.0f}" height="14" rx="3" fill="{fill}"/>'
        f'<text x="{x + _CHIP / 2 - 1:.1f}" y="{y + 10.3:.1f}" font-size="{size}" fill="{ink}" '
        f'text-anchor="middle" font-weight="bold">{label}</text>'
    )


def _chips(x: float, y: float, groups: tuple[int, ...]) -> list[str]:
    shown = [_chip(x + i * _CHIP, y, group) for i, group in enumerate(groups[:_CHIPS])]
    if len(groups) > _CHIPS:
        shown.append(_chip(x + _CHIPS * _CHIP, y, None, len(groups) - _CHIPS))
    return shown


def _legend(drawing: Drawing, room: float) -> tuple[list[tuple[float, str]], float]:
    """Its parts, each with its right edge, in as many columns as the room has; its lower edge."""
    rows: list[tuple[int | None, str]] = [
        (i, f"{_short(g.name)}: {g.size} channels, {count(g.macs)} MACs")
        for i, g in enumerate(drawing.groups)
    ]
    rows.append((None, "frozen: can't be pruned; the tooltip says why"))
    wide = max(len(text) for _, text in rows) * _SMALL + _CHIP + 40
    columns = max(1, min(len(rows), int((room - 2 * _MARGIN) / wide)))
    deep = -(-len(rows) // columns)
    title = plain(drawing.title)
    parts = [
        (
            2 * _MARGIN + len(title) * 7.9,
            f'<text x="{_MARGIN:.0f}" y="32" font-size="13" font-weight="bold" fill="{_INK}">'
            f"{_text(title)}</text>",
        ),
        (
            2 * _MARGIN + len(_KEY) * _SMALL,
            f'<text x="{_MARGIN:.0f}" y="48" font-size="9" fill="{_FAINT}">{_KEY}</text>',
        ),
    ]
    for i, (group, text) in enumerate(rows):
        x, y = _MARGIN + i // deep * wide, _LEGEND + i % deep * _LEGEND_ROW
        name = _text(drawing.groups[group].name) if group is not None else "frozen"
        parts.append(
            (
                x + wide,
                f"<g><title>{name}</title>{_chip(x, y, group)}"
                f'<text x="{x + _CHIP + 4:.1f}" y="{y + 10.5:.1f}" font-size="9" fill="{_INK}">'
                f"{_text(text)}</text></g>",
            )
        )
    return parts, _LEGEND + deep * _LEGEND_ROW


class _Pen:
    """Draws the boxes and lines of a laid-out graph below ``top``."""

    def __init__(self, drawing: Drawing, place: Layout, top: float) -> None:
        self.top = top
        self._drawing, self._place = drawing, place
        self._left = [_MARGIN]
        for column, width in enumerate(place.widths):
            self._left.append(self._left[-1] + width + _gutter(place, column))

    def _x(self, spot: Spot) -> float:
        return self._left[spot.column] + spot.x

    def _middle(self, spot: Spot) -> float:
        return self.top + spot.row * _ROW + _HEIGHT / 2

    def _half(self, spot: Spot) -> float:
        """Half of what a spot's box takes of its row."""
        small = spot.real and self._drawing.boxes[spot.node].kind != "layer"
        return 11.0 if small else _HEIGHT / 2

    def boxes(self) -> list[str]:
        """All boxes, each with its tooltip."""
        return [self._box(spot) for spot in self._place.spots if spot.real]

    def _box(self, spot: Spot) -> str:
        box, half = self._drawing.boxes[spot.node], self._half(spot)
        width, y = _width(box), self._middle(spot)
        x, top = self._x(spot) - width / 2, y - half
        fill, line = _fill(box)
        dash = ' stroke-dasharray="4 2"' if box.kind != "end" and not box.groups else ""
        takes, gives = _chips_width(box.takes), _gives_width(box)
        middle = (x + 4 + takes + x + width - 4 - gives) / 2
        label = f'<text x="{middle:.1f}" text-anchor="middle" '
        two = box.kind == "layer"
        parts = [
            f"<g><title>{chr(10).join(map(_text, box.notes))}</title>",
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{2 * half:.0f}" '
            f'rx="{5 if two else half:.0f}" fill="{fill}" stroke="{line}"{dash}/>',
            f'{label}y="{y - 2 if two else y + 3.8:.1f}" font-size="11" fill="{_INK}">'
            f"{_text(_short(box.label))}</text>",
        ]
        if two:
            parts.append(
                f'{label}y="{y + 11:.1f}" font-size="9" fill="{_FAINT}">'
                f"{_text(_detail(box))}</text>"
            )
        parts += _chips(x + 5, y - 7, box.takes)
        if gives:
            right = x + width - gives - 3
            parts += _chips(right, y - 7, box.groups) or [_chip(right, y - 7, None)]
        return "".join([*parts, "</g>"])

    def lines(self) -> list[str]:
        """All lines, in the colour of the channels that they carry."""
        spots = self._place.spots
        return [
            self._line(spots[link.start], spots[link.end], link.lane) for link in self._place.links
        ]

    def _line(self, start: Spot, end: Spot, lane: int | None) -> str:
        groups = self._drawing.boxes[start.node].groups
        ink = colour(groups[0]) if groups else _FROZEN_LINE
        x0, y0 = self._x(start), self._middle(start) + self._half(start)
        x1, y1 = self._x(end), self._middle(end) - self._half(end)
        tip = 6.0 if end.real else 0.0
        if lane is None:
            path = f"M{x0:.1f} {y0:.1f}" + _curve(x0, y0, x1, y1 - tip)
        else:
            path = self._around(start, x0, y0, x1, y1 - tip, lane)
        if not end.real:  # straight past the boxes of its row
            path += f"V{self._middle(end) + self._half(end):.1f}"
        drawn = f'<path d="{path}" fill="none" stroke="{ink}" stroke-width="1.6"/>'
        if end.real:
            drawn += (
                f'<path d="M{x1 - 3.5:.1f} {y1 - 7:.1f}h7l-3.5 6.5z" fill="{ink}" stroke="none"/>'
            )
        return drawn

    def _around(self, start: Spot, x0: float, y0: float, x1: float, y1: float, lane: int) -> str:
        """Down, between the two columns to the top, and down again."""
        away = (self._place.lanes[start.column] - 1 - lane) * _LANE
        low = self.top + start.row * _ROW + _HEIGHT + 8 + away
        high = self.top - 12 - away
        right = self._left[start.column + 1]
        x = right - _GUTTER / 2 - lane * _LANE
        return _rounded([(x0, y0), (x0, low), (x, low), (x, high), (x1, high), (x1, y1)])


def _fill(box: Box) -> tuple[str, str]:
    if box.kind == "end":
        return _PAPER, _INK
    if not box.groups:
        return _FROZEN, _FROZEN_LINE
    return _tint(colour(box.groups[0])), colour(box.groups[0])


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    if abs(x0 - x1) < 0.5:
        return f"L{x1:.1f} {y1:.1f}"
    middle = (y0 + y1) / 2
    return f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"


def _rounded(points: list[tuple[float, float]], radius: float = 5.0) -> str:
    """A line through right angles, its corners rounded."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        path.append(
            f"L{bx - _toward(ax, bx, radius):.1f} {by - _toward(ay, by, radius):.1f}"
            f"Q{bx:.1f} {by:.1f} {bx + _toward(bx, cx, radius):.1f} "
            f"{by + _toward(by, cy, radius):.1f}"
        )
    return "".join([*path, f"L{points[-1][0]:.1f} {points[-1][1]:.1f}"])


def _toward(a: float, b: float, most: float) -> float:
    return max(-most, min(most, (b - a) / 2))
