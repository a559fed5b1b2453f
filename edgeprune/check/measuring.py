# SPDX-License-Identifier: Apache-2.0
"""Latency and memory measured anew for a check, longer where the first answer is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgeprune.artifact.source import digest
from edgeprune.check.case import COUNTED
from edgeprune.check.subjects import machine_of
from edgeprune.errors import InputError
from edgeprune.gate.lock import Machine
from edgeprune.recipe import ProfileOptions

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprune.check.case import Subject
    from edgeprune.check.limits import Answer
    from edgeprune.figure import Figure
    from edgeprune.measure.profile import Reached
    from edgeprune.measure.reference import Referenced
    from edgeprune.measure.result import Profile
    from edgeprune.progress import Progress
    from edgeprune.target import Target

__all__ = ["LOOKS", "Measuring", "measured"]

LOOKS = 2
"""Times at most that the ratio to the reference model is measured for one verdict, which is made
harder by as much (``judge_growth``); times and memory are measured as often as time allows."""
_LONGER = 2
"""Times as many blocks with each repetition of times and memory."""
_LEAST = 2.0
"""Seconds that a file needs beside the reference model; with less not one run is done."""
_KEPT = (*COUNTED, "score", "drop")
"""Figures that measuring again doesn't give."""
_WITH_AGENT = ("local", "ssh")


@dataclass(frozen=True)
class Measuring:
    """How to measure."""

    at: Callable[[Target | None], Reached]
    """The device for a target."""
    progress: Progress
    options: ProfileOptions = field(default_factory=ProfileOptions)
    """``time_limit`` is that of each target's artifacts, all repetitions together."""
    everything: bool = False
    """Also what no limit is about: for a baseline."""


def measured(
    subjects: tuple[Subject, ...],
    measuring: Measuring,
    judge: Callable[[tuple[Subject, ...]], Answer],
) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    """The artifacts with figures of now, and remarks.

    Latency and memory are measured where a budget or the growth of memory is limited, the ratio to
    the reference model where the growth of latency is. Where ``judge`` finds a figure inconclusive
    it is measured again as long as the time limit lets it be: latency and memory twice as long each
    time, judged by the last measurement alone; the ratio once more, judged by both.

    Raises:
        InputError: A runtime refuses a file, the device lacks something, or a file was replaced
            meanwhile.
        DeviceError: The device can't be reached.
    """
    done: list[Subject] = []
    notes: list[str] = []
    for group in _groups(map(_bare, subjects)):
        work = _Work(group, measuring)
        done += work.repeat(judge)
        notes += work.notes()
    for subject in done:
        if digest(subject.path) != subject.sha256:
            raise InputError(f"{subject.shown}: changed while it was measured; do it again")
    return tuple(done), tuple(notes)


class _Work:
    """Measures the artifacts of one model and target, which take turns."""

    def __init__(self, group: Sequence[Subject], measuring: Measuring) -> None:
        self._group = group
        self._measuring = measuring
        self._target = group[0].case.target
        self._at = measuring.at(self._target)
        self._options = measuring.options
        self._end = time.monotonic() + measuring.options.time_limit
        self._profile: Profile | None = None
        self._looks: list[Referenced] = []
        self._late: tuple[str, ...] = ()

    def repeat(self, judge: Callable[[tuple[Subject, ...]], Answer]) -> tuple[Subject, ...]:
        """Measure until nothing is open, or the time is over."""
        wanted = self._wanted()
        now = tuple(self._group)
        while wanted:
            start = time.monotonic()
            self._measure(wanted)
            now = tuple(self._with_ratios(self._with_profile(each)) for each in self._group)
            took, left = time.monotonic() - start, self._end - time.monotonic()
            wanted = self._open(judge(now)) & wanted
            if wanted and left < _LONGER * took:
                break
            if wanted:
                self._measuring.progress.say("> inconclusive: measuring again")
        return now

    def notes(self) -> tuple[str, ...]:
        """What couldn't be measured, and what disturbed it."""
        notes: list[str] = []
        if self._profile is not None:
            if self._profile.refused is not None and self._target is not None:
                notes.append(f"No evidence for {self._target.name}: {self._profile.refused}.")
            missing = (each for each in self._profile.not_measured if _is_judged(each))
            notes += [*missing, *self._profile.notes]
        for look in self._looks:
            notes += look.not_measured
        notes += self._late
        if not self._has_agent and "ratio" in self._wanted():
            notes.append(
                f"{self._at.named.address}: no ratio to the reference model is measured there."
            )
        return tuple(notes)

    @property
    def _has_agent(self) -> bool:
        return self._at.named.address.kind in _WITH_AGENT

    def _wanted(self) -> set[str]:
        """What the limits are about: ``profile``, ``ratio``, both or none."""
        if self._measuring.everything:
            return {"profile", "ratio"}
        limits = self._group[0].case.limits
        absolute = (limits.budgets.latency, limits.budgets.memory, limits.growth.memory)
        wanted = {"profile"} if any(each is not None for each in absolute) else set()
        return wanted | ({"ratio"} if limits.growth.latency is not None else set())

    def _measure(self, wanted: set[str]) -> None:
        # Not before: a check that measures nothing starts without what reaches devices.
        from edgeprune.measure.profile import profile
        from edgeprune.measure.reference import TIME_LIMIT, measure_reference
        from edgeprune.measure.result import Conditions

        say, name = self._measuring.progress.say, self._at.named.name
        files = {each.shown: each.path.absolute() for each in self._group}
        if "profile" in wanted:
            say(f"> measure latency and memory of {len(files)} files on {name}")
            threads = 1 if self._target is None else self._target.threads
            share = self._left() / (2 if "ratio" in wanted and self._has_agent else 1)
            self._profile = profile(
                files,
                self._options.model_copy(update={"time_limit": share}),
                Conditions(threads, sizes=self._group[0].case.sizes),
                self._at,
                target=self._target,
                progress=self._measuring.progress,
            )
            more = {"blocks": _LONGER * self._options.blocks}
            self._options = self._options.model_copy(update=more)
        if "ratio" in wanted and self._has_agent and self._left() < _LEAST * len(files):
            self._late = tuple(
                f"{name}: latency_reference: the time limit left no time for it" for name in files
            )
        elif "ratio" in wanted and self._has_agent:
            say(f"> compare {len(files)} files with the reference model on {name}")
            # One thread, whatever the target: then it is CPU time, which other work hardly changes.
            self._looks.append(
                measure_reference(
                    files,
                    Conditions(1, sizes=self._group[0].case.sizes),
                    self._at,
                    time_limit=min(self._left(), TIME_LIMIT),
                    progress=self._measuring.progress,
                )
            )

    def _left(self) -> float:
        return max(1.0, self._end - time.monotonic())

    def _open(self, answer: Answer) -> set[str]:
        """What measuring longer may decide."""
        found = set()
        for each in answer.judged:
            figure = each.figure
            if each.outcome != "inconclusive" or figure is None:
                continue
            if each.rule == "baseline/latency" and figure.unit == "x":
                found |= {"ratio"} if self._has_agent and len(self._looks) < LOOKS else set()
            elif figure.origin.kind == "measured":
                found.add("profile")
        return found

    def _with_profile(self, subject: Subject) -> Subject:
        """The artifact with times and memory; of the target itself, or apart from that."""
        found = self._profile
        if found is None:
            return subject
        figures: Mapping[str, Figure] = found.figures.get(subject.shown, {})
        new = {key: figure for key, figure in figures.items() if key != "bytes"}
        target, local = self._target, self._at.named.address.kind == "local"
        evidence = found.refused is None and (
            target is None or target.reach.how == "local" or not local
        )
        return replace(
            subject,
            figures={**subject.figures, **new},
            device=new if evidence else None,
            machine=machine_of(new) or subject.machine,
        )

    def _with_ratios(self, subject: Subject) -> Subject:
        name = subject.shown
        ratios = tuple(look.figures[name] for look in self._looks if name in look.figures)
        if not ratios:
            return subject
        last = next(look for look in reversed(self._looks) if name in look.figures)
        return replace(
            subject,
            figures={**subject.figures, "latency_reference": ratios[-1]},
            ratios=ratios,
            machine=Machine(description=last.machine, fingerprint=last.fingerprints[name]),
        )


def _bare(subject: Subject) -> Subject:
    """The artifact without what was measured before, which this check is to do itself."""
    kept = {key: figure for key, figure in subject.figures.items() if key in _KEPT}
    return replace(subject, figures=kept, device=None, machine=None, anew=True)


def _is_judged(missing: str) -> bool:
    """Whether a check is about what is missing: there is no budget for energy."""
    return not missing.startswith("energy") and ": energy:" not in missing


def _groups(subjects: Iterable[Subject]) -> list[list[Subject]]:
    groups: dict[tuple[str | None, str | None, Path | None], list[Subject]] = {}
    for subject in subjects:
        case = subject.case
        target = None if case.target is None else case.target.name
        folder = case.path if case.result is not None else None
        groups.setdefault((case.model, target, folder), []).append(subject)
    return list(groups.values())
