# SPDX-License-Identifier: Apache-2.0
"""Sizes of inputs that a file leaves open: their names, and the values that a count takes for them.

A size has the name that the file gives it (``height``), or ``INPUT.AXIS`` where it gives none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from edgeprune.artifact.graph import Artifact, Dims
from edgeprune.artifact.source import shown
from edgeprune.errors import InputError

__all__ = ["Bound", "bind", "check_names", "open_sizes"]

_BATCH = re.compile(r"(?i)n|b|.*batch.*")
_OTHER = re.compile(
    r"(?i).*(seq|len|time|frame|step|token|height|width|size|points?|rows).*|[hwtls]"
)
"""Names of an axis 0 that is no batch."""


class Bound(NamedTuple):
    """What stands for the open sizes of the inputs."""

    names: Mapping[str, int]
    """Of sizes that have a name, wherever it stands."""
    inputs: Mapping[str, Dims]
    """The shapes of the inputs, as far as they are told."""
    taken: Mapping[str, int]
    """All values by the sizes' names: those that were given, and 1 for a batch."""
    missing: tuple[str, ...]
    """Names of those that stay open."""


class _Size(NamedTuple):
    """One open size of an input."""

    input: str
    axis: int
    name: str | None
    rank: int
    place: str
    """``INPUT.AXIS``."""

    @property
    def key(self) -> str:
        return self.name or self.place


def open_sizes(artifact: Artifact) -> frozenset[str]:
    """All names by which ``bind`` takes a size of ``artifact``."""
    sizes = list(_sizes(artifact))
    return frozenset({size.key for size in sizes} | {size.place for size in sizes})


def check_names(artifacts: Sequence[Artifact], given: Iterable[str]) -> None:
    """Hold the names of sizes against several files.

    Raises:
        InputError: No file leaves a size of such a name open.
    """
    known = {name for artifact in artifacts for name in open_sizes(artifact)}
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None:
        there = dict.fromkeys(size.key for artifact in artifacts for size in _sizes(artifact))
        raise InputError(
            f"--size {shown(wrong)}: no input has an open size of that name; "
            f"there are: {shown(', '.join(there) or 'none')}"
        )


def bind(artifact: Artifact, given: Mapping[str, int]) -> Bound:
    """Give the open sizes of the inputs their values; a batch that isn't given is 1.

    Args:
        artifact: As read.
        given: By name: ``{"height": 320, "image.3": 320}``.

    Raises:
        InputError: The file leaves no size of such a name open.
    """
    sizes = list(_sizes(artifact))
    known = open_sizes(artifact)
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None:
        there = ", ".join(dict.fromkeys(size.key for size in sizes)) or "none"
        raise InputError(
            f"{shown(str(artifact.path))}: no input has an open size named '{shown(wrong)}'; "
            f"there are: {shown(there)}"
        )
    names = {
        s.name: given[key] for s in sizes if s.name for key in (s.place, s.name) if key in given
    }
    batches = {s.name: 1 for s in sizes if s.name and _is_batch(s)}
    names = {**batches, **names}
    inputs = {name: list(artifact.graph.tensors[name].shape or ()) for name in _shaped(artifact)}
    taken: dict[str, int] = {}
    missing: list[str] = []
    for size in sizes:
        value = names.get(size.name) if size.name else given.get(size.place)
        if value is None and not size.name and _is_batch(size):
            value = 1
        if value is None:
            missing.append(size.key)
        else:
            inputs[size.input][size.axis] = taken[size.key] = value
    shapes = {name: tuple(dims) for name, dims in inputs.items()}
    return Bound(names, shapes, taken, tuple(dict.fromkeys(missing)))


def _shaped(artifact: Artifact) -> Iterator[str]:
    for name in artifact.graph.inputs:
        tensor = artifact.graph.tensors.get(name)
        if tensor is not None and tensor.shape is not None:
            yield name


def _sizes(artifact: Artifact) -> Iterator[_Size]:
    for name in _shaped(artifact):
        shape = artifact.graph.tensors[name].shape or ()
        for axis, size in enumerate(shape):
            if not isinstance(size, int):
                place = f"{artifact.aliases.get(name, name)}.{axis}"
                yield _Size(name, axis, size, len(shape), place)


def _is_batch(size: _Size) -> bool:
    """The first of several axes, unless it is called something else; of a row only by its name."""
    if size.axis:
        return size.name == "batch"
    if size.name and _BATCH.fullmatch(size.name):
        return True
    return size.rank > 1 and not (size.name and _OTHER.fullmatch(size.name))
