# SPDX-License-Identifier: Apache-2.0
"""A report as a Markdown page."""

import re

from edgeprune.report.schema import RunReport
from edgeprune.report.section import Section, Table
from edgeprune.report.text import plain
from edgeprune.report.view import view

__all__ = ["markdown"]

_SPECIAL = re.compile(r"([\\`*\[\]<>|~#&$])|(?<![^\W_])(_)|(_)(?![^\W_])")


def markdown(report: RunReport) -> str:
    """The report as a page (GitHub's Markdown): the answer, the tables, what is absent and why."""
    sections = view(report)
    parts = [
        _section(section, level=1 if place == 0 else 2) for place, section in enumerate(sections)
    ]
    return "\n\n".join(parts) + "\n"


def _section(section: Section, *, level: int) -> str:
    parts = [f"{'#' * level} {_escape(section.title)}"]
    if section.lead:
        parts.append(_escape(section.lead))
    if section.table is not None:
        parts.append(_table(section.table))
    if section.lines:
        parts.append("\n".join(f"- {_escape(line)}" for line in section.lines))
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    left = (table.columns[0], *table.left)
    rule = ("---" if column in left else "---:" for column in table.columns)
    lines = [_row(table.columns), f"| {' | '.join(rule)} |", *map(_row, table.rows)]
    return "\n".join(lines)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(_escape(cell) for cell in cells)} |"


def _escape(text: str) -> str:
    """No text may turn into markup: names come from users. Underscores inside words never do."""
    return _SPECIAL.sub(r"\\\1\2\3", plain(text))
