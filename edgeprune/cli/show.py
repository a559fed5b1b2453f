# SPDX-License-Identifier: Apache-2.0
"""How the commands print: JSON, one stage's report, and tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from edgeprune.cli.console import page
from edgeprune.figure import Figure
from edgeprune.report.schema import StageReport
from edgeprune.report.text import spread

__all__ = ["as_json", "figures", "lines", "one_or_all", "stage", "table"]

_NAME = 16
"""Columns up to which a name stays whole on a narrow terminal."""


def as_json(value: Any) -> None:
    """Print JSON to standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def one_or_all(values: Sequence[Any]) -> Any:
    """The one value there is, or the list of several."""
    return values[0] if len(values) == 1 else list(values)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """Print a table; the first ``left`` columns are text, the others numbers."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rows = list(rows)
    wide = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
    for place, column in enumerate(columns):
        text = place < left
        shown.add_column(
            column,
            justify="left" if text else "right",
            overflow="fold" if text else "ellipsis",
            no_wrap=text and wide[place] <= _NAME,  # else rich breaks it before the numbers
        )
    for row in rows:
        # Text, not strings, in which rich would take brackets for its markup
        shown.add_row(*map(Text, row))
    page(shown).print(shown)


def lines(texts: Iterable[str]) -> None:
    """Print lines as a list."""
    for text in texts:
        typer.echo(f" - {text}")


def stage(report: StageReport) -> None:
    """Print what a stage did."""
    figures(report.figures)
    for artifact in report.artifacts:
        typer.echo(f"{artifact.file}: {artifact.numerics}, {artifact.bytes:,} B")
    for missing in report.missing:
        typer.echo(f"{missing.file}: missing: {missing.reason}")
    lines((*report.notes, *(note for artifact in report.artifacts for note in artifact.notes)))


def figures(found: Mapping[str, Figure]) -> None:
    """Print figures, one a row, each with its origin."""
    rows = [
        (name.replace("_", " "), spread(figure), figure.origin.how)
        for name, figure in found.items()
    ]
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, value, how in rows:
        typer.echo(f"{name:<{width}}  {value}  ({how})")
