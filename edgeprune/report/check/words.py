# SPDX-License-Identifier: Apache-2.0
"""What all forms of a check's report say in the same words."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import quote

from edgeprune.figure import counted
from edgeprune.gate.judged import ON_DEVICE, CheckReport, Judged
from edgeprune.gate.verdict import Outcome
from edgeprune.report.text import plain, show

__all__ = [
    "OUTCOMES",
    "State",
    "advice",
    "answer",
    "end",
    "fingerprints",
    "limit",
    "owner",
    "owners",
    "path",
    "start",
    "state",
    "summary",
    "uri",
]

OUTCOMES: dict[Outcome, str] = {
    "pass": "pass",
    "fail": "FAIL",
    "inconclusive": "inconclusive",
    "not measured": "not measured",
}
State = Literal["passed", "passed with warnings", "failed", "nothing judged"]
_TOLD: tuple[tuple[Outcome, str], ...] = (
    ("fail", "failed"),
    ("inconclusive", "inconclusive"),
    ("not measured", "not measured"),
    ("pass", "passed"),
)


def state(report: CheckReport) -> State:
    """The whole answer in a word or three."""
    if not report.judged:
        return "nothing judged"
    if report.failed:
        return "failed"
    return "passed with warnings" if report.warnings else "passed"


def answer(report: CheckReport) -> str:
    """The verdict in one line: ``FAILED: of 9 checks 1 failed, 1 inconclusive, 7 passed``."""
    found, total = state(report), len(report.judged)
    if found == "nothing judged":
        return "nothing was judged: no budget, baseline or manifest applies to these files"
    if found == "passed":
        return f"passed: {'the one check' if total == 1 else f'all {total} checks'} passed"
    counts = Counter(each.outcome for each in report.judged)
    parts = (f"{counts[outcome]} {said}" for outcome, said in _TOLD if counts[outcome])
    head = "FAILED" if found == "failed" else found
    return f"{head}: of {total} check{'s' if total > 1 else ''} {', '.join(parts)}{_why(report)}"


def _why(report: CheckReport) -> str:
    """Why something fails that didn't break its limit."""
    undecided = [each for each in report.failed if each.outcome != "fail"]
    if undecided and report.strict:
        return " (what is not decided fails with --strict)"
    if any(each.rule in ON_DEVICE for each in undecided):
        return " (what no device measured is no pass; --allow-unmeasured accepts it)"
    return ""


def owner(judged: Judged) -> str:
    """Whose it is: ``classifier for rpi4``; a file named on the command line has no model."""
    parts = (plain(part) for part in (judged.model, judged.target) if part)
    return " for ".join(part for part in parts if part) or "files"


def owners(report: CheckReport) -> dict[str, list[int]]:
    """The places in ``report.judged`` of each owner, in the order of their first."""
    places: dict[str, list[int]] = {}
    for place, judged in enumerate(report.judged):
        places.setdefault(owner(judged), []).append(place)
    return places


def limit(judged: Judged) -> str:
    """The limit as people read it, or a dash."""
    if judged.limit is None:
        return show(None)
    return show(counted(judged.limit, judged.unit, "limit"))


def summary(judged: Judged) -> str:
    """The reason, and the layers that are to blame, in one line."""
    blame = "; ".join(plain(layer) for layer in judged.blame)
    return f"{plain(judged.reason)}{f' Grew most: {blame}.' if blame else ''}"


def advice(judged: Judged) -> str:
    """``summary`` with its subject before it, for where nothing else names that."""
    return f"{plain(judged.name)}: {summary(judged)}"


def start(text: str, most: int) -> str:
    """At most ``most`` characters, from the beginning: for sentences."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def end(text: str, most: int) -> str:
    """At most ``most`` characters, from the end: the end of a long path tells more."""
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"


def fingerprints(judged: Sequence[Judged]) -> tuple[str, ...]:
    """What names each finding from run to run, whatever its figure is; no two are equal.

    Services show only the first of two findings with the same fingerprint.
    """
    seen: Counter[str] = Counter()
    prints = []
    for each in judged:
        key = "\0".join((each.rule, each.model or "", each.target or "", each.artifact))
        seen[key] += 1
        text = key if seen[key] == 1 else f"{key}\0{seen[key]}"
        prints.append(sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32])
    return tuple(prints)


def path(name: str) -> str:
    """A path as services match it with the repository's: no ``./`` before it, with ``/``."""
    return str(PurePosixPath(name))


def uri(name: str) -> str:
    """A path as a URI reference: relative as it is, or ``file:///``."""
    text = quote(path(name), safe="/", errors="backslashreplace")
    return f"file://{text}" if text.startswith("/") else text
