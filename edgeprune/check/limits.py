# SPDX-License-Identifier: Apache-2.0
"""Each artifact against its budgets."""

from typing import Literal, NamedTuple

from edgeprune.check.blame import blame
from edgeprune.check.case import Subject, layers_of
from edgeprune.check.judging import judged
from edgeprune.errors import InputError
from edgeprune.gate.budgets import judge
from edgeprune.gate.judged import Judged, Rule
from edgeprune.gate.verdict import Verdict
from edgeprune.target import Target, find_target

__all__ = ["Answer", "against_budgets", "grown"]

_RULES: dict[str, Rule] = {
    "size": "budget/size",
    "latency": "budget/latency",
    "memory": "budget/memory",
    "drop": "budget/drop",
}


class Answer(NamedTuple):
    """Verdicts, and remarks on what has none."""

    judged: tuple[Judged, ...]
    notes: tuple[str, ...] = ()


def against_budgets(subject: Subject, *, strict: bool = False) -> Answer:
    """Judge one artifact by each budget that holds for it.

    Of a file that edgeprune didn't make only what it shows is judged by the target's own budgets;
    what somebody asked for is a verdict in any case, and with ``strict`` so is all the rest.
    """
    case = subject.case
    target = case.target or _nowhere()
    device = None if subject.device is None else {subject.shown: subject.device}
    verdicts = judge(
        case.limits.budgets, {subject.shown: subject.figures}, target=target, device=device
    )
    foreign = case.result is None and not strict
    silent = [
        verdict.budget
        for verdict in verdicts
        if foreign and verdict.outcome == "not measured" and verdict.budget not in case.limits.asked
    ]
    found = [_judged(subject, each) for each in verdicts if each.budget not in silent]
    notes = []
    if silent:
        notes.append(
            f"{subject.shown}: {', '.join(silent)} of {target.name} "
            f"{'isn' if len(silent) == 1 else 'aren'}'t judged: a file alone doesn't tell "
            "(--measure tells latency and memory, a manifest of edgeprune compress all)."
        )
    return Answer(tuple(found), tuple(notes))


def grown(subject: Subject, by: Literal["bytes", "macs"]) -> tuple[str, ...]:
    """The layers that grew most against the baseline; none where it has none."""
    accepted = subject.case.limits.accepted.get(subject.name)
    if accepted is None or not accepted.layers:
        return ()
    try:
        after = layers_of(subject.contents)
    except InputError:
        return ()
    return blame(accepted.layers, after, by)


def _nowhere() -> Target:
    """For files of no target: only its name is told, and its own limits aren't used."""
    return find_target("host")


def _judged(subject: Subject, verdict: Verdict) -> Judged:
    rule = _RULES[verdict.budget]
    accepted = subject.case.limits.accepted.get(subject.name)
    return judged(
        subject,
        rule,
        verdict.outcome,
        verdict.reason,
        unit=verdict.unit,
        figure=verdict.figure,
        limit=verdict.limit,
        baseline=accepted.figures.get("bytes") if accepted and rule == "budget/size" else None,
        blame=_blame(subject, verdict) if verdict.outcome == "fail" else (),
    )


def _blame(subject: Subject, verdict: Verdict) -> tuple[str, ...]:
    if verdict.budget == "drop":
        return ()
    return grown(subject, "bytes" if verdict.budget == "size" else "macs")
