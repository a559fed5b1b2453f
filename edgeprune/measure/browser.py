# SPDX-License-Identifier: Apache-2.0
"""Measure artifacts in WebAssembly: in Node, or in headless Chromium.

What is measured is the runtime of a web page on this machine's CPU, not a visitor's machine.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.device import web
from edgeprune.device.weights import weight_files
from edgeprune.errors import DeviceError, InputError
from edgeprune.figure import Figure, measured
from edgeprune.measure.figures import Origins, Samples, summarize
from edgeprune.measure.result import Conditions, Profile
from edgeprune.measure.rounds import WARMUP, Rounds, take_turns
from edgeprune.measure.sizes import sizes
from edgeprune.profiler.inputs import random_inputs, real_inputs
from edgeprune.profiler.machine import describe
from edgeprune.profiler.runtime import detect_format, open_session
from edgeprune.profiler.stats import Estimate, median, median_with_interval, percentile, usable
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import ProfileOptions

__all__ = ["measure_web"]

_TAINT = 1.5
"""Wall time over CPU time from which a block counts as disturbed."""
_COARSE = 20
"""Steps of the timer that a run should last."""
_GRACE = 120.0
"""Seconds beyond its runs after which a measuring process counts as hung."""

Array = np.ndarray[Any, Any]


def measure_web(
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    *,
    folder: Path,
    engine: str,
    progress: Progress | None = None,
) -> Profile:
    """Measure ``files`` in onnxruntime-web (``.onnx``) and LiteRT.js (``.tflite``, in Chromium).

    Each block is a fresh process of Node or of the browser, and the files take turns. Beside the
    figures of ``Profile``: ``memory_wasm`` (B), the largest size of the runtime's WebAssembly
    memory, and ``drift``, the largest difference of an output from that of this host's runtime.

    Args:
        files: Artifacts by the name to report them under.
        options: Rounds, seconds and runs of a block, time limit.
        conditions: Threads, seed and inputs.
        folder: Where ``edgeprune.device.web.set_up`` put the runtimes.
        engine: ``node`` or ``chromium``.
        progress: Where to show the progress.

    Raises:
        InputError: A file or the inputs can't be used, or the runtime refuses a file.
        DeviceError: Node, the browser or the runtimes aren't there, or a process died or hung.
    """
    forms = {name: detect_format(path) for name, path in files.items()}
    run = _Run(folder, engine, options, conditions)
    for name, path in files.items():
        if engine == "chromium" or forms[name] == "onnx":
            run.prepare(name, path, forms[name])
    total = len(run.jobs) * options.blocks
    with (progress or Silent()).bar("measuring", total) as bar:
        rounds = take_turns(list(run.jobs), options, conditions.seed, run.block, bar)
    return _profile(files, forms, run, rounds)


@dataclass
class _Job:
    path: Path
    content: dict[str, Any]
    """As ``measure.mjs`` takes it, without what differs from block to block."""
    expected: dict[str, Array]
    """Outputs of this host's runtime, by name."""
    reference: str
    """Its name and version."""
    drift: float | None = None


@dataclass
class _Run:
    folder: Path
    engine: str
    options: ProfileOptions
    conditions: Conditions
    jobs: dict[str, _Job] = field(default_factory=dict)
    found: str = ""
    """Name and version of the engine."""
    timers: list[float] = field(default_factory=list)
    """Steps of its timer, in seconds, as each process saw them."""

    @property
    def where(self) -> str:
        """The engine and this machine."""
        if not self.timers:
            return f"{self.engine} on {describe()}"
        return f"{self.found} (timer steps of {1e6 * median(self.timers):.1g} us) on {describe()}"

    def prepare(self, name: str, path: Path, form: str) -> None:
        """Make the inputs, and run them here.

        Raises:
            InputError: The model or its inputs can't be used.
        """
        beside = weight_files(path)
        if beside:
            raise InputError(
                f"{path}: has weights in {beside[0].name}, and a browser gets one file alone: "
                "save the model with its weights inside (onnx.save(onnx.load(FILE), OTHER))"
            )
        session, given = open_session(path), self.conditions.inputs
        arrays = (
            random_inputs(session.inputs, self.conditions.seed, dict(self.conditions.sizes))
            if given is None
            else real_inputs(session.inputs, given)
        )
        content = {
            "format": form,
            "threads": self.conditions.threads,
            "inputs": [
                {
                    "name": spec.name,
                    "type": spec.dtype,
                    "dims": array.shape,
                    "data": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
                }
                for spec, array in zip(session.inputs, arrays, strict=True)
            ],
            "warmup": WARMUP,
            "seconds": self.options.block_seconds,
            "min_runs": self.options.min_runs,
        }
        outputs = zip(session.outputs, session.run(arrays), strict=True)
        expected = {spec.name: output for spec, output in outputs}
        self.jobs[name] = _Job(path, content, expected, session.runtime)

    def block(self, name: str, turn: int, seconds: float) -> dict[str, Any]:
        """One fresh process; the first one's outputs are compared with this host's."""
        job = self.jobs[name]
        answer = web.run_job(
            name,
            job.path,
            {**job.content, "max_seconds": seconds, "outputs": job.drift is None},
            folder=self.folder,
            engine=self.engine,
            timeout=seconds + _GRACE,
        )
        if job.drift is None:
            job.drift = _drift(name, answer["outputs"], job.expected)
        self.found = answer["engine"]
        self.timers.append(answer["timer"])
        wall, cpu, times = answer["wall"], answer["cpu"], answer["times"]
        busy = cpu is not None and wall > _TAINT * cpu
        return {
            "runtime": web.runtime_name(job.content["format"]),
            "runs": len(times),
            "load": answer["load"],
            "first": answer["first"],
            **{f"p{share}": percentile(times, share / 100) for share in (50, 90, 99)},
            "tainted": [f"wall time over {_TAINT:g} x CPU time"] if busy else [],
            "timer": answer["timer"],
            "memory": answer["memory"],
        }


def _drift(name: str, outputs: Sequence[Mapping[str, Any]], expected: Mapping[str, Array]) -> float:
    """Largest absolute difference, over all outputs; NaN or infinite where an output is.

    They are matched by name, or by their order where the runtime has other names for them.
    """
    if len(outputs) != len(expected):
        raise DeviceError(f"{name}: {len(outputs)} outputs came back, {len(expected)} were due")
    named = {output["name"]: output for output in outputs}
    matched = [named[key] for key in expected] if named.keys() == expected.keys() else outputs
    worst = 0.0
    for output, wanted in zip(matched, expected.values(), strict=True):
        given = np.frombuffer(base64.b64decode(output["data"]), output["type"])
        if given.size != wanted.size:
            raise DeviceError(
                f"{name}: output {output['name']} has {given.size} elements, {wanted.size} were due"
            )
        with np.errstate(invalid="ignore"):  # infinity less infinity
            difference = given.astype("float64") - wanted.astype("float64").ravel()
        worst = float(np.abs(difference).max(initial=worst))  # NaN stays NaN
    return worst


def _profile(
    files: Mapping[str, Path], forms: Mapping[str, str], run: _Run, rounds: Rounds
) -> Profile:
    where = run.where
    when = datetime.now(UTC).isoformat(timespec="seconds")
    origins = Origins(where, when, run.conditions.threads, run.conditions.kind)
    known = sizes(files)
    samples = {name: Samples(blocks=blocks) for name, blocks in rounds.blocks.items()}
    found, missing, notes = summarize(known, samples, origins)
    figures = {name: found.get(name) or {"bytes": known[name]} for name in files}
    for name, job in run.jobs.items():
        figures[name] |= _further(rounds.blocks[name], job, origins)
    missing = (*_unmeasured(forms, run, rounds), *missing)
    return Profile(figures, missing, (*notes, *_remarks(run, rounds)), where)


def _further(blocks: Sequence[Mapping[str, Any]], job: _Job, origins: Origins) -> dict[str, Figure]:
    """What only the web has: its load, its memory; and the drift."""
    if not blocks:
        return {}
    runtime, count = blocks[0]["runtime"], len(blocks)
    found = {}
    used = usable(blocks)
    if len(used) > 1:
        estimate = median_with_interval([block["load"] for block in used])
        how = (
            f"load: {runtime} imported, its WebAssembly compiled, the model read, all from this "
            f"machine; median of {len(used)} fresh processes with its "
            f"{100 * estimate.coverage:.0f} % order-statistic interval"
        )
        found["load"] = origins.figure(estimate, "s", how, len(used))
    sizes = [block["memory"] for block in blocks]
    how = (
        f"WebAssembly memory of {runtime} at the end; it never shrinks, and grows in large steps; "
        "JavaScript's own memory not in it; median of fresh processes, interval from the lowest "
        "to the highest"
    )
    estimate = Estimate(median(sizes), min(sizes), max(sizes), 1.0)
    found["memory_wasm"] = origins.figure(estimate, "B", how, count)
    if job.drift is not None and np.isfinite(job.drift):
        largest = max(
            (float(np.abs(each).max(initial=0)) for each in job.expected.values()), default=0.0
        )
        how = (
            f"largest difference of an output of {runtime} from {job.reference} on this host, of "
            f"outputs up to {largest:.3g}; {origins.inputs} inputs"
        )
        found["drift"] = measured(
            job.drift, "output units", how, where=origins.where, when=origins.when, runs=1
        )
    return found


def _unmeasured(forms: Mapping[str, str], run: _Run, rounds: Rounds) -> list[str]:
    lines = []
    if rounds.cut:
        lines.append(f"the time limit of {run.options.time_limit:g} s ended the measuring")
    lines += [
        f"{name}: {web.runtime_name('tflite')} needs a browser, Node isn't one: "
        "measure it with --device web:chromium"
        for name in forms
        if name not in run.jobs
    ]
    lines += [
        f"{name}: drift: an output is infinite or not a number"
        for name, job in run.jobs.items()
        if job.drift is not None and not np.isfinite(job.drift)
    ]
    if run.jobs:
        lines.append("memory_peak: a page isn't told; memory_wasm is its WebAssembly part")
    return lines


def _remarks(run: _Run, rounds: Rounds) -> list[str]:
    notes = []
    if run.engine == "chromium" and run.jobs:
        notes.append("a page isn't told its CPU time: disturbed blocks can't be told from others")
    for name, blocks in rounds.blocks.items():
        coarse = [block for block in blocks if block["p50"] < _COARSE * block["timer"]]
        if coarse:
            step, run_time = coarse[0]["timer"], coarse[0]["p50"]
            notes.append(
                f"{name}: a run of {1e6 * run_time:.0f} us is short for a timer with steps of "
                f"{1e6 * step:.2g} us"
            )
    return notes
