# SPDX-License-Identifier: Apache-2.0
"""The present figures as the new baseline."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeprune import __version__
from edgeprune.check.case import Case, Subject, check_sizes, edges_of, layers_of
from edgeprune.check.limits import Answer
from edgeprune.check.measuring import Measuring, measured
from edgeprune.check.subjects import read_all
from edgeprune.errors import CheckFailed
from edgeprune.figure import Figure
from edgeprune.gate.lock import Accepted, Lock

__all__ = ["accept", "present"]

_KEPT = (
    "bytes",
    "parameters",
    "macs",
    "int8_ops",
    "float_ops",
    "arena_estimate",
    "score",
    "drop",
    "latency_p50",
    "latency_p90",
    "latency_reference",
    "memory_peak",
    "memory_model",
    "memory_wasm",
    "arena",
)


def present(
    cases: tuple[Case, ...],
    here: Path,
    measuring: Measuring | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    """The artifacts of a project as they are now, and remarks.

    Args:
        cases: Of a project, from ``gather``.
        here: Where the command was run.
        measuring: How to measure them; ``None``: their manifests' figures are taken.
        sizes: Those of the request, each of which some file must leave open.

    Raises:
        CheckFailed: A manifest doesn't fit its files, or something is missing: that is no baseline.
        InputError: A file is no model file, or a damaged one.
        DeviceError: The device can't be reached.
    """
    read = read_all(cases, here)
    for judged in read.judged:
        if judged.outcome != "pass":
            raise CheckFailed(f"{judged.name}: {judged.reason} That can't be accepted.")
    check_sizes(read.subjects, sizes or {})
    if measuring is None:
        return read.subjects, ()
    return measured(read.subjects, replace(measuring, everything=True), lambda _: Answer(()))


def accept(
    subjects: tuple[Subject, ...], before: Lock | None, *, whole: bool, reason: str, when: str
) -> Lock:
    """The lock file with these artifacts in it.

    Args:
        subjects: From ``present``; each has a model and a target.
        before: The lock file so far.
        whole: Whether ``subjects`` are all of the project; else all others stay as they are.
        reason: In the words of who accepts.
        when: ISO 8601, UTC.
    """
    models: dict[str, dict[str, dict[str, Accepted]]] = {}
    if before is not None and not whole:
        models = {model: dict(targets) for model, targets in before.models.items()}
    fresh: set[tuple[str, str]] = set()
    for subject in subjects:
        model, target = subject.case.model, subject.case.target
        assert model is not None
        assert target is not None
        targets = models.setdefault(model, {})
        if (model, target.name) not in fresh:
            fresh.add((model, target.name))
            targets[target.name] = {}
        targets[target.name][subject.name] = _accepted(subject)
    return Lock(accepted=when, reason=reason, edgeprune=__version__, models=models)


def _accepted(subject: Subject) -> Accepted:
    known: dict[str, Figure] = {**subject.counted, **subject.known}
    inputs, outputs = edges_of(subject.contents)
    return Accepted(
        sha256=subject.sha256,
        figures={key: known[key] for key in _KEPT if key in known},
        inputs=inputs,
        outputs=outputs,
        layers=layers_of(subject.contents),
        machine=subject.machine,
    )
