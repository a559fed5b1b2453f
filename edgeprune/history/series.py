# SPDX-License-Identifier: Apache-2.0
"""From versions of the lock file to what is shown of them: quantities by artifact."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeprune.errors import InputError, nearest
from edgeprune.figure import Figure
from edgeprune.gate.lock import Accepted
from edgeprune.history.revisions import Version
from edgeprune.report.check import Point

__all__ = ["QUANTITIES", "Row", "Series", "series"]

SIZE, LATENCY, RATIO, MEMORY = "size", "latency", "latency to reference", "memory"
ACCURACY, AGREEMENT, FIDELITY = "accuracy", "agreement", "fidelity"
QUANTITIES = (SIZE, LATENCY, RATIO, MEMORY, ACCURACY, AGREEMENT, FIDELITY)
_KEYS = {
    "bytes": SIZE,
    "latency_p50": LATENCY,
    "latency_reference": RATIO,
    "memory_peak": MEMORY,
    "memory_wasm": MEMORY,
    "arena": MEMORY,
    "score": ACCURACY,
}
_OF_A_MACHINE = (LATENCY, RATIO, MEMORY)


@dataclass(frozen=True)
class Row:
    """One artifact as one commit had it."""

    version: Version
    model: str
    target: str
    artifact: str
    accepted: Accepted
    figures: Mapping[str, Figure]
    """By quantity."""

    @property
    def name(self) -> str:
        """``classifier for rpi4: model.onnx``."""
        return f"{self.model} for {self.target}: {self.artifact}"


@dataclass(frozen=True)
class Series:
    """What a table and a plot show, from the oldest commit to the newest."""

    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    notes: tuple[str, ...]


def series(
    versions: Sequence[Version], *, model: str | None = None, target: str | None = None
) -> Series:
    """Rows and points of all artifacts, or of those of one model or target.

    An absolute latency is a point of the plot only where it is of the machine that the newest
    latency of its artifact is of: a line from one machine to another would show a change that no
    artifact had. The table shows all of them, and the ratio to the reference model has no such
    limit.

    Raises:
        InputError: No version has that model or target.
    """
    found = [row for version in versions for row in _rows(version)]
    _known("--model", model, {row.model for row in found})
    _known("--target", target, {row.target for row in found})
    rows = tuple(
        row for row in found if model in (None, row.model) and target in (None, row.target)
    )
    machines = {row.name: _machine(row) for row in rows if LATENCY in row.figures}
    figures: dict[str, dict[str, Mapping[str, Figure]]] = {v.commit: {} for v in versions}
    left_out = set()
    for row in rows:
        shown = dict(row.figures)
        if LATENCY in shown and _machine(row) != machines[row.name]:
            del shown[LATENCY]
            left_out.add(row.version.commit)
        figures[row.version.commit][row.name] = shown
    points = tuple(Point(v.commit, v.when, figures[v.commit]) for v in versions)
    notes = [*_places(rows), *([_elsewhere(len(left_out))] if left_out else [])]
    return Series(rows, points, tuple(notes))


def _places(rows: Sequence[Row]) -> list[str]:
    """On what was measured; it need not be the device that a target is for."""
    found = (
        row.figures[key].origin.where for row in rows for key in _OF_A_MACHINE if key in row.figures
    )
    places = dict.fromkeys(place for place in found if place)
    return [f"latency and memory were measured on: {place}" for place in places]


def _elsewhere(commits: int) -> str:
    return (
        f"latency of {commits} commit{'s' if commits > 1 else ''} was measured on another machine "
        "than the newest and is not plotted; the ratio to the reference model is"
    )


def _machine(row: Row) -> str | None:
    return None if row.accepted.machine is None else row.accepted.machine.fingerprint


def _known(option: str, name: str | None, names: set[str]) -> None:
    if name is not None and name not in names:
        known = ", ".join(sorted(names)) or "none"
        raise InputError(f"{option} {name}: no commit has it{nearest(name, names)}; known: {known}")


def _rows(version: Version) -> Iterator[Row]:
    for model, targets in version.lock.models.items():
        for target, artifacts in targets.items():
            for artifact, accepted in artifacts.items():
                figures = _quantities(accepted)
                yield Row(version, model, target, artifact, accepted, figures)


def _quantities(accepted: Accepted) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for key, quantity in _KEYS.items():
        figure = accepted.figures.get(key)
        if figure is None:
            continue
        found.setdefault(_scored(figure) if key == "score" else quantity, figure)
    return {quantity: found[quantity] for quantity in QUANTITIES if quantity in found}


def _scored(figure: Figure) -> str:
    """What a score is: without labels it is a comparison with the dense model, no accuracy."""
    compared = (name for name in (AGREEMENT, FIDELITY) if figure.origin.how.startswith(name))
    return next(compared, ACCURACY)
