# SPDX-License-Identifier: Apache-2.0
"""A check's report as GitHub's and GitLab's Markdown: for a job's summary or a comment."""

import re
from collections.abc import Sequence

from edgeprune.gate.judged import CheckReport, Judged
from edgeprune.report.check.words import OUTCOMES, answer, end, limit, owner, path, start
from edgeprune.report.text import plain, spread

__all__ = ["code", "markdown", "prose"]

_ROOM = 60_000
"""Characters; a comment on GitHub takes 65,536."""
_NAME, _TEXT = 200, 1000
_HEAD = (
    "| outcome | model | rule | artifact | figure | limit | baseline |",
    "| --- | --- | --- | --- | ---: | ---: | ---: |",
)
_MARKUP = re.compile(r"[\\`*{}\[\]<>|~#&$@!]|(?<![^\W_])_|_(?![^\W_])|(?<=\w):(?=//)")
_LINK = re.compile(r"(?<=\bwww)\.", re.IGNORECASE)
_REFERENCE = re.compile(r"(?<=[@#!$~%&^])(?=[\w\"])")


def markdown(report: CheckReport) -> str:
    """The verdict, a table of what didn't pass, the reasons, and a folded table of the rest."""
    open_ = [judged for judged in report.judged if judged.outcome != "pass"]
    passed = [judged for judged in report.judged if judged.outcome == "pass"]
    parts = ["## edgeprune check", f"**{prose(answer(report))}**"]
    room = _ROOM
    if open_:
        parts.append(_rows(_HEAD, [_row(judged) for judged in open_], room // 3))
        reasons = [_reason(judged) for judged in (*report.failed, *report.warnings)]
        parts.append(_rows((), reasons, room // 3))
    if report.notes:
        parts.append(_rows((), [f"- {prose(note)}" for note in report.notes], room // 12))
    if passed:
        table = _rows(_HEAD, [_row(judged) for judged in passed], room // 6)
        parts.append(f"<details><summary>{len(passed)} passed</summary>\n\n{table}\n\n</details>")
    parts.append(f"<sub>edgeprune {prose(report.edgeprune)}, {prose(report.when)}</sub>")
    return "\n\n".join(parts) + "\n"


def _rows(head: Sequence[str], rows: Sequence[str], room: int) -> str:
    """As many lines as there is room for, and how many are left out."""
    shown, used = list(head), 0
    for place, row in enumerate(rows):
        used += len(row) + 1
        if used > room:
            return "\n".join((*shown, "", f"… and {len(rows) - place} more."))
        shown.append(row)
    return "\n".join(shown)


def _row(judged: Judged) -> str:
    outcome = OUTCOMES[judged.outcome]
    cells = (
        outcome if judged.outcome == "pass" else f"**{outcome}**",
        prose(owner(judged)),
        judged.rule,
        code(judged.artifact),
        prose(spread(judged.figure)),
        prose(limit(judged)),
        prose(spread(judged.baseline)),
    )
    return f"| {' | '.join(cells)} |"


def _reason(judged: Judged) -> str:
    parts = [f"- **{judged.rule}** of {code(judged.artifact)}: {prose(judged.reason)}"]
    if judged.blame:
        parts.append(f"Grew most: {'; '.join(map(code, judged.blame))}.")
    if judged.place is not None:
        parts.append(f"The limit stands in {code(path(judged.place.file))}:{judged.place.line}.")
    return " ".join(parts)


def prose(text: str) -> str:
    """Text in which nothing is markup, a link, or a word to anybody: names come from anywhere.

    An ``@`` calls people and a ``#`` refers to an issue even where they are escaped, so an
    invisible space parts them from what follows.
    """
    parted = _REFERENCE.sub("\u200b", start(plain(text), _TEXT))
    return _escape(parted)


def code(text: str) -> str:
    """A name as code, in which nobody is called; HTML, as a pipe in back-ticks parts cells."""
    return f"<code>{_escape(end(plain(text), _NAME))}</code>"


def _escape(text: str) -> str:
    escaped = _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)
    return _LINK.sub("&#46;", escaped)
