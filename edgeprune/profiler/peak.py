# SPDX-License-Identifier: Apache-2.0
"""Memory that loading and running a file takes, and the runtime's own arena beside it.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprune.profiler import memory
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.inputs import job_inputs
from edgeprune.profiler.runtime import import_runtime, open_session

__all__ = ["measure_memory"]

_RUNS = 3


def measure_memory(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Memory in bytes of loading and running the file a few times; then its runtime's arena.

    ``peak`` is the largest resident memory of the whole process; ``base`` what Python, numpy and
    the runtime held before the model; ``model`` the growth of anonymous memory, which the kernel
    can't take back (pages of a mapped file it can). ``reset`` tells whether the peak was counted
    from just before the load. The arena comes in a part of its own, found after the peak was read.
    """
    path = Path(job["path"])
    runtime = import_runtime(detect_format(path))
    yield {"runtime": runtime}
    gc.collect()
    base = memory.read_status()
    reset = memory.reset_peak()
    session = open_session(path, job["threads"])
    held = [memory.read_status()]
    arrays = job_inputs(session.inputs, job)
    for _ in range(_RUNS):
        session.run(arrays)
        held.append(memory.read_status())
    yield {
        "peak": held[-1]["VmHWM"],
        "base": base["VmRSS"],
        "model": max(0, *(status["RssAnon"] - base["RssAnon"] for status in held)),
        "reset": reset,
    }
    if job.get("arena"):
        from edgeprune.profiler.arena import measure_arena

        yield measure_arena(path, job["threads"], arrays)
