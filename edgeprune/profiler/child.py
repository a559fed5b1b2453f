# SPDX-License-Identifier: Apache-2.0
"""The measuring process: one job in as JSON on standard input, one line of JSON out.

    python -m edgeprune.profiler.child

A fresh process a job, so that nothing of an earlier one is measured again. Runs on the device:
standard library, numpy and one runtime, Python 3.8 or newer.

A job has ``task`` (``memory`` or ``latency``), ``path``, ``threads``, ``seed``, ``inputs`` (path
of an ``.npz`` or null); for ``latency`` also ``warmup``, ``seconds``, ``max_seconds`` and
``min_runs``. The answer is the task's figures, or ``error`` and ``exit_code``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import EdgepruneError
from edgeprune.profiler import memory
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.inputs import random_inputs, real_inputs
from edgeprune.profiler.runtime import Session, import_runtime, open_session
from edgeprune.profiler.stats import percentile

if TYPE_CHECKING:
    import numpy as np

__all__ = ["main", "measure_latency", "measure_memory"]

_MEMORY_RUNS = 3


def main() -> int:
    """Do the job on standard input; the exit code is 0 if it was done."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints must not get into the answer
    job = json.load(sys.stdin)
    tasks = {"latency": measure_latency, "memory": measure_memory}
    try:
        result = tasks[job["task"]](job)
    except EdgepruneError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    with answer:
        json.dump(result, answer)
        answer.write("\n")
    return int(result.get("exit_code", 0))


def measure_memory(job: dict[str, Any]) -> dict[str, Any]:
    """Memory in bytes of loading and running the model a few times.

    ``peak`` is the largest resident memory of the whole process; ``base`` what Python, numpy and
    the runtime held before the model; ``model`` the growth of anonymous memory, which the kernel
    can't take back (pages of a mapped file it can). ``reset`` tells whether the peak was counted
    from just before the load.
    """
    runtime = import_runtime(detect_format(Path(job["path"])))
    gc.collect()
    base = memory.read_status()
    reset = memory.reset_peak()
    session = open_session(Path(job["path"]), job["threads"])
    held = [memory.read_status()]
    arrays = _arrays(session, job)
    for _ in range(_MEMORY_RUNS):
        session.run(arrays)
        held.append(memory.read_status())
    return {
        "runtime": runtime,
        "peak": held[-1]["VmHWM"],
        "base": base["VmRSS"],
        "model": max(0, *(status["RssAnon"] - base["RssAnon"] for status in held)),
        "reset": reset,
    }


def measure_latency(job: dict[str, Any]) -> dict[str, Any]:
    """One block: seconds of loading, of the first run, and percentiles of the runs after a warm-up.

    A run is what a caller waits for: inputs handed over, inference, outputs fetched. The block goes
    on until ``seconds`` and ``min_runs`` are both reached, or ``max_seconds`` are over.
    """
    path = Path(job["path"])
    runtime = import_runtime(detect_format(path))
    started = time.perf_counter()
    session = open_session(path, job["threads"])
    loaded = time.perf_counter()
    arrays = _arrays(session, job)
    end = time.perf_counter() + job["max_seconds"]
    first = _timed(session, arrays)
    warm = time.perf_counter() - first + job["warmup"]
    while time.perf_counter() < min(warm, end):
        session.run(arrays)
    gc.collect()
    gc.disable()
    times, wall, cpu = _block(session, arrays, job, end)
    gc.enable()
    seconds = {
        "load": loaded - started,
        "first": first,
        "p50": percentile(times, 0.5),
        "p90": percentile(times, 0.9),
        "p99": percentile(times, 0.99),
        "wall": wall,
        "cpu": cpu,
    }
    nanoseconds = {key: round(value, 9) for key, value in seconds.items()}
    return {"runtime": runtime, "runs": len(times), **nanoseconds}


def _block(
    session: Session, arrays: list[np.ndarray[Any, Any]], job: dict[str, Any], end: float
) -> tuple[list[float], float, float]:
    times: list[float] = []
    cpu = time.process_time()
    start = time.perf_counter()
    while True:
        times.append(_timed(session, arrays))
        now = time.perf_counter()
        if now > end or (len(times) >= job["min_runs"] and now - start >= job["seconds"]):
            return times, now - start, time.process_time() - cpu


def _timed(session: Session, arrays: list[np.ndarray[Any, Any]]) -> float:
    start = time.perf_counter_ns()
    session.run(arrays)
    return (time.perf_counter_ns() - start) * 1e-9


def _arrays(session: Session, job: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    if job["inputs"] is None:
        return random_inputs(session.inputs, job["seed"])
    return real_inputs(session.inputs, Path(job["inputs"]))


if __name__ == "__main__":
    sys.exit(main())
