# SPDX-License-Identifier: Apache-2.0
"""From cases to artifacts with their figures: of the file itself, and of the manifest beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edgeprune.artifact import digest, figures, read
from edgeprune.check import integrity
from edgeprune.check.case import COUNTED, Case, Result, Subject, is_there, sized, told
from edgeprune.figure import Figure, counted
from edgeprune.gate.judged import Judged
from edgeprune.gate.lock import Machine

__all__ = ["Read", "machine_of", "read_all"]

_OF_A_MACHINE = ("latency_p50", "memory_peak", "memory_model", "memory_wasm", "arena")


@dataclass(frozen=True)
class Read:
    """What the cases gave."""

    subjects: tuple[Subject, ...]
    judged: tuple[Judged, ...]
    """On manifests and missing files."""


def read_all(cases: tuple[Case, ...], here: Path) -> Read:
    """Read and hold together what is to be judged.

    Raises:
        InputError: A file that was named is no model file, or a damaged one.
    """
    subjects: list[Subject] = []
    judged: list[Judged] = []
    for case in cases:
        if case.left_over:
            continue  # told with what else the baseline has and the project hasn't
        if case.result is not None:
            found = integrity.inspect(case, here)
            judged += found.judged
            subjects += _of_result(case, case.result, found, here)
        elif not case.name or not is_there(case.path):
            judged.append(integrity.absent(case, here))
        else:
            subjects.append(_of_file(case, here))
    return Read(tuple(subjects), tuple(judged))


def machine_of(known: Mapping[str, Figure]) -> Machine | None:
    """The machine that figures were measured on, by what their origins say of it."""
    places = (known[key].origin.where for key in _OF_A_MACHINE if key in known)
    where = next((place for place in places if place), None)
    if where is None:
        return None
    return Machine(description=where, fingerprint=sha256(where.encode()).hexdigest()[:16])


def _of_result(case: Case, result: Result, found: integrity.Integrity, here: Path) -> list[Subject]:
    subjects = []
    for artifact in result.manifest.artifacts:
        name = artifact.file
        if name not in found.hashes:
            continue
        path = result.folder / name
        own: dict[str, Figure] = {}
        device = None
        if name in found.genuine:  # else the manifest's figures are about another file
            own = _uncounted(result.manifest.figures.get(name, {}))
            device = _evidence(case, result, name)
            if device is None and result.manifest.device is not None:  # of another machine
                own |= _uncounted(result.manifest.device.figures.get(name, {}))
        size = found.sizes.get(name, path.stat().st_size)
        own["bytes"] = counted(size, "B", "size of the file")
        known = {**own, **(device or {})}
        shown = told(path, here)
        subjects.append(
            Subject(case, path, name, shown, found.hashes[name], own, device, machine_of(known))
        )
    return subjects


def _evidence(case: Case, result: Result, name: str) -> dict[str, Figure] | None:
    """What counts for the target's own budgets: as `edgeprune compress` judges them."""
    device = result.manifest.device
    if device is not None:
        known = _uncounted(device.figures.get(name, {}))
        places = filter(None, ((f.origin.where or "").strip() for f in known.values()))
        board = case.target is None or all(case.target.device.may_be(at) for at in places)
        return known if board and device.refused is None else None
    local = case.target is not None and case.target.reach.how == "local"
    return _uncounted(result.manifest.figures.get(name, {})) if local else None


def _uncounted(stated: Mapping[str, Figure]) -> dict[str, Figure]:
    """The figures of a manifest that its file doesn't tell itself."""
    return {key: figure for key, figure in stated.items() if key not in COUNTED}


def _of_file(case: Case, here: Path) -> Subject:
    known = sized(read(case.path), case.sizes)
    counted_there = figures(known)
    subject = Subject(
        case,
        case.path,
        case.name,
        told(case.path, here),
        digest(case.path),
        counted_there,
    )
    subject.__dict__.update(contents=known, counted=counted_there)  # read once
    return subject
