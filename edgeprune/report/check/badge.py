# SPDX-License-Identifier: Apache-2.0
"""A badge: size, latency and verdict as a small SVG picture without anything from elsewhere."""

from collections.abc import Iterable
from xml.sax.saxutils import escape

from edgeprune.gate.judged import CheckReport
from edgeprune.report.check.words import State, answer, state
from edgeprune.report.text import plain, show

__all__ = ["badge"]

_HEIGHT, _PAD = 20, 7
_LETTER = 6.6
_NARROW, _BROAD = "fijlrt.,: ", "mwM"
"""Letters of about 4 and 10 of its pixels at this size, in most fonts without serifs."""
_LABEL, _VALUE = "#2f3542", "#4d5768"
_COLOURS: dict[State, str] = {
    "passed": "#1b6e3c",
    "passed with warnings": "#8a5200",
    "failed": "#b3261e",
    "nothing judged": "#5b6472",
}
_SIZE, _LATENCY = ("budget/size", "baseline/size"), ("budget/latency", "baseline/latency")


def badge(report: CheckReport) -> str:
    """The picture; equal text for equal reports.

    With several artifacts size and latency are those of the largest and the slowest, behind a
    ``≤``. What was not measured isn't shown.
    """
    parts = [("edgeprune", _LABEL)]
    for name, rules in (("size", _SIZE), ("latency", _LATENCY)):
        most = _most(report, rules)
        if most is not None:
            parts.append((f"{name} {most}", _VALUE))
    parts.append((state(report), _COLOURS[state(report)]))
    return _draw(parts, title=f"edgeprune check: {answer(report)}")


def _most(report: CheckReport, rules: tuple[str, ...]) -> str | None:
    figures = [j.figure for j in report.judged if j.rule in rules and j.figure is not None]
    if not figures:
        return None
    most = show(max(figures, key=lambda figure: figure.value))
    several = len({(j.model, j.target, j.artifact) for j in report.judged}) > 1
    return f"\u2264 {most}" if several else most


def _draw(parts: Iterable[tuple[str, str]], title: str) -> str:
    boxes, texts, left = [], [], 0
    for text, colour in parts:
        # Each text is fitted to its room, whatever the font of the one who looks is.
        room = _room(text)
        width = room + 2 * _PAD
        boxes.append(f'<rect x="{left}" width="{width}" height="{_HEIGHT}" fill="{colour}"/>')
        texts.append(
            f'<text x="{left + _PAD}" y="14" textLength="{room}" '
            f'lengthAdjust="spacingAndGlyphs">{_text(text)}</text>'
        )
        left += width
    name = _text(title)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{left}" height="{_HEIGHT}" '
            f'viewBox="0 0 {left} {_HEIGHT}" role="img" aria-label="{name}">',
            f"<title>{name}</title>",
            f'<clipPath id="edge"><rect width="{left}" height="{_HEIGHT}" rx="3"/></clipPath>',
            f'<g clip-path="url(#edge)">{"".join(boxes)}</g>',
            '<g fill="#ffffff" font-family="Verdana, DejaVu Sans, sans-serif" '
            f'font-size="11">{"".join(texts)}</g>',
            "</svg>\n",
        ]
    )


def _room(text: str) -> int:
    """Whole pixels, so that no seam shows between two boxes."""
    return round(sum(4.2 if c in _NARROW else 10 if c in _BROAD else _LETTER for c in text))


def _text(value: str) -> str:
    return escape(plain(value), {'"': "&quot;"})
