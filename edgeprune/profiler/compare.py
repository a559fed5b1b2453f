# SPDX-License-Identifier: Apache-2.0
"""How many times as long one file takes as another, whatever else the machine does meanwhile.

Two figures that were measured one after the other differ by what the machine did: a quarter and
more where it is loaded. A ratio holds, because both files see the same: both are loaded into one
process and take turns of a few milliseconds, A B B A. The rest was chosen by trying (2 cores with
2 busy processes and more beside, networks of 0.15 and 2 ms over one of 0.1 ms, 8 processes each):

- One thread is timed by its CPU time, which doesn't count the time that others had the core. The
  2 ms network's wall times, even their lower quartile, differed by 61 % between processes, its CPU
  times by 2 %. Several threads have to be timed by the wall clock all the same.
- A lower quartile, since disturbances only add: 0.3 % between processes where the mean had 1.2 %.
- Samples of equal length, several runs of the faster file: single short runs find undisturbed
  moments that long ones can't, so load moved the 2 ms network's ratio by 6 %, and so by 1 %.
- Memory's layout differs from process to process, and with it the ratio, by up to 2 %: so a
  process (a block) gives one ratio, and the interval comes from the blocks.
- Int8 files need no int8 reference for this: both gave the same spread (0.5 to 0.9 %).

``bench/gate_noise.md`` has what comes of it.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import DeviceError, InputError
from edgeprune.profiler.stats import Estimate, percentile, ratio_with_interval

if TYPE_CHECKING:
    import numpy as np

    from edgeprune.profiler.runtime import Session

__all__ = ["Compared", "Until", "compare", "compare_block"]

_TURN = 3e6
"""Nanoseconds of a turn, or one sample: shorter than a scheduler's usual time slice."""
_WARM = 3e7
_WARM_RUNS = 3
_SHORTEST = 5e4
"""Nanoseconds of a sample, so that reading the clock is nothing of it."""
_REWARMED = 4
"""Runs of a turn from which its first one isn't timed: it refills the caches."""
_SAMPLES = 8
_SHARE = 0.25


@dataclass(frozen=True)
class Until:
    """When there is enough."""

    precision: float = 0.015
    """Half of the interval's width, as a share of the ratio."""
    blocks: int = 6
    """At least; fewer give no 95 % interval."""
    max_blocks: int = 20
    block_seconds: float = 0.15
    """Of CPU time, both files together."""
    time_limit: float = 300.0


@dataclass
class Compared:
    """What was measured of two files."""

    files: list[dict[str, Any]]
    """``path`` and ``runtime`` of each."""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    ratio: dict[str, float] | None = None
    """``value``, ``low``, ``high``, ``coverage``; null without a block."""
    precise: bool = False
    """Whether the interval is as narrow as was asked."""
    killed: int | None = None
    """The signal that ended a block."""
    cut: str | None = None
    """Why it ended before it was precise or all blocks were done."""


def compare(
    paths: tuple[str, str],
    until: Until,
    *,
    ask: Callable[..., Any],
    tell: Callable[[int, int, str], None],
) -> Compared:
    """Measure the first file's time over the second's, block by block, until it is precise.

    It never looks at what the ratio is, only at how well it is known: so going on can't favour an
    answer. The file that is loaded first changes from block to block.

    Args:
        paths: The two files.
        until: When there is enough; ``time_limit`` ends it whatever happens.
        ask: ``ask(path, job, seconds)`` does a job and gives an ``spawn.Ended``.
        tell: Gets the blocks that are done, those that there will be, and the file, for progress.

    Raises:
        InputError: A file can't be used.
        DeviceError: A runtime failed.
    """
    found = Compared([{"path": path, "runtime": None} for path in paths])
    end = time.monotonic() + until.time_limit
    longest = 0.0
    for number in range(until.max_blocks):
        left = end - time.monotonic()
        if left <= longest:
            found.cut = f"the time limit of {until.time_limit:g} s was reached"
            break
        tell(number, max(until.blocks, number + 1), paths[0])
        job = {
            "task": "compare",
            "swapped": number % 2 == 1,
            "seconds": until.block_seconds,
            "max_seconds": left / 2,
        }
        ended = ask(paths[0], job, left)
        longest = max(longest, left - (end - time.monotonic()))
        for file, runtime in zip(found.files, ended.answer.pop("runtimes", [])):  # noqa: B905 - 3.8
            file["runtime"] = runtime
        if ended.late or ended.killed is not None:
            found.killed = ended.killed
            found.cut = (
                f"a block took more than {left:.1f} s and was killed" if ended.late else None
            )
            break
        found.blocks.append(ended.answer)
        estimate = _estimate(found)
        found.precise = estimate.half_width <= until.precision
        if found.precise and len(found.blocks) >= until.blocks:
            break
    return found


def _estimate(found: Compared) -> Estimate:
    estimate = ratio_with_interval([block["ratio"] for block in found.blocks])
    found.ratio = asdict(estimate)
    return estimate


def compare_block(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Load ``path`` and ``other``, the latter first where ``swapped``, and let them take turns.

    It goes on for ``seconds`` of CPU time and until each file has eight samples, or until
    ``max_seconds`` are over. ``seconds`` in the answer is what a run of each took, the lower
    quartile of its samples; ``ratio`` the first over the second; ``clock`` what told it.

    Raises:
        InputError: A file or the inputs can't be used.
        DeviceError: A runtime failed, or ``max_seconds`` didn't do for one sample of each.
    """
    clock = "cpu" if job["threads"] == 1 else "wall"
    now = time.process_time_ns if clock == "cpu" else time.perf_counter_ns
    end = time.perf_counter() + job["max_seconds"]
    places = (1, 0) if job["swapped"] else (0, 1)
    loaded = {place: _Loaded.open(job, place, now) for place in places}
    yield {"runtimes": [loaded[place].session.runtime for place in (0, 1)]}
    pair = (loaded[0], loaded[1])
    sample = max(_SHORTEST, *(each.best for each in pair))
    for each in pair:
        each.plan(sample)
    gc.collect()
    gc.disable()
    started = time.perf_counter(), time.process_time()
    turn = 0
    while time.perf_counter() < end:
        for each in pair if turn % 2 == 0 else pair[::-1]:
            each.turn(now)
        turn += 1
        if min(len(each.samples) for each in pair) >= _SAMPLES and (
            time.process_time() - started[1] >= job["seconds"]
        ):
            break
    if not turn:
        raise DeviceError(f"{job['path']}: {job['max_seconds']:.1f} s didn't do for one run of it")
    seconds = [each.seconds for each in pair]
    yield {
        "ratio": seconds[0] / seconds[1],
        "clock": clock,
        "seconds": [round(value, 12) for value in seconds],
        "samples": [len(each.samples) for each in pair],
        "runs": [len(each.samples) * each.runs for each in pair],
        "wall": round(time.perf_counter() - started[0], 9),
        "cpu": round(time.process_time() - started[1], 9),
    }


@dataclass
class _Loaded:
    """One of the two files in its runtime."""

    session: Session
    arrays: list[np.ndarray[Any, Any]]
    best: int
    """Nanoseconds of its shortest run while it warmed up."""
    runs: int = 1
    """Of a sample."""
    rounds: int = 1
    """Samples of a turn."""
    samples: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, job: dict[str, Any], place: int, now: Callable[[], int]) -> _Loaded:
        """Load and warm up the first (0) or the second file of ``job``."""
        from edgeprune.profiler.runtime import open_session

        path = Path(job["other"] if place else job["path"])
        session = open_session(path, job["threads"])
        arrays = _inputs(session, {**job, "path": str(path)}, second=place == 1)
        times: list[int] = []
        while len(times) < _WARM_RUNS or sum(times) < _WARM:
            start = now()
            session.run(arrays)
            times.append(now() - start)
        return cls(session, arrays, min(times))

    def plan(self, sample: float) -> None:
        """Choose how many runs last ``sample`` nanoseconds, and samples a turn."""
        self.runs = max(1, round(sample / max(1, self.best)))
        self.rounds = max(1, round(_TURN / sample))

    def turn(self, now: Callable[[], int]) -> None:
        """Take one turn."""
        run, arrays = self.session.run, self.arrays
        if self.runs * self.rounds >= _REWARMED:
            run(arrays)
        for _ in range(self.rounds):
            start = now()
            for _ in range(self.runs):
                run(arrays)
            self.samples.append(now() - start)

    @property
    def seconds(self) -> float:
        """What a run takes."""
        return percentile(self.samples, _SHARE) / self.runs * 1e-9


def _inputs(session: Session, job: dict[str, Any], *, second: bool) -> list[np.ndarray[Any, Any]]:
    """Given inputs are the first file's; the second has random ones where they don't fit it."""
    from edgeprune.profiler.inputs import job_inputs

    if second and job["inputs"] is not None:
        try:
            return job_inputs(session.inputs, job)
        except InputError:
            return job_inputs(session.inputs, {**job, "inputs": None})
    return job_inputs(session.inputs, job)
