# SPDX-License-Identifier: Apache-2.0
"""A report in a terminal."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
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
        console.print(_table(section.table), highlight=False)
    for line in section.lines:
        console.print(_line(line), highlight=False)


def _line(line: str) -> RichTable:
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row(Text(" -"), Text(plain(line)))
    return grid


def _table(table: Table) -> RichTable:
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    names = max(len(row[0]) for row in table.rows)
    for place, column in enumerate(table.columns):
        first = place == 0
        shown.add_column(
            Text(plain(column)),
            justify="left" if first or column in table.left else "right",
            overflow="fold",
            min_width=min(names, _NAMES) if first else None,
        )
    for row in table.rows:
        shown.add_row(*(Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row))
    return shown
