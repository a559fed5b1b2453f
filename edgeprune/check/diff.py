# SPDX-License-Identifier: Apache-2.0
"""What changed between two versions of artifacts: bytes, operators, layers, latency."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeprune.artifact import figures
from edgeprune.check.blame import Change, changes
from edgeprune.check.case import (
    MANIFEST,
    Case,
    Limits,
    Result,
    Subject,
    layers_of,
    open_notes,
    told,
)
from edgeprune.check.gather import found_in
from edgeprune.check.revisions import SKIPPED
from edgeprune.check.subjects import read_all
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged
from edgeprune.report.files import read_sealed

__all__ = ["Compared", "Diff", "FigureDiff", "Side", "compare", "side"]

_KEYS = (
    "bytes",
    "parameters",
    "macs",
    "arena_estimate",
    "int8_ops",
    "float_ops",
    "score",
    "latency_p50",
    "latency_reference",
    "memory_peak",
    "memory_wasm",
    "arena",
)
_OF_A_MACHINE = ("latency_p50", "memory_peak")


@dataclass(frozen=True)
class FigureDiff:
    """One figure on both sides; ``None`` where it isn't known."""

    key: str
    before: Figure | None
    after: Figure | None

    @property
    def elsewhere(self) -> bool:
        """Whether the two were measured on different machines, so that they can't be compared."""
        if self.key not in _OF_A_MACHINE or self.before is None or self.after is None:
            return False
        return self.before.origin.where != self.after.origin.where

    @property
    def growth(self) -> float | None:
        """After over before; ``None`` where that says nothing."""
        if self.before is None or self.after is None or self.elsewhere or not self.before.value:
            return None
        return self.after.value / self.before.value


@dataclass(frozen=True)
class Compared:
    """One artifact on both sides."""

    name: str
    """Path below what was named; of two single files the name of the second."""
    target: str
    """Empty where no manifest says one."""
    state: Literal["same", "changed", "new", "gone"]
    figures: tuple[FigureDiff, ...]
    kinds: Mapping[str, tuple[int, int]]
    """Operators by type, where their numbers differ."""
    layers: tuple[Change, ...]


@dataclass(frozen=True)
class Diff:
    """All artifacts, and remarks."""

    artifacts: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "artifacts": [_data(each) for each in self.artifacts],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Side:
    """The artifacts of one side by the name they are matched by."""

    subjects: Mapping[str, Subject]
    notes: tuple[str, ...] = field(default=())


def side(path: Path, here: Path, label: str, sizes: Mapping[str, int] | None = None) -> Side:
    """Read one side: a result, a folder of results or model files, or one file.

    Args:
        path: Where it is.
        here: What a path in a remark is relative to.
        label: How the user called it.
        sizes: Of dimensions that files leave open.

    Raises:
        InputError: It isn't there, or has no artifact, or a broken one.
    """
    cases = tuple(_case(each, sizes or {}) for each in found_in(path, label))
    read = read_all(cases, here)
    broken = [each for each in read.judged if each.outcome == "fail" and not _left_out(each)]
    notes = (
        *(f"{label}: {each.rule}: {each.reason}" for each in broken),
        *open_notes(read.subjects),
    )
    root = path if path.is_dir() else path.parent
    single = len(cases) == 1 and cases[0].result is None
    subjects = {"" if single else told(subject.path, root): subject for subject in read.subjects}
    return Side(subjects, notes)


def _left_out(judged: Judged) -> bool:
    """Whether it is about a file that no revision's copy has, and nothing here compares."""
    return judged.rule == "integrity/missing" and Path(judged.artifact).suffix in SKIPPED


def compare(before: Side, after: Side) -> Diff:
    """Hold two sides against each other, artifact by artifact."""
    names = [*after.subjects, *(name for name in before.subjects if name not in after.subjects)]
    found = (_compare(name, before.subjects.get(name), after.subjects.get(name)) for name in names)
    return Diff(tuple(found), (*before.notes, *after.notes))


def _case(path: Path, sizes: Mapping[str, int]) -> Case:
    if path.name != MANIFEST:
        return Case(path, Limits(), name=path.name, sizes=sizes)
    manifest, fits = read_sealed(path)
    return Case(path, Limits(), result=Result(path.parent, manifest, fits), sizes=sizes)


def _compare(name: str, before: Subject | None, after: Subject | None) -> Compared:
    some = after or before
    assert some is not None
    result = some.case.result
    old, new = _known(before), _known(after)
    kinds = [{} if each is None else dict(each.contents.counts.kinds) for each in (before, after)]
    same = before is not None and after is not None and before.sha256 == after.sha256
    both = before is not None and after is not None
    return Compared(
        name=name or some.path.name,
        target="" if result is None else result.manifest.target,
        state="same" if same else "changed" if both else "gone" if after is None else "new",
        figures=tuple(
            FigureDiff(key, old.get(key), new.get(key)) for key in _KEYS if key in old or key in new
        ),
        kinds={
            kind: (kinds[0].get(kind, 0), kinds[1].get(kind, 0))
            for kind in sorted(kinds[0].keys() | kinds[1].keys())
            if kinds[0].get(kind) != kinds[1].get(kind)
        },
        layers=changes(layers_of(before.contents), layers_of(after.contents))
        if before is not None and after is not None
        else (),
    )


def _known(subject: Subject | None) -> dict[str, Figure]:
    return {} if subject is None else {**figures(subject.contents), **subject.known}


def _data(each: Compared) -> dict[str, Any]:
    def told_of(figure: Figure | None) -> Any:
        return None if figure is None else figure.model_dump(mode="json")

    return {
        "name": each.name,
        "target": each.target or None,
        "state": each.state,
        "figures": {
            one.key: {
                "before": told_of(one.before),
                "after": told_of(one.after),
                "growth": one.growth,
                "comparable": not one.elsewhere,
            }
            for one in each.figures
        },
        "operators": {kind: list(pair) for kind, pair in each.kinds.items()},
        "layers": [
            {
                "before": None if one.before is None else one.before.model_dump(mode="json"),
                "after": None if one.after is None else one.after.model_dump(mode="json"),
            }
            for one in each.layers
        ],
    }
