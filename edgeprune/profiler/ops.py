# SPDX-License-Identifier: Apache-2.0
"""Seconds of each operation of a file.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import DeviceError
from edgeprune.profiler.arena import profiled_events
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.inputs import job_inputs
from edgeprune.profiler.runtime import import_runtime, open_session

__all__ = ["measure_ops", "summed"]

_WARM = 3
_MOST_RUNS = 200
_SECONDS = 1.0
_KERNEL = "_kernel_time"


def measure_ops(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Mean seconds of each node in a run of an ONNX file, by onnxruntime's profile.

    ``ops`` has, in the order in which they run, ``name``, ``type``, ``seconds`` of an inference,
    and ``calls``, how many calls were timed in all ``runs``. A node with a graph inside (Loop, If)
    has its nodes' seconds in its own too. The runs that warm up aren't counted.

    Raises:
        InputError: The file or its inputs can't be used.
        DeviceError: The runtime failed, or has no place for its profile.
    """
    path = Path(job["path"])
    form = detect_format(path)
    runtime = import_runtime(form)
    if form != "onnx":
        yield {
            "runtime": runtime,
            "ops": None,
            "reason": f"{runtime} has no profile of operations in its Python package; "
            "benchmark_model --enable_op_profiling has, where that program is at hand",
        }
        return
    session = open_session(path, job["threads"])
    arrays = job_inputs(session.inputs, job)
    session.run(arrays)
    start = time.perf_counter()
    session.run(arrays)
    runs = max(2, min(_MOST_RUNS, int(_SECONDS / (time.perf_counter() - start))))
    del session
    try:
        with profiled_events(path, job["threads"], arrays, _WARM + runs) as (_, events):
            ops = summed(events, _WARM, runs)
    except OSError as error:
        raise DeviceError(f"there is no place for onnxruntime's profile: {error}") from None
    yield {"runtime": runtime, "ops": ops, "runs": runs, "reason": None}


def summed(events: Sequence[dict[str, Any]], warm: int, runs: int) -> list[dict[str, Any]]:
    """Sum up the nodes of onnxruntime's profile, without those of its first ``warm`` runs."""
    started = sorted(event["ts"] for event in events if event["name"] == "model_run")
    since = started[warm]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    nodes = [e for e in events if e["name"].endswith(_KERNEL) and e["ts"] >= since]
    for event in sorted(nodes, key=lambda event: int(event["ts"])):
        name, kind = event["name"][: -len(_KERNEL)], event["args"]["op_name"]
        key = (name, event["args"].get("node_index", ""))
        op = found.setdefault(key, {"name": name, "type": kind, "seconds": 0.0, "calls": 0})
        op["seconds"] += event["dur"] * 1e-6
        op["calls"] += 1
    return [{**op, "seconds": round(op["seconds"] / runs, 9)} for op in found.values()]
