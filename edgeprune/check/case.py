# SPDX-License-Identifier: Apache-2.0
"""What is judged, by which limits: results of ``compress`` and files that anybody made."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from edgeprune.artifact import Artifact, Contents, contents, read
from edgeprune.artifact import figures as counted_of
from edgeprune.artifact.call import closed
from edgeprune.artifact.open_sizes import check_names, open_sizes
from edgeprune.artifact.source import shown
from edgeprune.errors import InputError
from edgeprune.figure import Figure
from edgeprune.gate.judged import Place
from edgeprune.gate.lock import Accepted, Edge, LayerSize, Machine
from edgeprune.project import Baseline
from edgeprune.report.schema import Manifest
from edgeprune.target import Budgets, Target

__all__ = [
    "COUNTED",
    "MANIFEST",
    "Baselined",
    "Case",
    "Limits",
    "Result",
    "Subject",
    "check_sizes",
    "edges_of",
    "is_there",
    "layers_of",
    "open_notes",
    "sized",
    "told",
]

MANIFEST = "manifest.json"
COUNTED = ("bytes", "parameters", "macs", "int8_ops", "float_ops", "arena_estimate")
"""Figures that the file itself tells, so that no manifest is believed for them."""


@dataclass(frozen=True)
class Baselined:
    """The project's lock file, as far as it concerns one model on one target."""

    version: int | None = None
    """Of its schema; ``None``: there is no such file."""
    was_there: bool = False
    """Whether there is none, but a commit has one."""
    known: tuple[str, ...] = ()
    """The models that it has for the target."""
    listed: frozenset[str] | None = None
    """The artifacts that the project file names; ``None``: a manifest lists them."""


@dataclass(frozen=True)
class Limits:
    """What holds for one model on one target."""

    budgets: Budgets = field(default_factory=Budgets)
    asked: frozenset[str] = frozenset()
    """Budgets that somebody set for these files, not for all that runs on the target: that nothing
    is known for one of them is told as a verdict, not as a note."""
    growth: Baseline = field(default_factory=Baseline)
    accepted: Mapping[str, Accepted] = field(default_factory=dict)
    """The committed baseline, by artifact."""
    lock: Baselined = field(default_factory=Baselined)
    """Whether there is a baseline at all."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Line of each limit, by its rule."""


@dataclass(frozen=True)
class Result:
    """A manifest, and whether its seal fits."""

    folder: Path
    manifest: Manifest
    sealed: bool


@dataclass(frozen=True)
class Case:
    """A result of ``compress``, or a file of anybody's, on one target."""

    path: Path
    """The manifest, or the file; it may be missing where a project names it."""
    limits: Limits
    target: Target | None = None
    model: str | None = None
    """Its name in the project file."""
    key: str = ""
    """Target as the project file writes it; empty outside projects."""
    result: Result | None = None
    name: str = ""
    """Of a file: its name in the baseline."""
    hiding: Path | None = None
    """The project's own file of a target, where it goes before a shipped one of that name."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of dimensions that an artifact leaves open, by their names."""
    left_over: str = ""
    """The name of a target that only the baseline has for the model: there is nothing to judge."""


@dataclass(frozen=True)
class Subject:
    """One artifact that is there, and what is known of it."""

    case: Case
    path: Path
    name: str
    """In the baseline: its file's name."""
    shown: str
    """Relative to where the command was run."""
    sha256: str
    figures: dict[str, Figure]
    """Of the file, and of the run that made it."""
    device: Mapping[str, Figure] | None = None
    """Measured on the target; ``None``: nothing was."""
    machine: Machine | None = None
    """Where latencies and memory come from."""
    ratios: tuple[Figure, ...] = ()
    """``latency_reference`` as this check measured it, once or again."""
    anew: bool = False
    """Whether latency and memory are of this check alone, and never of a manifest."""

    @cached_property
    def contents(self) -> Contents:
        """All that can be read off the file.

        Raises:
            InputError: It is no model file, or a damaged one.
        """
        return sized(read(self.path), self.case.sizes)

    @cached_property
    def damage(self) -> str | None:
        """Why a file of a result can't be read; of a file that was named, that is an error.

        Raises:
            InputError: The file was named, and is no model file, or a damaged one.
        """
        try:
            _ = self.contents
        except InputError as error:
            if self.case.result is None:
                raise
            return str(error)
        return None

    @cached_property
    def counted(self) -> Mapping[str, Figure]:
        """What is read off the file; ``macs`` and ``arena_estimate`` only if they can be told."""
        return counted_of(self.contents)

    @property
    def known(self) -> dict[str, Figure]:
        """All figures, those of the device over those of the run's machine."""
        known = {**self.figures, **(self.device or {})}
        return known | ({"latency_reference": self.ratios[-1]} if self.ratios else {})


def sized(artifact: Artifact, sizes: Mapping[str, int]) -> Contents:
    """What a file has, with those of the sizes that it leaves open."""
    known = open_sizes(artifact) if sizes else ()
    return contents(artifact, {name: size for name, size in sizes.items() if name in known})


def check_sizes(subjects: Sequence[Subject], sizes: Mapping[str, int]) -> None:
    """Hold the names of sizes against all files.

    Raises:
        InputError: No file leaves a size of such a name open.
    """
    if not sizes:
        return
    whole = [subject.contents.artifact for subject in subjects if subject.damage is None]
    check_names(whole, sizes)


def open_notes(subjects: Iterable[Subject]) -> list[str]:
    """Which sizes would have to be told for all to be counted."""
    return [
        f"{subject.shown}: {', '.join(shown(name) for name in missing)} "
        f"{'is' if len(missing) == 1 else 'are'} open, so its multiply-accumulates and activations "
        f"aren't known: tell the size, as with --size {shown(missing[0])}=320."
        for subject in subjects
        if subject.damage is None
        and subject.contents.counts.macs is None
        and (missing := subject.contents.bound.missing)
    ]


def layers_of(known: Contents) -> tuple[LayerSize, ...]:
    """The layers of a file as a baseline keeps them."""
    return tuple(
        LayerSize(
            name=layer.name,
            type=layer.type,
            parameters=layer.parameters,
            macs=layer.macs,
            bytes=layer.bytes,
        )
        for layer in known.counts.layers
    )


def edges_of(known: Contents) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
    """The inputs and outputs of a file as a baseline keeps them."""
    inputs, outputs = (
        tuple(
            Edge(
                name=tensor.name,
                shape=None if tensor.shape is None else closed(tensor.shape),
                dtype=tensor.dtype,
            )
            for tensor in tensors
        )
        for tensors in (known.inputs, known.outputs)
    )
    return inputs, outputs


def is_there(path: Path) -> bool:
    """Whether there is anything at a path that a project file or a manifest names.

    Raises:
        InputError: It can't be looked at: a name that is too long, a folder that is closed.
    """
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{shown(str(path))}: can't be read: {error.strerror}") from None


def told(path: Path, here: Path) -> str:
    """A path as a person who is in ``here`` writes it, with ``/``."""
    return Path(os.path.relpath(path, here)).as_posix()
