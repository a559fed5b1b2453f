# SPDX-License-Identifier: Apache-2.0
"""Bytes of the memory that a runtime plans for a model's tensors: its arena.

onnxruntime tells them in its profile from version 1.28 on. LiteRT tells nothing in Python, but
where its tensors lie: those that its built-in kernels plan are one block without gaps.
Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import EdgepruneError
from edgeprune.profiler.backends import LiteBackend
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.runtime import open_session

if TYPE_CHECKING:
    import numpy as np

__all__ = ["mapped", "measure_arena", "profiled_events", "span"]

_RUNS = 2
_TRIES = 2
"""Interpreters of one file: something else of the heap may touch the one's block by chance."""
_ALIGNMENT = 64
"""Bytes to which LiteRT aligns a tensor."""


def measure_arena(path: Path, threads: int, arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Find the arena of ``path`` run on ``arrays``: ``arena`` with ``bytes`` and ``how``, or None
    with ``arena_reason``.
    """
    if detect_format(path) == "onnx":
        return _onnx(path, threads, arrays)
    return _lite(path, threads, arrays)


@contextlib.contextmanager
def profiled_events(
    path: Path, threads: int, arrays: list[np.ndarray[Any, Any]], runs: int
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run an ONNX file with onnxruntime's profile on: its name and version, and the events.

    Raises:
        OSError: There is no place for the profile's file.
    """
    folder = Path(tempfile.mkdtemp(prefix="edgeprune-"))
    try:
        session = open_session(path, threads, profile=folder / "profile")
        for _ in range(runs):
            session.run(arrays)
        file = session.end_profile()
        text = file.read_text(encoding="utf-8") if file else "[]"
        yield session.runtime, json.loads(text)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def span(tensors: Sequence[tuple[int, int]], inside: int) -> int | None:
    """Bytes of the block of ``tensors`` (address, bytes) that has the address ``inside``.

    LiteRT's planner puts each tensor at the block's start or right behind another one, so a block
    has no gap as wide as the alignment. What lies elsewhere (shapes that were computed while
    loading, unpacked weights) isn't planned. None where no tensor has that address.
    """
    low = high = 0
    for start, size in sorted(tensors):
        if start - high >= _ALIGNMENT:
            if low <= inside < high:
                break
            low = start
        high = max(high, start + size)
    return high - low if low <= inside < high else None


def mapped(maps: str, path: str) -> list[tuple[int, int]]:
    """Address ranges at which the file ``path`` is mapped, by the text of ``/proc/self/maps``."""
    ranges = []
    for line in maps.splitlines():
        words = line.split(None, 5)
        if len(words) == 6 and words[5] == path:
            low, high = words[0].split("-")
            ranges.append((int(low, 16), int(high, 16)))
    return ranges


def _onnx(path: Path, threads: int, arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    try:
        with profiled_events(path, threads, arrays, _RUNS) as (runtime, events):
            peaks = [
                int(event["args"]["mem_in_use_peak"])
                for event in events
                if "mem_in_use_peak" in event.get("args", {})
            ]
    except OSError as error:
        return _absent(f"there is no place for onnxruntime's profile: {error.strerror}")
    if not any(peaks):
        return _absent(f"{runtime} doesn't tell it; from 1.28 on it does")
    how = f"largest mem_in_use_peak in the profile of {runtime}: weights and activations"
    return {"arena": {"bytes": max(peaks), "how": how}, "arena_reason": None}


def _lite(path: Path, threads: int, arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    found: list[int | None] = []
    backends = []
    for _ in range(_TRIES):
        try:
            backends.append(LiteBackend(path, threads, plain=True))
            backends[-1].invoke(arrays)
        except EdgepruneError as error:
            return _absent(f"without delegates it doesn't run: {error}")
        found.append(_planned(backends[-1], path))
    sizes = [size for size in found if size is not None]
    runtime = backends[0].runtime
    if len(sizes) < _TRIES:
        return _absent(f"{runtime} has its inputs where no other tensor is planned")
    how = (
        f"block of the tensors that {runtime} plans without delegates: activations and scratch, "
        "not the weights"
    )
    return {"arena": {"bytes": min(sizes), "how": how}, "arena_reason": None}


def _planned(backend: LiteBackend, path: Path) -> int | None:
    """Bytes of the block that the first input is in; constants of the mapped file are left out."""
    maps = Path("/proc/self/maps").read_bytes().decode("utf-8", "surrogateescape")
    constants = mapped(maps, _escaped(path))
    tensors = [
        (start, size)
        for start, size in _tensors(backend.interpreter)
        if not any(low <= start < high for low, high in constants)
    ]
    first = backend.interpreter.tensor(backend.input_ids[0])()
    return span(tensors, first.__array_interface__["data"][0])


def _tensors(interpreter: Any) -> Iterator[tuple[int, int]]:
    """Address and bytes of every tensor that has memory."""
    for detail in interpreter.get_tensor_details():
        try:
            array = interpreter.tensor(detail["index"])()
        except ValueError:  # fused into another, or without content
            continue
        if array.nbytes:
            yield array.__array_interface__["data"][0], array.nbytes


def _escaped(path: Path) -> str:
    """``path`` as ``/proc/self/maps`` writes it."""
    return str(path.resolve()).replace("\n", "\\012")


def _absent(reason: str) -> dict[str, Any]:
    return {"arena": None, "arena_reason": reason}
