# SPDX-License-Identifier: Apache-2.0
"""What a report is made of: sections with a table of text."""

from dataclasses import dataclass, field

from edgeprune.report import text

__all__ = ["Row", "Rows", "Section", "Table"]

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column is on the left, ``left`` names others that are too."""

    columns: Row
    rows: tuple[Row, ...]
    left: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Section:
    """A title, a sentence, a table, and lines below it; all but the title only where there are."""

    title: str
    table: Table | None = None
    lines: tuple[str, ...] = ()
    lead: str = ""
    """A sentence above the table."""
    only_page: bool = False
    """Too much for a terminal."""


@dataclass
class Rows:
    """The rows of a table while it is built; remembers in which column something is absent."""

    columns: Row
    rows: list[Row] = field(default_factory=list)
    absent: set[tuple[str, str]] = field(default_factory=set)

    def add(self, kind: str, *cells: str) -> None:
        """One row more; ``kind`` tells rows of different sorts apart in ``absent``."""
        self.rows.append(cells)
        for index, cell in enumerate(cells):
            if cell == text.ABSENT:
                self.absent.add((kind, self.columns[index]))

    def table(self, *left: str) -> Table:
        """The rows so far; columns ``left`` are set on the left."""
        return Table(self.columns, tuple(self.rows), frozenset(left))
