# SPDX-License-Identifier: Apache-2.0
"""What a baseline has and a project hasn't, and the other way round."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeprune.check.case import Case, Subject, told
from edgeprune.check.judging import judged
from edgeprune.gate.judged import Judged, Place
from edgeprune.project import LOCK
from edgeprune.report.text import plain

__all__ = ["ACCEPT", "gone", "unaccepted"]

ACCEPT = "`edgeprune baseline accept`"


def gone(cases: Sequence[Case], here: Path) -> tuple[Judged, ...]:
    """What a baseline has and a result or the project hasn't any more; nothing else tells it."""
    found = []
    seen = set()
    for case in cases:
        owner = (case.model, None if case.target is None else case.target.name)
        if case.model is None or (case.result is None and owner in seen):
            continue
        seen.add(owner)
        for path, reason in _gone(case):
            found.append(
                Judged(
                    rule="baseline/missing",
                    model=case.model,
                    target=case.left_over or owner[1],
                    artifact=told(path, here),
                    outcome="fail",
                    reason=f"{reason}, or accept that with {ACCEPT}.",
                    place=_place(case),
                )
            )
    return tuple(found)


def _gone(case: Case) -> Iterator[tuple[Path, str]]:
    """Paths, and what became of them."""
    names = case.limits.accepted
    if case.left_over:
        for name in names:
            reason = (
                f"The baseline has {plain(name)} of {plain(case.model or '')} for "
                f"{plain(case.left_over)}, and the project hasn't that model and target any more: "
                "put them back"
            )
            yield case.path, reason
        return
    there = case.limits.lock.listed
    folder, whose = case.path.parent, "the project file"
    if case.result is not None:
        there, whose = frozenset(a.file for a in case.result.manifest.artifacts), "the result"
    for name in names:
        if there is not None and name not in there:
            reason = f"The baseline has {plain(name)}, and {whose} hasn't any more: put it back"
            yield folder / name, reason


def _place(case: Case) -> Place | None:
    """The line of the first limit on growth."""
    places = case.limits.places
    keys = (f"baseline/{key}" for key in type(case.limits.growth).model_fields)
    return next((places[key] for key in keys if key in places), None)


def unaccepted(subject: Subject) -> Judged:
    """Nothing was accepted for it, so there is nothing that it could be held against."""
    case, lock = subject.case, subject.case.limits.lock
    name, model = plain(subject.name), plain(case.model or "")
    if lock.was_there:
        why = f"{LOCK} isn't there, and a commit has it: put it back, or take"
    elif lock.version is None:
        why = f"Nothing is accepted yet, and the project sets limits against it: there is no {LOCK}"
        why += " beside the project file. Take"
    elif case.limits.accepted:
        why = f"The baseline of {model} has no {name}: take"
    else:
        others = [plain(other) for other in lock.known if other != case.model]
        has = f" (it has {', '.join(others[:5])})" if others else ""
        why = f"The baseline has nothing of {model} for this target{has}: take"
    reason = f"{why} the present figures with {ACCEPT}, and commit {LOCK}."
    return judged(subject, "baseline/missing", "fail", reason, place=_place(case))
