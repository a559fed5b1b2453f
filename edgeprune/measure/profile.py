# SPDX-License-Identifier: Apache-2.0
"""Measure artifacts on this machine: size, memory, latency, and the ratio to the dense model.

Runs on the host. Each figure comes from the child processes that ``child`` is the code of.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.device.process import run_child
from edgeprune.errors import InputError
from edgeprune.measure.figures import MEMORY_REPEATS, Origins, Samples, clean_blocks, summarize
from edgeprune.measure.result import Profile
from edgeprune.profiler import memory
from edgeprune.profiler.machine import describe
from edgeprune.progress import Bar, Progress, Silent
from edgeprune.recipe import ProfileOptions

__all__ = ["Profile", "profile"]

CHILD_TIMEOUT = 120.0
"""Seconds after which a measuring process counts as hung."""
WARMUP = 0.2


def profile(
    files: Mapping[str, Path],
    options: ProfileOptions,
    *,
    threads: int = 1,
    seed: int = 0,
    where: str | None = None,
    inputs: Path | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure ``files`` (``dense.onnx``, ``model.tflite`` ...; batch 1 where it is dynamic).

    Every round measures each file once, in an order shuffled with ``seed``, in a process of its
    own, so that all files see the same quiet and busy times of the machine. A file named
    ``dense.*`` is what the others of its format are compared with, round by round. Rounds go on
    past ``options.blocks`` (up to twice as many) while a file has disturbed blocks to make up for.
    ``options.time_limit`` ends the measuring; what it cut off is named in ``not_measured``.

    Args:
        files: Artifacts by the name to report them under.
        options: Rounds, seconds and runs of a block, time limit.
        threads: Compute threads of the runtimes.
        seed: Of the order and of random inputs.
        where: The machine, for the origin of figures; ``None``: ``machine.describe()``.
        inputs: Real inputs, an ``.npz``; ``None``: random ones.
        progress: Where to show the progress.

    Raises:
        InputError: A file or ``inputs`` can't be used, or a runtime isn't installed.
        DeviceError: A measuring process died or hung.
    """
    where = where or describe()
    run = _Run(dict(files), options, threads, seed, inputs)
    sizes = run.sizes()
    with (progress or Silent()).bar(
        "measuring", len(files) * (options.blocks + MEMORY_REPEATS)
    ) as bar:
        run.rounds(bar)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    origins = Origins(where, when, threads, "random" if inputs is None else "real")
    figures, missing, notes = summarize(sizes, run.samples, origins)
    if not memory.available():
        missing = (f"memory: this system ({where}) doesn't tell a process its memory", *missing)
    if run.cut:
        missing = (f"the time limit of {options.time_limit:g} s ended the measuring", *missing)
    return Profile(figures, missing, notes, where)


@dataclass
class _Run:
    files: dict[str, Path]
    options: ProfileOptions
    threads: int
    seed: int
    inputs: Path | None
    samples: dict[str, Samples] = field(default_factory=dict)
    cut: bool = False

    def __post_init__(self) -> None:
        self.samples = {name: Samples() for name in self.files}
        self._end = time.monotonic() + self.options.time_limit

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        try:
            return {name: path.stat().st_size for name, path in self.files.items()}
        except OSError as error:
            raise InputError(f"{error.filename}: can't be read: {error.strerror}") from None

    def rounds(self, bar: Bar) -> None:
        """Measure until there are enough undisturbed blocks, or the time is over."""
        order = random.Random(self.seed)
        for turn in range(2 * self.options.blocks):
            if turn >= self.options.blocks and self._enough():
                return
            names = list(self.files)
            order.shuffle(names)
            for name in names:
                if not self._measure(name, turn, bar):
                    self.cut = turn < self.options.blocks
                    return

    def _measure(self, name: str, turn: int, bar: Bar) -> bool:
        """Memory (in the first rounds) and one block; False where the time is over."""
        sample = self.samples[name]
        planned = turn < self.options.blocks
        if turn < MEMORY_REPEATS and memory.available():
            if self._left() <= 0:
                return False
            sample.memory.append(self._child(name, {"task": "memory"}))
            bar.advance()
        if self._left() <= sample.seconds:
            return False
        start = time.monotonic()
        sample.blocks[turn] = self._child(name, self._latency_job())
        sample.seconds = time.monotonic() - start
        if planned:
            bar.advance()
        return True

    def _latency_job(self) -> dict[str, Any]:
        options = self.options
        share = options.time_limit / (len(self.files) * options.blocks)
        return {
            "task": "latency",
            "warmup": WARMUP,
            "seconds": options.block_seconds,
            "max_seconds": min(self._left(), max(share, WARMUP + options.block_seconds)),
            "min_runs": options.min_runs,
        }

    def _child(self, name: str, job: dict[str, Any]) -> dict[str, Any]:
        common = {
            "path": str(self.files[name].resolve()),
            "threads": self.threads,
            "seed": self.seed,
            "inputs": None if self.inputs is None else str(self.inputs.resolve()),
        }
        return run_child(name, common | job, timeout=CHILD_TIMEOUT)

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _enough(self) -> bool:
        wanted = self.options.blocks
        return all(len(clean_blocks(s.blocks)) >= wanted for s in self.samples.values())
