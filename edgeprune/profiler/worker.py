# SPDX-License-Identifier: Apache-2.0
"""The measuring process: one job in as JSON on standard input, parts of its answer out as lines.

A fresh process a job, so that nothing of an earlier one is measured again. A part is written as
soon as it is known: what was measured before a process was killed isn't lost. Runs on the device:
standard library, numpy and one runtime, Python 3.8 or newer.

A job has ``task``, ``path``, ``threads``, ``seed``, ``inputs`` (path of an ``.npz`` or null),
``memory_limit`` (GiB, which the kernel holds it to), and what its task takes; the function that
does it says what that is.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from edgeprune.errors import DeviceError, EdgepruneError, InputError, MissingExtra

__all__ = ["TASKS", "main", "perform", "too_large"]

TASKS = {
    "busy": ("edgeprune.profiler.energy", "keep_busy"),
    "compare": ("edgeprune.profiler.compare", "compare_block"),
    "count": ("edgeprune.profiler.run", "count_runs"),
    "latency": ("edgeprune.profiler.block", "measure_block"),
    "memory": ("edgeprune.profiler.peak", "measure_memory"),
    "ops": ("edgeprune.profiler.ops", "measure_ops"),
    "run": ("edgeprune.profiler.run", "run_once"),
}
"""Module and function of each task; only the one that is asked for is imported."""


_NO_MEMORY = re.compile(
    "bad_alloc|MemoryError|ailed to allocate|nable to allocate|ut of memory|want of memory"
)
"""In what Python, numpy, C++ and the runtimes say when an allocation fails."""


def main() -> int:
    """Do the job on standard input; the exit code is 0 if it was done."""
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a runtime prints must not get into the answer
    with os.fdopen(os.dup(0), "rb") as file:
        job = json.loads(file.read())
    code = 0
    with answer:
        try:
            for part in perform(job):
                answer.write(json.dumps(part) + "\n")
                answer.flush()
        except (EdgepruneError, MemoryError) as raised:
            error = too_large(job, f"{type(raised).__name__}: {raised}") or raised
            code = getattr(error, "exit_code", DeviceError.exit_code)
            answer.write(json.dumps({"error": str(error), "exit_code": code}) + "\n")
    return code


def too_large(job: dict[str, Any], said: str) -> InputError | None:
    """The error of a job that came to its memory limit, where ``said`` tells that it did."""
    if "memory_limit" not in job or not _NO_MEMORY.search(said):
        return None
    return InputError(
        f"{job['path']}: loading and running it needs more memory than a measuring process may "
        f"take: {job['memory_limit']:g} GiB (--memory-limit)"
    )


def perform(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Do ``job`` in this process and give the parts of its answer.

    Raises:
        InputError: The file, its inputs or this device's packages can't be used.
        DeviceError: The runtime failed.
    """
    module, function = TASKS[job["task"]]
    try:
        yield from getattr(importlib.import_module(module), function)(job)
    except MissingExtra as error:
        raise InputError(
            f"{error.package} isn't installed for the Python that runs the agent: "
            f"python3 -m pip install {error.package.split()[0]}"
        ) from None
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise InputError(
            "numpy isn't installed for the Python that runs the agent: "
            "python3 -m pip install numpy (or apt-get install python3-numpy)"
        ) from None
