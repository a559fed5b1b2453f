# SPDX-License-Identifier: Apache-2.0
"""What is judged, by which limits: results of ``compress`` and files that anybody made."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from edgeprune.artifact import Contents, contents, read
from edgeprune.artifact import figures as counted_of
from edgeprune.artifact.source import shown
from edgeprune.errors import InputError
from edgeprune.figure import Figure
from edgeprune.gate.judged import Place
from edgeprune.gate.lock import Accepted, LayerSize, Machine
from edgeprune.project import Baseline
from edgeprune.report.schema import Manifest
from edgeprune.target import Budgets, Target

__all__ = ["MANIFEST", "Case", "Limits", "Result", "Subject", "is_there", "layers_of", "told"]

MANIFEST = "manifest.json"


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

    @cached_property
    def contents(self) -> Contents:
        """All that can be read off the file.

        Raises:
            InputError: It is no model file, or a damaged one.
        """
        return contents(read(self.path))

    @property
    def estimate(self) -> Figure | None:
        """``arena_estimate``, read off the file; ``None`` where it can't be told."""
        return counted_of(self.contents).get("arena_estimate")

    @property
    def known(self) -> dict[str, Figure]:
        """All figures, those of the device over those of the run's machine."""
        known = {**self.figures, **(self.device or {})}
        return known | ({"latency_reference": self.ratios[-1]} if self.ratios else {})


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
