# SPDX-License-Identifier: Apache-2.0
"""Latency and memory measured anew for a check, longer where the first answer is open."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgeprune.check.subjects import machine_of
from edgeprune.recipe import ProfileOptions

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprune.check.case import Subject
    from edgeprune.check.limits import Answer
    from edgeprune.figure import Figure
    from edgeprune.measure.profile import Reached
    from edgeprune.measure.result import Profile
    from edgeprune.progress import Progress
    from edgeprune.target import Target

__all__ = ["Measuring", "measured"]

_LONGER = 2
"""Times as many blocks with each repetition."""


@dataclass(frozen=True)
class Measuring:
    """How to measure."""

    at: Callable[[Target | None], Reached]
    """The device for a target."""
    progress: Progress
    options: ProfileOptions = field(default_factory=ProfileOptions)
    """``time_limit`` is that of each target's artifacts, all repetitions together."""


def measured(
    subjects: tuple[Subject, ...],
    measuring: Measuring,
    judge: Callable[[tuple[Subject, ...]], Answer],
) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    """The artifacts with figures of now, and remarks.

    Where ``judge`` finds a measured figure inconclusive, all artifacts of the target are measured
    again, with twice as many blocks each time, as long as the time limit lets them be. Each time
    judges its own blocks alone.

    Raises:
        InputError: A runtime refuses a file, or the device lacks something.
        DeviceError: The device can't be reached.
    """
    done: list[Subject] = []
    notes: list[str] = []
    for group in _groups(subjects):
        new, more = _group(group, measuring, judge)
        done += new
        notes += more
    return tuple(done), tuple(notes)


def _group(
    group: Sequence[Subject],
    measuring: Measuring,
    judge: Callable[[tuple[Subject, ...]], Answer],
) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    options = measuring.options
    end = time.monotonic() + options.time_limit
    while True:
        start = time.monotonic()
        found, at = _once(group, measuring, options)
        now = tuple(_with(subject, found, at) for subject in group)
        took, left = time.monotonic() - start, end - time.monotonic()
        if not _is_open(judge(now)) or left < _LONGER * took:
            return now, _remarks(group, found)
        measuring.progress.say("> inconclusive: measuring again, twice as long")
        options = options.model_copy(
            update={"blocks": _LONGER * options.blocks, "time_limit": left}
        )


def _once(
    group: Sequence[Subject], measuring: Measuring, options: ProfileOptions
) -> tuple[Profile, Reached]:
    # Not before: a check that measures nothing starts without what reaches devices.
    from edgeprune.measure.profile import profile
    from edgeprune.measure.result import Conditions

    target = group[0].case.target
    at = measuring.at(target)
    measuring.progress.say(f"> measure {len(group)} files on {at.named.name}")
    threads = 1 if target is None else target.threads
    found = profile(
        {subject.shown: subject.path.absolute() for subject in group},
        options,
        Conditions(threads),
        at,
        target=target,
        progress=measuring.progress,
    )
    return found, at


def _with(subject: Subject, found: Profile, at: Reached) -> Subject:
    """The artifact with what was found; on the target itself, or as something apart."""
    figures: Mapping[str, Figure] = found.figures.get(subject.shown, {})
    new = {key: figure for key, figure in figures.items() if key != "bytes"}
    target = subject.case.target
    local = at.named.address.kind == "local"
    evidence = found.refused is None and (
        target is None or target.reach.how == "local" or not local
    )
    old = {key: figure for key, figure in subject.figures.items() if key not in new}
    return replace(
        subject,
        figures={**old, **new},
        device=new if evidence else subject.device,
        machine=machine_of(new) or subject.machine,
    )


def _remarks(group: Sequence[Subject], found: Profile) -> tuple[str, ...]:
    target = group[0].case.target
    refused: tuple[str, ...] = ()
    if found.refused is not None and target is not None:
        refused = (f"No evidence for {target.name}: {found.refused}.",)
    return (*refused, *found.not_measured, *found.notes)


def _is_open(answer: Answer) -> bool:
    """Whether measuring longer may decide something."""
    return any(
        each.outcome == "inconclusive"
        and each.figure is not None
        and each.figure.origin.kind == "measured"
        for each in answer.judged
    )


def _groups(subjects: Iterable[Subject]) -> list[list[Subject]]:
    """The artifacts of one model and target: they are measured in turns."""
    groups: dict[tuple[str | None, str | None, Path | None], list[Subject]] = {}
    for subject in subjects:
        case = subject.case
        target = None if case.target is None else case.target.name
        folder = case.path if case.result is not None else None
        groups.setdefault((case.model, target, folder), []).append(subject)
    return list(groups.values())
