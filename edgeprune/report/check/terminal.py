# SPDX-License-Identifier: Apache-2.0
"""A check's report in a terminal."""

from collections.abc import Iterator, Sequence
from io import StringIO
from textwrap import wrap
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from edgeprune.gate.judged import CheckReport, Judged, Place
from edgeprune.report.check.words import (
    OUTCOMES,
    State,
    answer,
    end,
    limit,
    owner,
    start,
    state,
)
from edgeprune.report.text import ABSENT, plain, show, spread

__all__ = ["print_report", "terminal"]

_STYLES = {
    OUTCOMES["pass"]: "green",
    OUTCOMES["fail"]: "bold red",
    OUTCOMES["inconclusive"]: "yellow",
    OUTCOMES["not measured"]: "yellow",
}
_COLUMNS = ("outcome", "rule", "figure", "limit", "baseline")
_WORDS = 2
"""So many columns are words; the others are numbers."""
_GAP, _DEEP = "   ", "   "
_ANSWERS: dict[State, str] = {
    "passed": "bold green",
    "passed with warnings": "bold yellow",
    "failed": "bold red",
    "nothing judged": "bold yellow",
}
_LONGEST_NAME, _LONGEST_TEXT = 120, 1000
_LONGEST_LINE, _MOST_NAMES = 2000, 4


def terminal(report: CheckReport) -> str:
    """What ``print_report`` shows: 100 columns, no colours."""
    page = StringIO()
    print_report(report, Console(file=page, width=100, color_system=None, highlight=False))
    return page.getvalue()


def print_report(report: CheckReport, console: Console) -> None:
    """Print a table with the rows of each artifact below its name, the reasons of what didn't
    pass, and the verdict.

    Args:
        report: What was judged.
        console: Its width is kept; rich leaves the colours out where it is no terminal.
    """
    lines = _tables(report, console.width)
    for title, listed in (("Failed", report.failed), ("Warnings", report.warnings)):
        if listed:
            lines += [Text(), Text(title, style="bold")]
            lines += [line for reason in _reasons(listed) for line in reason.lines(console.width)]
    if report.notes:
        lines += [Text(), Text("Notes", style="bold")]
        for note in _notes(report.notes):
            lines += _wrapped(note, " - ", console.width)
    if lines:
        lines.append(Text())
    for line in _wrapped(answer(report), "", console.width):
        line.stylize(_ANSWERS[state(report)])
        lines.append(line)
    # Once and wrapped already: rich's own tables take seconds for the rows of 200 artifacts.
    console.print(Text("\n").join(lines), highlight=False, soft_wrap=True)


def _tables(report: CheckReport, width: int) -> list[Text]:
    cells, columns, widths = _fitting(report, width)
    fits = _whole(widths) <= width
    groups: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for judged, row in zip(report.judged, cells, strict=True):
        groups.setdefault((owner(judged), plain(judged.artifact)), []).append(row)
    lines: list[Text] = []
    for (name, artifact), rows in groups.items():
        if lines:
            lines.append(Text())
        heading = f"{end(name, _LONGEST_NAME)}: {end(artifact, _LONGEST_NAME)}"
        for line in _wrapped(heading, "", width):
            line.stylize("bold")
            lines.append(line)
        if fits and rows is next(iter(groups.values())):
            lines += _header(columns, widths)
        for row in rows:
            lines += [_row(row, widths)] if fits else _folded(row, width)
    return lines


def _fitting(
    report: CheckReport, width: int
) -> tuple[list[tuple[str, ...]], Sequence[str], list[int]]:
    """The rows, the columns and how wide they are: with as many intervals as there is room for,
    those of the figures before those of the baselines. What is open or failed has them in its
    reason too."""
    for intervals in (2, 1, 0):
        rows = [_cells(judged, intervals) for judged in report.judged]
        columns = _COLUMNS if any(row[-1] != ABSENT for row in rows) else _COLUMNS[:-1]
        widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=False)]
        if _whole(widths) <= width:
            return rows, columns, widths
    return [_cells(judged, 1) for judged in report.judged], columns, widths


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _cells(judged: Judged, intervals: int) -> tuple[str, ...]:
    return (
        OUTCOMES[judged.outcome],
        judged.rule,
        (spread if intervals else show)(judged.figure),
        limit(judged),
        (spread if intervals > 1 else show)(judged.baseline),
    )


def _header(columns: Sequence[str], widths: Sequence[int]) -> list[Text]:
    names = _row(columns, widths)
    names.stylize("bold")
    return [names, Text("─" * _whole(widths))]


def _row(cells: Sequence[str], widths: Sequence[int]) -> Text:
    """Words to the left of their columns, numbers to the right; a style for the outcome."""
    parts = []
    for place, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        room = " " * (width - cell_len(cell))
        parts.append(f"{cell}{room}" if place < _WORDS else f"{room}{cell}")
    line = Text(_harmless(_GAP.join(parts).rstrip()))
    line.stylize(_STYLES.get(cells[0], ""), 0, len(cells[0]))
    return line


def _folded(cells: Sequence[str], width: int) -> list[Text]:
    """A row as a sentence, where a terminal is too narrow for the table."""
    named = (f"{name} {cell}" for name, cell in zip(_COLUMNS, cells, strict=True) if cell != ABSENT)
    _, _, *figures = named
    lines = _wrapped(f"{cells[0]} {cells[1]}: {', '.join(figures)}".rstrip(": "), "", width)
    lines[0].stylize(_STYLES.get(cells[0], ""), 0, len(cells[0]))
    return lines


class _Reason(NamedTuple):
    """What holds of several files, or of several limits of the same files, is told once."""

    owner: str
    reason: str
    blame: tuple[str, ...]
    artifacts: tuple[str, ...]
    rules: tuple[str, ...]
    places: tuple[Place, ...]

    def lines(self, width: int) -> list[Text]:
        files = _few([end(plain(name), _LONGEST_NAME) for name in self.artifacts])
        what = f"{end(self.owner, _LONGEST_NAME)}: {', '.join(self.rules)} of {files}"
        lines = _wrapped(f"{what}: {start(self.reason, _LONGEST_TEXT)}", " - ", width)
        if self.blame:
            lines += _wrapped(f"grew most: {'; '.join(self.blame)}", _DEEP, width)
        if self.places:
            stand = "limit stands" if len(self.places) == 1 else "limits stand"
            at = [f"{end(plain(at.file), _LONGEST_NAME)}:{at.line}" for at in self.places]
            lines += _wrapped(f"the {stand} in {', '.join(at)}", _DEEP, width)
        return lines


def _reasons(listed: Sequence[Judged]) -> Iterator[_Reason]:
    files: dict[tuple[str, str, tuple[str, ...], str, Place | None], list[str]] = {}
    for judged in listed:
        key = owner(judged), judged.reason, judged.blame, judged.rule, judged.place
        files.setdefault(key, []).append(judged.artifact)
    rules: dict[tuple[str, str, tuple[str, ...], tuple[str, ...]], list[tuple[str, Place | None]]]
    rules = {}
    for (who, reason, blame, rule, place), found in files.items():
        rules.setdefault((who, reason, blame, tuple(found)), []).append((rule, place))
    for (who, reason, blame, artifacts), limits in rules.items():
        places = dict.fromkeys(place for _, place in limits if place is not None)
        names = tuple(rule for rule, _ in limits)
        yield _Reason(who, reason, blame, artifacts, names, tuple(places))


def _notes(notes: Sequence[str]) -> Iterator[str]:
    """Each note once: what comes before its first colon is what it is about."""
    about: dict[str, list[str]] = {}
    for note in notes:
        name, _, text = note.partition(": ")
        about.setdefault(text, []).append(name)
    for text, names in about.items():
        yield f"{_few(names)}: {text}" if text else "; ".join(names)


def _few(names: Sequence[str]) -> str:
    told = ", ".join(names[:_MOST_NAMES])
    return told if len(names) <= _MOST_NAMES else f"{told} and {len(names) - _MOST_NAMES} more"


def _wrapped(text: str, before: str, width: int) -> list[Text]:
    """Lines of at most ``width`` columns; those after the first are as deep as the first."""
    room = max(1, width - len(before))
    shown = _harmless(start(plain(text), _LONGEST_LINE))
    wide = any(cell_len(letter) > 1 for letter in set(shown))
    letters = max(1, room // 2) if wide else room
    folded = wrap(shown, letters, break_on_hyphens=False) or [""]
    deep = " " * len(before)
    return [Text(f"{deep if place else before}{line}") for place, line in enumerate(folded)]


def _harmless(text: str) -> str:
    """A name as it is, save that it gives the service that logs it no order.

    GitHub carries out what stands in a log behind ``::`` or ``##[`` at the start of a line.
    """
    return text.replace("::", ": :").replace("##[", "# #[")
