# SPDX-License-Identifier: Apache-2.0
"""What the user asked for, as data; torch-free."""

from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.measure.profile import Reached
from edgeprune.recipe import Recipe
from edgeprune.target import Target

__all__ = ["DataSource", "Job", "Source", "Task"]


@dataclass(frozen=True)
class Source:
    """The model to start from, as ``edgeprune.model.load`` takes it."""

    path: Path
    arch: str | None = None
    input_shapes: tuple[str, ...] | None = None
    """``1x3x224x224`` or, with a type, ``1x128:int64``; one an input."""
    trust_pickle: bool = False
    state_key: str | None = None
    """Which weights of a checkpoint that holds several."""
    allow_surplus: bool = False
    """Leave out weights that the network doesn't have."""


@dataclass(frozen=True)
class DataSource:
    """The data, as ``edgeprune.data.open_data`` takes it."""

    name: str
    limit: int | None = None


@dataclass(frozen=True)
class Job:
    """A whole run."""

    source: Source
    target: Target
    recipe: Recipe = field(default_factory=Recipe)
    data: DataSource | None = None
    out: Path = Path("out")
    threads: int = 1
    profile: bool = True
    device: Reached | None = None
    """Where the artifacts are measured besides this machine; of a local target ``None``."""
    overwrite: bool = False
    resume: bool = False
    keep_work: bool = False
    ticket: Path | None = None
    """A ticket's file, in the place of pruning."""


@dataclass(frozen=True)
class Task:
    """One stage alone."""

    source: Source
    target: Target
    output: Path
    """A ``.pt2`` file, or the folder of the artifacts."""
    data: DataSource | None = None
    teacher: Source | None = None
    """The model to distill from and to hold the result against; ``None``: the source itself is
    the yardstick, and there is no teacher."""
    seed: int = 0
    threads: int = 1
    overwrite: bool = False
    ticket: Path | None = None
    """What stays zero while the model is trained."""
