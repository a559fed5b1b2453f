# SPDX-License-Identifier: Apache-2.0
"""Spectra of tangent kernels as an SVG picture: eigenvalues by rank, on a logarithmic scale.

Plain data in, text out, in the style of ``report.drawing``: no script, no font, no style from
anywhere else; each line has a dash of its own, so that colour is never the only key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

from edgeprune.report.drawing import colour
from edgeprune.report.text import plain
from edgeprune.tickets.lens.ntk import ROUNDING, Row

__all__ = ["spectra_svg"]

_INK, _FAINT, _GRID, _PAPER = "#1f2430", "#5b6472", "#e3e6ea", "#ffffff"
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_WIDE, _HIGH = 620.0, 320.0
"""The plot itself, in pixels."""
_LEFT, _TOP, _RIGHT, _BELOW = 76.0, 62.0, 24.0, 52.0
_ROW, _LETTER = 18.0, 5.7
_LONGEST = 44
_TICKS = 8


@dataclass(frozen=True)
class _Axes:
    """Where a rank and an eigenvalue stand."""

    ranks: int
    low: int
    """Powers of ten."""
    high: int

    def x(self, rank: int) -> float:
        """Of the rank counted from 1."""
        return _LEFT + _WIDE * (rank - 1) / max(1, self.ranks - 1)

    def y(self, power: float) -> float:
        """Of 10 to this power."""
        return _TOP + _HIGH * (self.high - power) / (self.high - self.low)


def spectra_svg(rows: Sequence[Row], name: str = "") -> str:
    """The picture of at least one row, headed by the network's name; equal text for equal rows.

    Eigenvalues that are zero up to rounding have no place on the scale and are left out; the
    legend says of how many there are how many are drawn.
    """
    largest = max((row.lens.spectrum[0] for row in rows if row.lens.spectrum), default=0.0)
    drawn = [[v for v in row.lens.spectrum if v > ROUNDING * largest] for row in rows]
    powers = [log10(v) for values in drawn for v in (values[:1] + values[-1:])]
    low, high = floor(min(powers, default=0.0)), ceil(max(powers, default=1.0))
    axes = _Axes(max(len(row.lens.spectrum) for row in rows), low, max(high, low + 1))
    legend = [_legend(place, row, len(drawn[place])) for place, row in enumerate(rows)]
    first = _TOP + _HIGH + _BELOW
    width = max(_LEFT + _WIDE + _RIGHT, *(_LEFT + 44 + len(text) * _LETTER for text in legend))
    height = first + _ROW * len(rows) + 8
    title = "Spectrum of the tangent kernel" + (f": {_short(name)}" if name else "")
    kind = "summed over outputs" if rows[0].lens.outputs == "sum" else "all outputs"
    under = f"eigenvalues by rank; {rows[0].lens.samples} samples, {kind}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" font-family='
            '"ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace">',
            f"<title>{escape(title)}</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>',
            _words(24, 32, title, size=13, extra=' font-weight="bold"'),
            _words(24, 48, under, ink=_FAINT),
            *_grid(axes),
            *(_line(place, values, axes) for place, values in enumerate(drawn)),
            *(_key(place, text, first + _ROW * place) for place, text in enumerate(legend)),
            "</svg>\n",
        ]
    )


def _legend(place: int, row: Row, drawn: int) -> str:
    total = len(row.lens.spectrum)
    count = f"{total} eigenvalues" if drawn == total else f"{drawn} of {total} eigenvalues"
    parts = [_short(row.name), f"density {row.density:.4g}", count]
    if row.lens.condition is not None:
        parts.append(f"condition {row.lens.condition:.3g}")
    return ", ".join(parts)


def _short(name: str) -> str:
    """A name that fits; the end of a long one tells more than its beginning."""
    text = plain(name)
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST + 1 :]}"


def _grid(axes: _Axes) -> list[str]:
    parts = []
    step = -(-(axes.high - axes.low) // _TICKS)
    for power in range(axes.low, axes.high + 1, step):
        y = axes.y(power)
        parts.append(
            f'<path d="M{_LEFT:.1f} {y:.1f}h{_WIDE:.1f}" fill="none" stroke="{_GRID}"/>'
            + _words(_LEFT - 8, y + 3, f"1e{power}", ink=_FAINT, extra=' text-anchor="end"')
        )
    for rank in _ranks(axes.ranks):
        low = _TOP + _HIGH
        middle = ' text-anchor="middle"'
        parts.append(_words(axes.x(rank), low + 16, str(rank), ink=_FAINT, extra=middle))
    parts.append(
        f'<path d="M{_LEFT:.1f} {_TOP + _HIGH:.1f}h{_WIDE:.1f}" fill="none" stroke="{_FAINT}"/>'
    )
    return parts


def _ranks(last: int) -> list[int]:
    """Which ranks are named: the first, the last, and some between at even distances."""
    step = max(1, -(-(last - 1) // _TICKS))
    return sorted({*range(1, max(2, last - step // 2), step), last})


def _line(place: int, values: Sequence[float], axes: _Axes) -> str:
    points = [(axes.x(i), axes.y(log10(v))) for i, v in enumerate(values, 1)]
    if not points:
        return ""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    if len(points) == 1:  # a line of one point shows nothing
        x, y = points[0]
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour(place)}"/>'
    return f'<path d="M{path}" fill="none" {_stroke(place)}/>'


def _key(place: int, text: str, y: float) -> str:
    return f'<path d="M{_LEFT:.1f} {y:.1f}h30" fill="none" {_stroke(place)}/>' + _words(
        _LEFT + 38, y + 3, text
    )


def _stroke(place: int) -> str:
    dash = _DASHES[place % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{colour(place)}" stroke-width="1.6"{dashed}'


def _words(
    x: float, y: float, text: str, *, ink: str = _INK, size: int = 9, extra: str = ""
) -> str:
    safe = escape(text, {'"': "&quot;"})
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{ink}"{extra}>{safe}</text>'
