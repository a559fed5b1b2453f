# SPDX-License-Identifier: Apache-2.0
"""Measure artifacts on an Android phone with ``benchmark_model``. Not tried on hardware."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.device.adb import Phone, Visit
from edgeprune.device.benchmark_text import Benchmark, Op
from edgeprune.errors import InputError
from edgeprune.figure import Figure
from edgeprune.measure.figures import Origins, dense_of
from edgeprune.measure.result import Conditions, Profile
from edgeprune.measure.rounds import WARMUP, Rounds, take_turns
from edgeprune.measure.sizes import sizes
from edgeprune.profiler.runtime import detect_format
from edgeprune.profiler.stats import Estimate, median, median_with_interval
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import ProfileOptions

__all__ = ["measure_adb", "ops_adb"]

_MEMORY_ROUNDS = 3
_MEMORY_SECONDS = 0.3
"""Of runs while the tool watches its memory, which it does every 50 ms."""
_GRACE = 120.0
"""Seconds beyond its runs after which the tool counts as hung."""
_MIN_BLOCKS = 2
_MISSING = (
    "latency_p90, latency_p99: benchmark_model prints the 5th, 50th and 95th percentile only",
    "drift: benchmark_model runs on random inputs of its own",
)
_OWN_INPUTS = "the given inputs: benchmark_model makes its own random ones"


def measure_adb(
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    *,
    serial: str,
    benchmark_model: Path,
    cores: str | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure the ``.tflite`` files among ``files`` on a phone. Not tried on hardware.

    Each block is one run of ``benchmark_model`` and the files take turns; its inputs are random
    numbers of its own. Beside the figures of ``Profile``: ``latency_mean`` and ``latency_p95``
    (s). Percentiles are there only if this ``benchmark_model`` prints them.

    Args:
        files: Artifacts by the name to report them under.
        options: Rounds, seconds and runs of a block, time limit.
        conditions: Threads, and the seed of the order; inputs can't be given to the tool.
        serial: Of the phone.
        benchmark_model: The program, built for Android.
        cores: Mask in hex of the cores to use, ``f0`` for 4 to 7; ``None``: all.
        progress: Where to show the progress.

    Raises:
        InputError: A file can't be read, or ``benchmark_model`` isn't a program for Android.
        DeviceError: The phone can't be reached or can't run it, or it failed.
    """
    forms = {name: detect_format(path) for name, path in files.items()}
    models = {name: path for name, path in files.items() if forms[name] == "tflite"}
    phone = Phone(serial)
    figures = {name: {"bytes": figure} for name, figure in sizes(files).items()}
    missing = [
        f"{name}: benchmark_model runs .tflite files only; of .onnx the bytes are known"
        for name, form in forms.items()
        if form == "onnx"
    ]
    notes = () if conditions.inputs is None else (_OWN_INPUTS,)
    if not models:
        return Profile(figures, tuple(missing), notes, phone.name)
    bar = (progress or Silent()).bar("measuring", len(models) * options.blocks)
    with phone.visit(benchmark_model, models) as visit, bar as shown:
        run = _Run(visit, options, conditions.threads, cores)
        rounds = take_turns(list(models), options, conditions.seed, run.block, shown)
    if rounds.cut:
        missing.append(f"the time limit of {options.time_limit:g} s ended the measuring")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    where = visit.facts.title + (f", cores {cores}" if cores else "")
    origins = Origins(where, when, conditions.threads, "random")
    for name in models:
        found, lacks = _figures(name, rounds, run.memory.get(name, []), origins)
        figures[name] |= found
        missing += lacks
    return Profile(figures, (*missing, *_MISSING), notes, where)


def ops_adb(
    path: Path,
    *,
    serial: str,
    benchmark_model: Path,
    threads: int = 1,
    cores: str | None = None,
) -> tuple[Op, ...]:
    """Times of the operators of a ``.tflite`` file on a phone. Not tried on hardware.

    Raises:
        InputError: As ``measure_adb``, or the file isn't a ``.tflite``.
        DeviceError: As ``measure_adb``.
    """
    if detect_format(path) != "tflite":
        raise InputError(f"{path}: benchmark_model runs .tflite files only")
    with Phone(serial).visit(benchmark_model, {path.name: path}) as visit:
        options = {"num_threads": threads, "enable_op_profiling": True}
        return visit.run(path.name, options, cores=cores, timeout=_GRACE + 150).ops


@dataclass
class _Run:
    visit: Visit
    options: ProfileOptions
    threads: int
    cores: str | None
    memory: dict[str, list[Benchmark]] = field(default_factory=dict)

    def block(self, name: str, turn: int, seconds: float) -> dict[str, Any]:
        """One run of the tool; in the first rounds one more that watches its memory, whose times
        don't count."""
        if turn < _MEMORY_ROUNDS:
            watched = self._bench(name, 1, _MEMORY_SECONDS, seconds, watch=True)
            self.memory.setdefault(name, []).append(watched)
        options = self.options
        found = self._bench(name, options.min_runs, options.block_seconds, seconds, watch=False)
        # The tool says nothing of its CPU time, so a disturbed block can't be told from others.
        return {"benchmark": found, "tainted": []}

    def _bench(
        self, name: str, runs: int, seconds: float, most: float, *, watch: bool
    ) -> Benchmark:
        flags = {
            "num_threads": self.threads,
            "warmup_runs": 1,
            "warmup_min_secs": min(WARMUP, seconds),
            "num_runs": runs,
            "min_secs": seconds,
            "max_secs": round(most, 3),
        } | ({"report_peak_memory_footprint": True} if watch else {})
        return self.visit.run(name, flags, cores=self.cores, timeout=2 * most + _GRACE)


def _figures(
    name: str, rounds: Rounds, watched: Sequence[Benchmark], origins: Origins
) -> tuple[dict[str, Figure], list[str]]:
    """Figures of one file, and what is missing."""
    found, missing = _memory(name, watched, origins)
    blocks = [block["benchmark"] for block in rounds.blocks[name]]
    if len(blocks) < _MIN_BLOCKS:
        done = "one block was" if blocks else "no block was"
        text = (
            f"{name}: latency: {done} done, an interval takes {_MIN_BLOCKS}; raise the time limit"
        )
        return found, [*missing, text]
    tool = _tool(blocks[0])
    seconds = {
        "load": ("load (file read, tensors allocated)", [each.load for each in blocks]),
        "first_run": (
            "first run after the load",
            [each.warmup.seconds["first"] for each in blocks],
        ),
        "latency_mean": ("mean of the runs", _stat(blocks, "avg")),
        "latency_p50": ("p50 of a run", _stat(blocks, "median")),
        "latency_p95": ("p95 of a run", _stat(blocks, "p95")),
    }
    for key, (text, values) in seconds.items():
        if not values:
            missing.append(f"{name}: {key}: this benchmark_model is too old to print it")
            continue
        estimate = median_with_interval(values)
        how = f"{text}, {tool}; {_spread(estimate, len(values))}"
        runs = sum(each.runs.count for each in blocks)
        count = runs if key.startswith("latency") else len(values)
        found[key] = origins.figure(estimate, "s", how, count)
    return found | _ratio(name, rounds, origins), missing


def _memory(
    name: str, watched: Sequence[Benchmark], origins: Origins
) -> tuple[dict[str, Figure], list[str]]:
    found, missing = {}, []
    texts = {
        "memory_peak": (
            "peak memory of benchmark_model itself with the model, looked at every 50 ms",
            [each.peak for each in watched if each.peak is not None],
        ),
        "memory_model": (
            "growth of benchmark_model's memory by loading and running it; the tool itself calls "
            "it approximate",
            [each.growth for each in watched if each.growth is not None],
        ),
    }
    for key, (text, values) in texts.items():
        if not values:
            missing.append(f"{name}: {key}: this benchmark_model doesn't print it on this system")
            continue
        estimate = Estimate(median(values), min(values), max(values), 1.0)
        how = (
            f"{text}, {_tool(watched[0])}; median of {len(values)} processes, interval from the "
            "lowest to the highest"
        )
        found[key] = origins.figure(estimate, "B", how, len(values))
    return found, missing


def _ratio(name: str, rounds: Rounds, origins: Origins) -> dict[str, Figure]:
    dense = dense_of(name, rounds.blocks)
    if dense is None:
        return {}
    theirs = {block["turn"]: block["benchmark"] for block in rounds.blocks[dense]}
    pairs = [
        (block["benchmark"], theirs[block["turn"]])
        for block in rounds.blocks[name]
        if block["turn"] in theirs
    ]
    if len(pairs) < _MIN_BLOCKS:
        return {}
    key = "median" if all("median" in b.runs.seconds for pair in pairs for b in pair) else "avg"
    ratios = [round(a.runs.seconds[key] / b.runs.seconds[key], 4) for a, b in pairs]
    estimate = median_with_interval(ratios)
    word = {"median": "p50", "avg": "mean"}[key]
    how = f"{word} over that of {dense}, round by round; {_spread(estimate, len(pairs))}"
    runs = sum(mine.runs.count for mine, _ in pairs)
    return {"latency_ratio": origins.figure(estimate, "x", how, runs)}


def _stat(blocks: Sequence[Benchmark], key: str) -> list[float]:
    """One statistic of all blocks, or nothing where one lacks it."""
    if not all(key in each.runs.seconds for each in blocks):
        return []
    return [each.runs.seconds[key] for each in blocks]


def _tool(found: Benchmark) -> str:
    version = f" ({found.version})" if found.version else ""
    return f"benchmark_model{version} {'with' if found.xnnpack else 'without'} XNNPACK"


def _spread(estimate: Estimate, count: int) -> str:
    return (
        f"median of {count} interleaved processes with its {100 * estimate.coverage:.0f} % "
        "order-statistic interval"
    )
