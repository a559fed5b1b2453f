# SPDX-License-Identifier: Apache-2.0
"""A whole check: cases in, a report out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgeprune import __version__
from edgeprune.check.baseline import against_baseline
from edgeprune.check.case import Case, Subject, check_sizes, open_notes, told
from edgeprune.check.fits import against_target
from edgeprune.check.limits import Answer, against_budgets
from edgeprune.check.measuring import Measuring, measured
from edgeprune.check.missing import gone
from edgeprune.check.subjects import read_all
from edgeprune.gate.judged import CheckReport, Judged
from edgeprune.report.text import plain, show

__all__ = ["Rules", "check"]


@dataclass(frozen=True)
class Rules:
    """What makes a check fail."""

    strict: bool = False
    allow_unmeasured: bool = False


def check(
    cases: tuple[Case, ...],
    here: Path,
    rules: Rules,
    measuring: Measuring | None = None,
    sizes: Mapping[str, int] | None = None,
) -> CheckReport:
    """Judge every case by its manifest, its budgets and its baseline.

    Args:
        cases: From ``gather``.
        here: What the paths in the report are relative to.
        rules: What is a failure.
        measuring: How to measure latency and memory anew; ``None``: not at all.
        sizes: Those of the request, each of which some file must leave open.

    Raises:
        InputError: A file is no model file, or a damaged one, or can't be measured; or no file has
            an open size of a name in ``sizes``.
        DeviceError: The device can't be reached.
    """

    def judge(subjects: tuple[Subject, ...]) -> Answer:
        return _judge(subjects, rules)

    read = read_all(cases, here)
    subjects, notes = read.subjects, tuple[str, ...]()
    check_sizes(subjects, sizes or {})
    if measuring is not None:
        subjects, notes = measured(subjects, measuring, judge)
    answer = judge(subjects)
    return CheckReport(
        judged=(*read.judged, *answer.judged, *gone(cases, here)),
        strict=rules.strict,
        allow_unmeasured=rules.allow_unmeasured,
        notes=tuple(
            dict.fromkeys(
                (
                    *_hidden(cases, here),
                    *notes,
                    *answer.notes,
                    *_unjudged(subjects, answer.judged),
                    *open_notes(subjects),
                )
            )
        ),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        edgeprune=__version__,
    )


def _judge(subjects: tuple[Subject, ...], rules: Rules) -> Answer:
    judged: list[Judged] = []
    notes: list[str] = []
    for subject in subjects:
        for answer in (
            Answer(tuple(against_target(subject))),
            against_budgets(subject, strict=rules.strict),
            against_baseline(subject),
        ):
            judged += answer.judged
            notes += answer.notes
    return Answer(tuple(judged), tuple(notes))


def _hidden(cases: tuple[Case, ...], here: Path) -> list[str]:
    """Targets that the project itself says what they allow."""
    return [
        f"{case.target.name} is judged by {plain(told(case.hiding, here))}, which goes before the "
        "target of that name that comes with edgeprune."
        for case in cases
        if case.hiding is not None and case.target is not None
    ]


def _unjudged(subjects: tuple[Subject, ...], judged: tuple[Judged, ...]) -> list[str]:
    """What files hold for which there is no limit at all."""
    known = {each.artifact for each in judged}
    return [
        f"{subject.shown}: no limit is set for it (--target, --max-size or a project file); it has "
        + ", ".join(
            f"{key.replace('_', ' ')} {show(subject.counted[key])}"
            for key in ("bytes", "parameters", "macs", "arena_estimate")
            if key in subject.counted
        )
        for subject in subjects
        if subject.shown not in known
    ]
