# SPDX-License-Identifier: Apache-2.0
"""A check's report as GitHub's workflow commands: annotations at the line of the budget."""

from collections.abc import Mapping
from typing import Literal

from edgeprune.gate.judged import CheckReport, Judged
from edgeprune.report.check.words import answer, end, path, start, summary
from edgeprune.report.text import plain

__all__ = ["github"]

_SHOWN = 10
"""Annotations of one kind that GitHub shows for a step; the log has all."""
_TITLE, _MESSAGE = 200, 4000
"""Characters; GitHub takes 255 and 64 KB."""


def github(report: CheckReport) -> str:
    """One command a line: the failures, the warnings, and a notice with the verdict."""
    lines = [_finding("error", judged) for judged in report.failed]
    lines += [_finding("warning", judged) for judged in report.warnings]
    hidden = sum(max(0, len(kind) - _SHOWN) for kind in (report.failed, report.warnings))
    more = f"; {hidden} more than GitHub shows here are in the log" if hidden else ""
    lines += [_command("notice", {"title": "edgeprune check"}, note) for note in report.notes]
    lines.append(_command("notice", {"title": "edgeprune check"}, f"{answer(report)}{more}"))
    return "\n".join(lines) + "\n"


def _finding(kind: Literal["error", "warning"], judged: Judged) -> str:
    # The place of a budget that stands in no file is the artifact, which has no lines.
    place = judged.place
    where = {"file": _file(judged.artifact)}
    if place is not None:
        where = {"file": _file(place.file), "line": str(place.line)}
    if not where["file"]:
        where = {}
    return _command(kind, {**where, "title": end(plain(judged.name), _TITLE)}, summary(judged))


def _command(kind: str, properties: Mapping[str, str], message: str) -> str:
    stated = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{kind} {stated}::{_data(start(plain(message), _MESSAGE))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _file(name: str) -> str:
    """A path with its spaces as they are, or it wouldn't be found."""
    text = "".join(c if c.isprintable() else " " for c in path(name))
    return text if text.strip() else ""
