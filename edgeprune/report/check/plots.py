# SPDX-License-Identifier: Apache-2.0
"""Figures over commits as a picture: a panel for each quantity, a line for each artifact.

What to draw is decided here, without any library; ``canvas`` draws it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import InputError, MissingExtra, OutputError
from edgeprune.figure import Figure
from edgeprune.report.text import plain
from edgeprune.writing import save

__all__ = ["Line", "Panel", "Plan", "Point", "plan", "plot"]

_SCALES: dict[str, tuple[tuple[str, float], ...]] = {
    "B": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)),
    "s": (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)),
    "J": (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)),
}
_LABELS = 9
"""Commits that are named below a picture; with more every second, third ... is."""
_COMMIT = 7
_DAY = len("2026-01-01")
_LONGEST = 44
_SUFFIXES = (".svg", ".png")


@dataclass(frozen=True)
class Point:
    """What one commit had."""

    commit: str
    when: str
    """ISO 8601; its date is shown."""
    figures: Mapping[str, Mapping[str, Figure]]
    """By artifact, then by quantity (``size``, ``latency``, ``accuracy``, ...). What was not
    measured is absent, and leaves a gap."""


@dataclass(frozen=True)
class Line:
    """One artifact in a panel; each value stands at the place of its commit."""

    name: str
    style: int
    """The same in all panels."""
    places: tuple[int, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...]
    """Equal to the value where there is no interval."""
    highs: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One quantity, in one unit."""

    title: str
    """``size (kB)``"""
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Plan:
    """All that is drawn."""

    panels: tuple[Panel, ...]
    names: tuple[str, ...]
    """Of the artifacts; their places are their styles."""
    commits: int
    labels: tuple[tuple[int, str], ...]
    """Commits that are named: place, and hash with date on two lines."""


def plot(points: Sequence[Point], path: Path) -> None:
    """Draw the points, from the oldest to the newest, into an ``.svg`` or ``.png``.

    Equal points give equal files. ``path`` is there whole or as it was.

    Raises:
        InputError: There is nothing to draw.
        MissingExtra: matplotlib isn't installed.
        OutputError: Another suffix, or the file can't be written.
    """
    kind = path.suffix.lower()
    if kind not in _SUFFIXES:
        raise OutputError(f"{path}: a plot is an .svg or a .png; name it {path.name}.svg")
    drawn = plan(points)
    if not drawn.panels:
        raise InputError("there is no figure to plot: no commit has one")
    try:
        from edgeprune.report.check.canvas import draw
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        raise MissingExtra("matplotlib", "plots") from None
    save(path, [draw(drawn, "svg" if kind == ".svg" else "png")])


def plan(points: Sequence[Point]) -> Plan:
    """Decide panels, lines, scales and labels."""
    keys: dict[tuple[str, str], None] = {}
    artifacts: dict[str, int] = {}
    for point in points:
        for artifact, figures in point.figures.items():
            for quantity, figure in figures.items():
                keys.setdefault((quantity, figure.unit))
                artifacts.setdefault(artifact, len(artifacts))
    return Plan(
        panels=tuple(_panel(points, quantity, unit, artifacts) for quantity, unit in keys),
        names=tuple(map(_name, artifacts)),
        commits=len(points),
        labels=_labels(points),
    )


def _panel(
    points: Sequence[Point], quantity: str, unit: str, artifacts: Mapping[str, int]
) -> Panel:
    found = {
        artifact: [
            (place, figure)
            for place, point in enumerate(points)
            if (figure := point.figures.get(artifact, {}).get(quantity)) is not None
            and figure.unit == unit
        ]
        for artifact in artifacts
    }
    most = max(abs(figure.value) for series in found.values() for _, figure in series)
    name, scale = _scale(unit, most)
    lines = tuple(
        _line(artifact, artifacts[artifact], series, scale)
        for artifact, series in found.items()
        if series
    )
    title = f"{_name(quantity)} ({_name(name)})" if name else _name(quantity)
    return Panel(title, lines)


def _scale(unit: str, most: float) -> tuple[str, float]:
    """The unit in which the largest value is at least 1."""
    scales = _SCALES.get(unit, ((unit, 1.0),))
    return next((each for each in scales if most >= each[1]), scales[-1])


def _line(artifact: str, style: int, series: Sequence[tuple[int, Figure]], scale: float) -> Line:
    figures = [figure for _, figure in series]
    return Line(
        name=_name(artifact),
        style=style,
        places=tuple(place for place, _ in series),
        values=tuple(f.value / scale for f in figures),
        lows=tuple((f.value if f.low is None else f.low) / scale for f in figures),
        highs=tuple((f.value if f.high is None else f.high) / scale for f in figures),
    )


def _labels(points: Sequence[Point]) -> tuple[tuple[int, str], ...]:
    """Evenly spread, the newest always among them."""
    step = max(1, -(-len(points) // _LABELS))
    places = range((len(points) - 1) % step, len(points), step)
    return tuple(
        (place, f"{plain(points[place].commit)[:_COMMIT]}\n{plain(points[place].when)[:_DAY]}")
        for place in places
    )


def _name(artifact: str) -> str:
    text = plain(artifact)
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST + 1 :]}"
