# SPDX-License-Identifier: Apache-2.0
"""Bytes of the memory that a runtime plans for a model's tensors: its arena.

onnxruntime tells them in its profile from version 1.28 on. LiteRT tells nothing in Python, but
where its tensors lie: the arena of its built-in kernels spans the tensors that are no constants.
Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.profiler.backends import lite_runtime, openable
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.runtime import open_session

if TYPE_CHECKING:
    import numpy as np

__all__ = ["mapped", "measure_arena", "profiled_events", "span"]

_RUNS = 2
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


def span(tensors: Sequence[tuple[int, int]]) -> int | None:
    """Bytes from the lowest to the highest end of ``tensors`` (address, bytes).

    None where they can't be of one planned block: such a block is never larger than all of its
    tensors side by side.
    """
    if not tensors:
        return None
    low = min(start for start, _ in tensors)
    high = max(start + size for start, size in tensors)
    together = sum(-(-size // _ALIGNMENT) * _ALIGNMENT for _, size in tensors)
    return high - low if high - low <= together + _ALIGNMENT else None


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
    runtime, kind = lite_runtime()
    resolvers = getattr(sys.modules[kind.__module__], "OpResolverType", None)
    if resolvers is None:
        return _absent(f"{runtime} can't be told to do without delegates")
    try:
        with openable(path) as name:
            interpreter = kind(
                model_path=name,
                num_threads=threads,
                experimental_op_resolver_type=resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
        for detail, array in zip(interpreter.get_input_details(), arrays):  # noqa: B905 - 3.8
            if tuple(detail["shape"]) != array.shape:
                interpreter.resize_tensor_input(detail["index"], list(array.shape))
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        return _absent(f"{runtime} without delegates fails: {' '.join(str(error).split())}")
    maps = Path("/proc/self/maps").read_bytes().decode("utf-8", "surrogateescape")
    constants = mapped(maps, _escaped(path))
    if not constants:
        return _absent(f"{runtime} doesn't map the file, so constants can't be told from the arena")
    tensors = [
        (start, size)
        for start, size in _tensors(interpreter)
        if not any(low <= start < high for low, high in constants)
    ]
    size = span(tensors)
    if size is None:
        return _absent(f"the tensors of {runtime} don't lie in one block")
    how = f"span of the tensors of {runtime} without delegates: activations, not the weights"
    return {"arena": {"bytes": size, "how": how}, "arena_reason": None}


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
