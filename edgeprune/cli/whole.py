# SPDX-License-Identifier: Apache-2.0
"""All runs of a project file: what ``edgeprune compress`` does without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.cli import asked, reach
from edgeprune.errors import InputError
from edgeprune.job import Job, Source
from edgeprune.project import ModelEntry, ProjectFile, find_project
from edgeprune.workspace import check

if TYPE_CHECKING:
    from edgeprune.target import Target

__all__ = ["Wishes", "jobs"]


@dataclass(frozen=True)
class Wishes:
    """What the command line says of all runs."""

    targets: Sequence[str]
    """Only for these; none: for all."""
    budgets: Mapping[str, float | None]
    recipe: Path | None
    changes: Mapping[str, Any]
    """Over each model's recipe."""
    limit: int | None
    device: str | None
    alone: Mapping[str, object]
    """Options that go with a model on the command line."""


def jobs(wishes: Wishes, like: Job) -> list[Job]:
    """One run for each model and target of the nearest project file.

    Args:
        wishes: What the command line says.
        like: Threads and what else is the same for all runs.

    Raises:
        InputError: There is no project file, or it has nothing to compress.
        ConfigError: A target, a recipe or a value is wrong.
        OutputError: A result is there already, so that hours of other runs needn't come first.
    """
    project = find_project(Path.cwd())
    if project is None:
        raise InputError(
            "name a MODEL and a --target, or write an edgeprune.toml (`edgeprune init`) that does"
        )
    for option, value in wishes.alone.items():
        if value:
            raise InputError(f"{option} goes with a MODEL; for a project it stands in its file")
    found = list(_jobs(project, wishes, like))
    if not (like.resume or like.overwrite):
        for job in found:
            check(job.out, job.target.name, overwrite=False)
    if not found:
        raise InputError(
            f"{project.path}: has no 'model' to compress"
            + (f" for {', '.join(wishes.targets)}" if wishes.targets else "")
        )
    return found


def _jobs(project: ProjectFile, wishes: Wishes, like: Job) -> Iterator[Job]:
    for name, entry in project.project.models.items():
        if entry.model is None:
            continue
        recipe = wishes.recipe
        if recipe is None and entry.recipe is not None:
            recipe = project.folder / entry.recipe
        job = replace(
            like,
            source=Source(
                project.folder / entry.model,
                entry.arch,
                entry.input_shape,
                like.source.trust_pickle,
                entry.state_key,
                entry.allow_surplus,
            ),
            recipe=asked.recipe(recipe, wishes.changes),
            data=asked.data_source(_data(project, entry), wishes.limit),
            out=project.out(name),
        )
        for key in entry.targets:
            target = project.target(name, key)
            if wishes.targets and not {key, target.name} & set(wishes.targets):
                continue
            judged = asked.with_budgets(target, **wishes.budgets)
            yield replace(job, target=judged, device=_device(entry, key, judged, wishes, like))


def _device(entry: ModelEntry, key: str, target: Target, wishes: Wishes, like: Job) -> Any:
    if not like.profile:
        return None
    return reach.of_target(wishes.device or entry.device.get(key), target)


def _data(project: ProjectFile, entry: ModelEntry) -> str | None:
    """The data as ``--data`` names them; paths in the file are relative to it."""
    if entry.data is None:
        return None
    name, sign, path = entry.data.rpartition("=")
    there = project.folder / path
    return f"{name}{sign}{there}" if there.exists() else entry.data
