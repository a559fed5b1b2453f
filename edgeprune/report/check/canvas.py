# SPDX-License-Identifier: Apache-2.0
"""Draws a plan of figures over commits with matplotlib, which only the extra ``plots`` brings."""

import math
from io import BytesIO
from typing import Any, Literal

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from edgeprune.report.check.plots import Line, Panel, Plan
from edgeprune.report.drawing import colour

__all__ = ["draw"]

_INK, _FAINT, _GRID = "#1f2430", "#5b6472", "#e3e6ea"
_MARKERS = "osD^vPX*<>"
_WIDTH, _PANEL, _ROW = 10.0, 2.4, 0.26
"""Inches: of the page, the height of a panel, and of a row of the legend."""
_CROWD = 40
"""With more commits the markers are smaller."""
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # the one that matplotlib brings, so equal on all machines
    "font.size": 9.5,
    "svg.hashsalt": "edgeprune",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
}


def draw(plan: Plan, kind: Literal["svg", "png"]) -> bytes:
    """The picture's file; equal bytes for equal plans. ``plan`` has at least one panel."""
    columns = _columns(plan)
    rows = math.ceil(len(plan.names) / columns)
    height = _PANEL * len(plan.panels) + _ROW * rows + 0.8
    page = BytesIO()
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH, height), facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        axes = figure.subplots(len(plan.panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, ax in zip(plan.panels, axes, strict=True):
            _panel(panel, plan, ax)
        axes[-1].set_xticks([p for p, _ in plan.labels], [_drawable(t) for _, t in plan.labels])
        keys = [_key(name, place) for place, name in enumerate(plan.names)]
        figure.legend(
            handles=keys, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )
        stamp = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(page, format=kind, dpi=144, metadata=stamp)
    return page.getvalue()


def _columns(plan: Plan) -> int:
    """As many names beside one another as the width has room for."""
    longest = max(map(len, plan.names))
    return max(1, min(len(plan.names), int(130 / (longest + 8))))


def _panel(panel: Panel, plan: Plan, ax: Axes) -> None:
    ax.set_title(_drawable(panel.title), loc="left", fontsize=10.5, fontweight="bold")
    for line in panel.lines:
        _line(line, ax, size=5 if plan.commits <= _CROWD else 3)
    ax.set_xlim(-0.5, max(plan.commits - 0.5, 0.5))
    low = min(min(line.lows) for line in panel.lines)
    high = max(max(line.highs) for line in panel.lines)
    # Room around, and no magnifying of differences of less than a per cent.
    around = max(0.12 * (high - low), 0.01 * max(abs(high), abs(low)), 1e-9)
    ax.set_ylim(low - around if low < 0 else max(0.0, low - around), high + around)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
    ax.ticklabel_format(axis="y", style="plain", useOffset=False)
    ax.grid(axis="y", color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if ax.get_ylim()[0] > 0:  # a strong line would be taken for zero
        ax.spines["bottom"].set_color(_GRID)


def _line(line: Line, ax: Axes, *, size: float) -> None:
    """Unbroken only from commit to commit: where a figure is absent there is a gap."""
    ink = colour(line.style)
    for first, last in _runs(line.places):
        part = slice(first, last)
        places, values = line.places[part], line.values[part]
        lows, highs = line.lows[part], line.highs[part]
        ax.fill_between(places, lows, highs, color=ink, alpha=0.16, linewidth=0)
        ax.vlines(places, lows, highs, color=ink, linewidth=1.2, alpha=0.6)
        ax.plot(
            places,
            values,
            color=ink,
            linewidth=1.6,
            marker=_marker(line.style),
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=0.6 if size > 4 else 0,
        )


def _runs(places: tuple[int, ...]) -> list[tuple[int, int]]:
    """Where commits follow one another: ranges into ``places``."""
    starts = [i for i, place in enumerate(places) if i == 0 or place != places[i - 1] + 1]
    return list(zip(starts, [*starts[1:], len(places)], strict=True))


def _key(name: str, place: int) -> Line2D:
    return Line2D(
        [],
        [],
        color=colour(place),
        marker=_marker(place),
        linewidth=1.6,
        markersize=5,
        label=_label(name),
    )


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _label(name: str) -> str:
    """Never empty, nor with an underscore first: matplotlib would leave it out of the legend."""
    text = _drawable(name)
    return f"\u200a{text}" if text.startswith("_") else text or "?"


def _drawable(text: str) -> str:
    """What the font has no picture of is a question mark, not an empty box."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    return "".join(c if c == "\n" or font.get_char_index(ord(c)) else "?" for c in text)
