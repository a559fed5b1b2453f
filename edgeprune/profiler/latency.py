# SPDX-License-Identifier: Apache-2.0
"""Rounds of blocks: each file once a round, in a fresh process, until there is enough to judge.

Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprune.profiler.stats import ENOUGH, TAINT, steady, usable

__all__ = ["Limits", "Measured", "measure_latency", "taints"]

_WARMUP = 0.3
_DROP = 0.9
"""Share of the frequency at its start that a block should end with."""


@dataclass(frozen=True)
class Limits:
    """How much is measured."""

    blocks: int = 5
    """Undisturbed ones that are wanted of each file."""
    block_seconds: float = 0.5
    min_runs: int = 20
    max_blocks: int = 30
    time_limit: float = 300.0


@dataclass
class Measured:
    """What was measured of one file."""

    path: str
    blocks: list[dict[str, Any]] = field(default_factory=list)
    runtime: str | None = None
    killed: int | None = None
    """The signal that ended a block."""
    cut: str | None = None
    """Why there are fewer blocks than were wanted."""


def measure_latency(
    paths: Sequence[str],
    limits: Limits,
    *,
    seed: int,
    ask: Callable[..., Any],
    state: Callable[[], dict[str, Any]],
    tell: Callable[[int, int, str], None],
) -> list[Measured]:
    """Measure each file in interleaved rounds, in an order shuffled by ``seed``.

    All files see the same quiet and busy times, so that they can be compared round by round. The
    rounds go on past ``limits.blocks`` to make up for disturbed blocks, while there is hope to, and
    to ``stats.ENOUGH`` where the blocks of a file differ. ``limits.time_limit`` ends it whatever
    happens: a block that hangs is killed, and its file given up, when its share of the time is
    over.

    Args:
        paths: The files.
        limits: How much is measured.
        seed: Of the order.
        ask: ``ask(path, job, seconds)`` does a job and gives an ``spawn.Ended``.
        state: What holds the processor back, as ``throttle.state``.
        tell: Gets the blocks that are done, those that there will be, and the file, for progress.

    Raises:
        InputError: A file can't be used.
        DeviceError: A runtime failed.
    """
    return _Rounds([Measured(path) for path in paths], limits, ask, state, tell).run(seed)


def taints(block: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What disturbed ``block``, by its own figures and the throttling before and after it."""
    found = []
    if block["wall"] > TAINT * block["cpu"] or (block["waited"] or 0) > (TAINT - 1) * block["cpu"]:
        found.append("it had to wait for a core")
    first, last = block["frequency_hz"]
    if first and last and last < _DROP * first:
        found.append(f"the frequency fell from {first / 1e9:.2f} to {last / 1e9:.2f} GHz")
    found += after["now"] or []
    found += sorted(set(after["boot"] or []) - set(before["boot"] or []) - set(found))
    return found


class _Rounds:
    def __init__(
        self,
        files: list[Measured],
        limits: Limits,
        ask: Callable[..., Any],
        state: Callable[[], dict[str, Any]],
        tell: Callable[[int, int, str], None],
    ) -> None:
        self.files = files
        self.limits = limits
        self._ask = ask
        self._state = state
        self._tell = tell
        self._end = time.monotonic() + limits.time_limit
        self._took = dict.fromkeys((file.path for file in files), 0.0)
        self._done = 0

    def run(self, seed: int) -> list[Measured]:
        order = random.Random(seed)
        for turn in range(self.limits.max_blocks):
            alive = [file for file in self.files if file.killed is None and file.cut is None]
            if not any(self._wants(file) for file in alive):
                break
            order.shuffle(alive)
            for file in alive:
                if self._left() <= self._took[file.path]:
                    self._out_of_time()
                    return self.files
                self._block(file, turn, len(alive))
        return self.files

    def _wants(self, file: Measured) -> bool:
        """Whether a further block of ``file`` is wanted, and of any use."""
        wanted, done = self.limits.blocks, len(file.blocks)
        clean = sum(not block["tainted"] for block in file.blocks)
        # Where so few are undisturbed that all allowed ones would not give enough, it's no use.
        hope = done < 2 * wanted or clean * self.limits.max_blocks >= wanted * done
        if done < wanted or (clean < wanted and hope):
            return True
        used = usable(file.blocks)
        return len(used) < ENOUGH and not steady([block["p50"] for block in used])

    def _block(self, file: Measured, turn: int, alive: int) -> None:
        limits = self.limits
        self._tell(self._done, max(self._done + 1, limits.blocks * len(self.files)), file.path)
        share = limits.time_limit / (len(self.files) * limits.blocks)
        job = {
            "task": "latency",
            "warmup": _WARMUP,
            "seconds": limits.block_seconds,
            "max_seconds": min(self._left(), max(share, _WARMUP + limits.block_seconds)),
            "min_runs": limits.min_runs,
        }
        before = self._state()
        start = time.monotonic()
        ended = self._ask(file.path, job, max(self._left() / alive, 0.0))
        self._took[file.path] = time.monotonic() - start
        self._done += 1
        file.runtime = ended.answer.get("runtime", file.runtime)
        if ended.late:
            took = self._took[file.path]
            file.cut = f"a block didn't end within {took:.1f} s and was killed"
        elif ended.killed is not None:
            file.killed = ended.killed
        else:
            after = self._state()
            block = {"turn": turn, **ended.answer, "throttled": after["now"]}
            file.blocks.append({**block, "tainted": taints(block, before, after)})

    def _left(self) -> float:
        return self._end - time.monotonic()

    def _out_of_time(self) -> None:
        for file in self.files:
            few = len(file.blocks) < self.limits.blocks
            if few and file.killed is None and file.cut is None:
                file.cut = f"the time limit of {self.limits.time_limit:g} s was reached"
