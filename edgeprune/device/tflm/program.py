# SPDX-License-Identifier: Apache-2.0
"""Runs inside the environment of tflite-micro: one file in, its arena and outputs out.

    PYTHON -I program.py < JOB

A job is JSON with ``path`` (the .tflite), ``names`` (of the inputs), ``inputs`` (an .npz with the
inputs in that order, each with a sample axis in front) and ``outputs`` (the .npz to write, in the
file's order of outputs). One line of JSON comes out: the figures, or ``error`` and ``exit_code``.
It needs the standard library, numpy and tflite_micro, and nothing of edgeprune.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

STEP = 16
"""Bytes; what TensorFlow Lite Micro aligns to."""
SMALLEST = 1 << 20
LARGEST = 1 << 30
_MEMORY = re.compile(r"Failed to (?:allocate|resize)|missing: \d+")
_NO_KERNEL = re.compile(
    r"Didn't find op for builtin opcode '(\w+)'|Failed to get registration from op code\s+(\S+)"
)
_NODE = re.compile(r"Node (\w+) \(number (\d+)\)")
_PRINTED = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_PART = re.compile(r"'(.+?)' used (\d+) bytes")


class Refused(Exception):
    """TensorFlow Lite Micro doesn't take the file."""


def main() -> int:
    """Do the job on standard input; the exit code is 0 if it was done."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the interpreter prints must not get into the answer
    job = json.load(sys.stdin)
    try:
        result = examine(job)
    except Refused as error:
        result = {"error": str(error), "exit_code": 2}
    with answer:
        json.dump(result, answer)
        answer.write("\n")
    return int(result.get("exit_code", 0))


def examine(job: dict[str, Any]) -> dict[str, Any]:
    """Find the smallest arena that works, and run the inputs in an arena of just that size."""
    content = Path(job["path"]).read_bytes()
    runtime = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    edges = Edges(runtime.convert_bytearray_to_object(content))
    with np.load(job["inputs"], allow_pickle=False) as stored:
        arrays = {name: stored[f"arr_{k}"] for k, name in enumerate(job["names"])}
    feeds = edges.feeds(arrays)

    def load(size: int) -> Any:
        return runtime.Interpreter.from_bytes(content, arena_size=size)

    tried = []

    def works(size: int) -> bool:
        tried.append(size)
        return attempt(partial(load, size))[0] == 0

    roomy, room = load_roomy(load, len(content))
    run(roomy, feeds[0], edges)
    printed = allocations(roomy)
    arena, refused = bisect(works, printed["total"], room)
    exact = load(arena)
    made = [run(exact, feed, edges) for feed in feeds]
    np.savez(job["outputs"], *(np.stack(column) for column in zip(*made)))  # noqa: B905
    return {
        "arena": {"bytes": arena, "refused": refused, "loads": len(tried), **printed},
        "outputs": edges.outputs,
    }


class Edges:
    """Inputs and outputs of a file in its own order, by the names that LiteRT calls them by."""

    def __init__(self, model: Any) -> None:
        self._graph = model.subgraphs[0]
        signatures = model.signatureDefs or []
        signature = signatures[0] if len(signatures) == 1 else None
        self.inputs = self._names(self._graph.inputs, signature and signature.inputs)
        names = self._names(self._graph.outputs, signature and signature.outputs)
        self.outputs = [
            {"name": name, "step": self._step(int(index))}
            for name, index in zip(names, self._graph.outputs)  # noqa: B905
        ]

    def feeds(self, arrays: dict[str, Any]) -> list[list[Any]]:
        """Of each sample the arrays in the file's order."""
        if sorted(arrays) != sorted(self.inputs):
            raise Refused(f"its inputs are {self.inputs}, given were {sorted(arrays)}")
        count = len(next(iter(arrays.values())))
        return [[np.ascontiguousarray(arrays[n][k]) for n in self.inputs] for k in range(count)]

    def _names(self, indices: Any, signature: Any) -> list[str]:
        named = {int(entry.tensorIndex): entry.name.decode() for entry in signature or ()}
        tensors = self._graph.tensors
        return [named.get(int(index)) or tensors[int(index)].name.decode() for index in indices]

    def _step(self, index: int) -> float | None:
        """The quantization step of an output, or of what its final DEQUANTIZE was given."""
        own = self._scale(index)
        if own is not None:
            return own
        for op in self._graph.operators:
            if [int(out) for out in op.outputs] == [index] and len(op.inputs) == 1:
                return self._scale(int(op.inputs[0]))
        return None

    def _scale(self, index: int) -> float | None:
        quantization = self._graph.tensors[index].quantization
        scales = None if quantization is None else quantization.scale
        return float(scales[0]) if scales is not None and len(scales) == 1 else None


def load_roomy(load: Callable[[int], Any], size: int) -> tuple[Any, int]:
    """Load in an arena that is surely large enough, and say how large it is."""
    room = max(SMALLEST, 4 * size)
    while True:
        code, said = attempt(partial(load, room))
        if code == 0:
            return load(room), room
        if room >= LARGEST or not (code < 0 or _MEMORY.search(said)):
            raise Refused(cause(said))
        room = min(4 * room, LARGEST)


def bisect(works: Callable[[int], bool], reported: int, room: int) -> tuple[int, int]:
    """The smallest arena that works, to a step of 16 bytes, and one that doesn't, at most 2 % less.

    Args:
        works: Whether the file loads in an arena of so many bytes.
        reported: Where to begin.
        room: A size that works.
    """
    high = -(-reported // STEP)
    if not works(high * STEP):
        high = room // STEP
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if works(middle * STEP):
            high = middle
        else:
            low = middle
    arena = high * STEP
    refused = min(arena - STEP, -(-arena * 98 // 100))
    if works(refused):
        raise Refused(f"its arena has no clear limit: {arena} bytes were found, {refused} do too")
    return arena, refused


def attempt(action: Callable[[], Any]) -> tuple[int, str]:
    """Do it in a process of its own, since too small an arena may crash it.

    Gives the exit code, negative the signal that ended it, and what it said.
    """
    with tempfile.TemporaryFile() as sink:
        child = os.fork()
        if child == 0:
            _in_child(action, sink)
        status = os.waitpid(child, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        return code, _read(sink)


def _in_child(action: Callable[[], Any], sink: BinaryIO) -> None:
    code = 1
    try:
        code = int(bool(_redirected(action, sink)[1]))
    finally:
        os._exit(code)  # the parent's buffers and clean-up aren't the child's


def run(interpreter: Any, feed: list[Any], edges: Edges) -> list[Any]:
    """Outputs of one sample, in the file's order."""

    def invoke() -> list[Any]:
        interpreter.reset()
        for index, array in enumerate(feed):
            interpreter.set_input(array, index)
        interpreter.invoke()
        return [np.array(interpreter.get_output(k)) for k in range(len(edges.outputs))]

    result, said = heard(invoke)
    if result is None:
        raise Refused(cause(said))
    made: list[Any] = result
    return made


def allocations(interpreter: Any) -> dict[str, Any]:
    """What its recorder prints: ``total``, ``head``, ``tail``, ``parts`` of the tail, in bytes."""
    _, said = heard(interpreter.print_allocations)
    found: dict[str, Any] = {key: int(value) for key, value in _PRINTED.findall(said)}
    if sorted(found) != ["head", "tail", "total"]:
        raise Refused("tflite-micro didn't print what it allocated")
    return {**found, "parts": {name: int(value) for name, value in _PART.findall(said)}}


def heard(action: Callable[[], Any]) -> tuple[Any, str]:
    """What ``action`` gives, ``None`` where it fails, and what it and the C++ below it said."""
    with tempfile.TemporaryFile() as sink:
        result, error = _redirected(action, sink)
        said = _read(sink)
    return result, f"{said}\n{error}" if error else said


def _redirected(action: Callable[[], Any], sink: BinaryIO) -> tuple[Any, str]:
    saved = os.dup(2)
    os.dup2(sink.fileno(), 2)
    try:
        return action(), ""
    except (RuntimeError, TypeError, ValueError) as error:
        return None, str(error).partition("\n")[0] or type(error).__name__
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _read(sink: BinaryIO) -> str:
    sink.seek(0)
    return sink.read().decode("utf-8", "replace")


def cause(said: str) -> str:
    """One line on why a file was refused."""
    missing = _NO_KERNEL.search(said)
    if missing:
        return f"it has no kernel for {missing[1] or missing[2]}"
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    for place, line in enumerate(lines):
        node = _NODE.search(line)
        if node:
            reason = lines[place - 1] if place else line
            reason = re.sub(r"^\S+\.(?:cc|h)(?::\d+)?\s*", "", reason)
            return f"operator {node[2]}, {node[1]}: {reason}"
    if _MEMORY.search(said):
        return f"it needs an arena of more than {LARGEST >> 20} MiB"
    return lines[-1] if lines else "it gave no reason"


if __name__ == "__main__":
    sys.exit(main())
