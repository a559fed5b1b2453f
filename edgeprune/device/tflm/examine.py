# SPDX-License-Identifier: Apache-2.0
"""Ask TensorFlow Lite Micro about one file."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.device.process import last_line
from edgeprune.device.tflm.environment import Environment
from edgeprune.errors import DeviceError, InputError

__all__ = ["Arena", "Examined", "examine"]

Array = np.ndarray[Any, Any]
_PROGRAM = Path(__file__).with_name("program.py")


@dataclass(frozen=True)
class Arena:
    """The memory that a microcontroller sets aside for the interpreter, in bytes."""

    bytes: int
    """The smallest size, to a step of 16, in which the file loads and runs."""
    refused: int
    """A size, at most 2 % less (or 16 bytes), in which it was seen to fail."""
    reported: int
    """What the interpreter's own recorder adds up."""
    head: int
    """Of that: activations and scratch buffers, planned over each other. The same on any chip."""
    tail: int
    """Of that: the interpreter's structures; smaller where pointers have 32 bits."""
    parts: dict[str, int]
    """Of the tail, by the interpreter's own names."""
    loads: int
    """Times that the file was loaded to find out."""


@dataclass(frozen=True)
class Examined:
    """What TensorFlow Lite Micro made of a file."""

    arena: Arena
    outputs: dict[str, Array]
    """By name, with the sample axis in front; computed in an arena of exactly that size."""
    steps: dict[str, float | None]
    """By name: the quantization step of an output; ``None`` where it comes from float kernels."""


def examine(
    environment: Environment,
    path: Path,
    arrays: Mapping[str, Array],
    *,
    name: str | None = None,
    timeout: float = 600.0,
) -> Examined:
    """Load ``path``, find its arena, run it.

    Args:
        environment: From ``find``.
        path: The .tflite file.
        arrays: Of each input, by LiteRT's name for it, at least one sample: ``[samples, *shape]``.
        name: The file's name in errors; its own where none is given.
        timeout: Seconds.

    Raises:
        InputError: It isn't taken: the message names the operator that has no kernel.
        DeviceError: The interpreter died or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, *arrays.values())
        answer = _ask(
            environment,
            name or path.name,
            {
                "path": str(path.absolute()),
                "names": list(arrays),
                "inputs": str(inputs),
                "outputs": str(outputs),
            },
            timeout,
        )
        edges = answer["outputs"]
        with np.load(outputs, allow_pickle=False) as stored:
            made = {edge["name"]: stored[f"arr_{k}"] for k, edge in enumerate(edges)}
    found = dict(answer["arena"])
    found["reported"] = found.pop("total")
    return Examined(Arena(**found), made, {edge["name"]: edge["step"] for edge in edges})


def _ask(
    environment: Environment, name: str, job: dict[str, Any], timeout: float
) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [str(environment.python), "-I", str(_PROGRAM)],
            input=json.dumps(job),
            env={key: value for key, value in os.environ.items() if key != "PYTHONHOME"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{name}: tflite-micro took more than {timeout:.0f} s") from None
    except OSError as error:
        raise DeviceError(f"{environment.python}: can't be started: {error.strerror}") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise DeviceError(f"{name}: tflite-micro failed: {_cause(done)}") from None
    if "error" in answer:
        raise InputError(f"{name}: TensorFlow Lite Micro doesn't take it: {answer['error']}")
    return answer


def _cause(done: subprocess.CompletedProcess[str]) -> str:
    last = last_line(done.stderr)
    if done.returncode < 0:
        return f"it died of signal {-done.returncode} ({last})"
    return f"it ended with {done.returncode}: {last}"
