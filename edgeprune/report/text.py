# SPDX-License-Identifier: Apache-2.0
"""Figures as people read them. What is absent is a dash, never a zero."""

from edgeprune.figure import Figure
from edgeprune.units import format_bytes, format_seconds

__all__ = ["ABSENT", "KEPT", "change", "count", "plain", "ratio", "show", "spread"]

ABSENT = "\u2013"
KEPT = "what was trained is kept: --resume with other --numerics goes on from there"
"""What to do where numerics gave no file."""
_SCALES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


def show(figure: Figure | None) -> str:
    """The value with its unit: ``98.6 kB``, ``360 us``, ``91.20 %``, ``41 M``; or a dash."""
    if figure is None:
        return ABSENT
    if figure.unit == "B":
        return format_bytes(figure.value)
    if figure.unit == "s":
        return format_seconds(figure.value)
    if figure.unit in ("%", "points"):
        return f"{figure.value:.2f} {figure.unit}"
    if figure.unit == "x":
        return f"{figure.value:.2f}x"
    if figure.unit == "J":
        return f"{_short(figure.value * 1e3)} mJ"
    if figure.unit == "output units":
        return f"{figure.value:.2g}"
    if figure.unit == "dB":
        return f"{figure.value:.1f} dB"
    return count(figure.value)


def spread(figure: Figure | None) -> str:
    """The value with its interval, if it has one, in one unit: ``360 us (350 to 380)``."""
    text = show(figure)
    if figure is None or figure.low is None or figure.high is None:
        return text
    if figure.unit in ("s", "B"):
        scale = _SCALES[text.rsplit(" ", 1)[1]]
        return f"{text} ({_short(figure.low / scale)} to {_short(figure.high / scale)})"
    if figure.unit in ("%", "points", "x"):
        return f"{text} ({figure.low:.2f} to {figure.high:.2f})"
    return f"{text} ({count(figure.low)} to {count(figure.high)})"


def count(value: float) -> str:
    """Three significant digits of a number: ``2.28``, ``950``, ``272 k``, ``40.6 M``, ``4.1 G``."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * scale:
            return f"{_short(value / scale)} {unit}"
    return _short(value)


def ratio(figure: Figure | None) -> str:
    """How many times as fast as the dense file is, from the ratio of latencies: ``2.10x``.

    A ratio of 0.5 (half the time) is 2x; the interval is turned over with it.
    """
    if figure is None or figure.value <= 0:
        return ABSENT
    text = f"{1 / figure.value:.2f}x"
    if not figure.low or not figure.high:
        return text
    return f"{text} ({1 / figure.high:.2f} to {1 / figure.low:.2f})"


def change(points: float) -> str:
    """A signed difference in points: ``-2.10``, ``+0.30``, ``0.00``."""
    text = f"{points:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def plain(text: str) -> str:
    """One line without control characters: names may come from anywhere."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
