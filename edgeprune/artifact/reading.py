# SPDX-License-Identifier: Apache-2.0
"""A file to figures: what the gate asks of this room."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeprune.artifact.arena import Arena, arena
from edgeprune.artifact.call import Gap, Unknown
from edgeprune.artifact.counts import Counts, count
from edgeprune.artifact.graph import Artifact, Graph, Tensor
from edgeprune.artifact.onnx_file import read_onnx
from edgeprune.artifact.open_sizes import Bound
from edgeprune.artifact.shapes import resolve
from edgeprune.artifact.source import Content, opened, shown
from edgeprune.artifact.tflite_file import MAGIC, read_tflite
from edgeprune.errors import InputError
from edgeprune.figure import Figure, Origin, counted

__all__ = ["Contents", "contents", "figures", "read"]

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (.pt2, .pt, .npz, .keras, .task)"),
    (b"\x89HDF", "an HDF5 file (.h5)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file: git lfs pull"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
)
_PLANNED = (
    "greedy by size over the tensors' lifetimes (arXiv:2001.03288), 16-byte alignment, "
    "without a runtime's own structures and scratch memory"
)


class Contents(NamedTuple):
    """All that is known of a file without running it."""

    artifact: Artifact
    counts: Counts
    arena: Arena | None
    no_arena: str
    """Why there is no plan of the memory; empty where there is one."""
    gaps: tuple[Gap, ...]
    """Operators whose outputs have no known shape."""
    inputs: tuple[Tensor, ...]
    """As the file declares them; a size that it leaves open is no number."""
    outputs: tuple[Tensor, ...]
    """The same; one whose shape isn't declared has the shape that was worked out."""
    bound: Bound
    """What was taken for sizes that the file leaves open, and which of them aren't known."""


def read(path: Path) -> Artifact:
    """Read an ONNX or TFLite file; which it is shows in its content, not its name.

    Raises:
        InputError: It can't be read, is neither, is damaged, contradicts itself, or wants data
            from outside its folder.
    """
    with opened(path) as content:
        if content[4:8] == MAGIC:
            return read_tflite(content, path)
        _refuse_others(content, path)
        return read_onnx(content, path)


def contents(artifact: Artifact, sizes: Mapping[str, int] | None = None) -> Contents:
    """Work out and count what ``artifact`` has.

    Args:
        artifact: From ``read``.
        sizes: Of dimensions of the inputs that are left open: ``{"sequence": 128, "x.2": 320}``.
            A batch that is left open is 1.

    Raises:
        InputError: No input has a dimension of such a name, or the file's functions call each
            other without end.
    """
    resolved = resolve(artifact, sizes)
    counts = count(artifact, resolved)
    try:
        planned, reason = arena(resolved.graph, artifact.format == "tflite"), ""
    except Unknown as error:
        planned, reason = None, str(error)
    inputs, outputs = _edges(artifact.graph, resolved.graph)
    return Contents(
        artifact, counts, planned, reason, resolved.gaps, inputs, outputs, resolved.bound
    )


def _edges(declared: Graph, worked_out: Graph) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and the outputs of a graph."""
    inputs = tuple(declared.tensors.get(name, Tensor(name)) for name in declared.inputs)
    outputs = []
    for name in declared.outputs:
        tensor = declared.tensors.get(name, Tensor(name))
        found = worked_out.tensors.get(name, tensor)
        shape = found.shape if tensor.shape is None else tensor.shape
        outputs.append(tensor._replace(shape=shape, dtype=tensor.dtype or found.dtype))
    return inputs, tuple(outputs)


def figures(artifact: Artifact | Contents) -> dict[str, Figure]:
    """The figures of a file: ``bytes`` (B), ``parameters``, ``macs`` (of one sample),
    ``int8_ops``, ``float_ops``, ``arena_estimate`` (B).

    ``macs`` and ``arena_estimate`` are absent where they can't be told; ``Contents`` says why.
    """
    known = artifact if isinstance(artifact, Contents) else contents(artifact)
    counts = known.counts
    what = f"the {'ONNX' if known.artifact.format == 'onnx' else 'TFLite'} graph"
    several = len(known.artifact.files) > 1
    size = "size of the file and of those with its weights" if several else "size of the file"
    result = {
        "bytes": counted(known.artifact.bytes, "B", size),
        "parameters": counted(counts.parameters, "parameters", f"constant weights of {what}"),
        "int8_ops": counted(counts.int8, "operators", f"{what}, operators that calculate"),
        "float_ops": counted(counts.floating, "operators", f"{what}, operators that calculate"),
    }
    taken = ", ".join(f"{name} = {value}" for name, value in known.bound.taken.items())
    given = f", with {shown(taken)}" if taken else ""
    if counts.macs is not None:
        result["macs"] = counted(counts.macs, "MACs", f"products in {what}{given}")
    if known.arena is not None:
        origin = Origin(kind="estimated", how=f"{what}{given}: {_PLANNED}")
        result["arena_estimate"] = Figure(value=known.arena.bytes, unit="B", origin=origin)
    return result


def _refuse_others(content: Content, path: Path) -> None:
    head = content[0:32]
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise InputError(f"{shown(str(path))}: {what}; an ONNX or a TFLite file is needed here")
    if not head:
        raise InputError(f"{shown(str(path))}: the file is empty")
