# SPDX-License-Identifier: Apache-2.0
"""A report in a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edgeprune.report.schema import RunReport
from edgeprune.report.section import Section, Table
from edgeprune.report.text import plain
from edgeprune.report.view import OUTCOMES, view

__all__ = ["print_sections", "render_terminal"]

_STYLES = {
    OUTCOMES["pass"]: "green",
    OUTCOMES["fail"]: "bold red",
    OUTCOMES["inconclusive"]: "yellow",
    OUTCOMES["not measured"]: "yellow",
}

_NAMES = 24
"""The first column isn't narrowed below this, so that ordinary names stay whole."""
_GAP = 3
"""Between columns, as rich draws them."""


def render_terminal(report: RunReport, console: Console | None = None) -> None:
    """Print the report to ``console``; ``None``: standard output."""
    console = console or Console(highlight=False)
    print_sections((section for section in view(report) if not section.only_page), console)


def print_sections(sections: Iterable[Section], console: Console) -> None:
    """Print sections to ``console``."""
    for section in sections:
        _print(section, console)


def _print(section: Section, console: Console) -> None:
    # Text objects, never strings: in a string rich would take a user's brackets for its markup.
    console.print()
    console.print(Text(plain(section.title), style="bold"), highlight=False)
    if section.lead:
        console.print(Text(plain(section.lead)), highlight=False)
    if section.table is not None:
        for place, part in enumerate(_parts(section.table, console.width)):
            if place:
                console.print()
            console.print(_table(part, console.width), highlight=False)
    for line in section.lines:
        console.print(_line(line), highlight=False)


def _line(line: str) -> RichTable:
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row(Text(" -"), Text(plain(line)))
    return grid


def _table(table: Table, width: int) -> RichTable:
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    names = max(len(row[0]) for row in table.rows)
    for place, (column, cells) in enumerate(zip(table.columns, _widths(table, width), strict=True)):
        first = place == 0
        shown.add_column(
            Text(plain(column)),
            justify="left" if first or column in table.left else "right",
            overflow="fold",
            min_width=min(names, _NAMES) if first else None,
            width=cells,
        )
    for row in table.rows:
        shown.add_row(*(Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row))
    return shown


def _parts(table: Table, width: int) -> Iterator[Table]:
    """The table, or, where its columns have no room beside one another, their equal shares one
    below the other, each with the first column."""
    columns = len(table.columns)
    for parts in range(1, max(columns, 2)):
        ends = [1 + part * (columns - 1) // parts for part in range(parts + 1)]
        found = [_share(table, begin, end) for begin, end in pairwise(ends)]
        if all(_whole([_least(cells) for cells in _columns(part)]) <= width for part in found):
            break
    yield from found


def _share(table: Table, begin: int, end: int) -> Table:
    rows = tuple((row[0], *row[begin:end]) for row in table.rows)
    return Table((table.columns[0], *table.columns[begin:end]), rows, table.left)


def _widths(table: Table, width: int) -> list[int | None]:
    """Of the columns; ``None``, as wide as they are, where all have room: the widest are folded
    first, and no number is taken from its unit."""
    columns = list(_columns(table))
    full = [max(cell_len(plain(cell)) for cell in (head, *cells)) for head, *cells in columns]
    if _whole(full) <= width:
        return [None] * len(full)
    least = [_least(cells) for cells in columns]
    for most in range(max(full), 0, -1):
        found = [max(low, min(high, most)) for low, high in zip(least, full, strict=True)]
        if _whole(found) <= width:
            break
    return list(found)


def _columns(table: Table) -> Iterator[tuple[str, ...]]:
    return zip(table.columns, *table.rows, strict=True)


def _least(cells: Sequence[str]) -> int:
    """The width that a column can't do without: of a word of its head, of a figure without its
    interval; names are folded when they are long."""
    head, *others = map(plain, cells)
    words = [*head.split(), *(part for cell in others for part in _together(cell))]
    return min(_NAMES, max(map(cell_len, words), default=0))


def _together(cell: str) -> list[str]:
    figure, bracket, interval = cell.partition(" (")
    return [figure, *f"{bracket.strip()}{interval}".split()]


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)
