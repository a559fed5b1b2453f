# SPDX-License-Identifier: Apache-2.0
"""One block of latency: a fresh process that loads a file, warms up and times its runs.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.profiler import throttle
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.inputs import job_inputs
from edgeprune.profiler.runtime import Session, import_runtime, open_session
from edgeprune.profiler.stats import percentile

if TYPE_CHECKING:
    import numpy as np

__all__ = ["measure_block"]


def measure_block(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Seconds of loading, of the first run, and percentiles of the runs after a warm-up.

    A run is what a caller waits for: inputs handed over, inference, outputs fetched. After
    ``warmup`` seconds the block goes on until ``seconds`` and ``min_runs`` are both reached, or
    ``max_seconds`` are over. ``wall`` and ``cpu`` are the seconds of all timed runs, ``waited``
    those that its threads were ready and had no core (null where Linux doesn't count them),
    ``switches`` how often a core was taken from it.
    """
    path = Path(job["path"])
    runtime = import_runtime(detect_format(path))
    started = time.perf_counter()
    session = open_session(path, job["threads"])
    loaded = time.perf_counter()
    yield {"runtime": runtime, "load": _nano(loaded - started)}
    arrays = job_inputs(session.inputs, job)
    end = time.perf_counter() + job["max_seconds"]
    first = _timed(session, arrays)
    yield {"first": _nano(first)}
    warm = time.perf_counter() - first + job["warmup"]
    while time.perf_counter() < min(warm, end):
        session.run(arrays)
    gc.collect()
    gc.disable()
    before = _Clocks()
    times, wall, cpu = _block(session, arrays, job, end)
    after = _Clocks()
    yield {
        "runs": len(times),
        "p50": _nano(percentile(times, 0.5)),
        "p90": _nano(percentile(times, 0.9)),
        "p99": _nano(percentile(times, 0.99)),
        "wall": _nano(wall),
        "cpu": _nano(cpu),
        "waited": after.waited_since(before),
        "switches": after.switches - before.switches,
        "frequency_hz": [before.frequency, after.frequency],
        "temperature_c": [before.temperature, after.temperature],
    }


@dataclass(frozen=True)
class _Clocks:
    """What the kernel and the board say at one moment."""

    frequency: float | None = field(default_factory=throttle.frequency)
    temperature: float | None = field(default_factory=throttle.temperature)
    waited: float | None = field(default_factory=throttle.waited)
    switches: int = field(default_factory=throttle.switches)

    def waited_since(self, other: _Clocks) -> float | None:
        """Seconds waited since ``other``, where both are known."""
        if self.waited is None or other.waited is None:
            return None
        return _nano(self.waited - other.waited)


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


def _nano(seconds: float) -> float:
    return round(seconds, 9)
