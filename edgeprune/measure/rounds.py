# SPDX-License-Identifier: Apache-2.0
"""Rounds over files that the host starts one process at a time: browsers and phones.

Every round measures each file once, in an order shuffled anew, so that all files see the same quiet
and busy times of the device.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprune.progress import Bar
from edgeprune.recipe import ProfileOptions

__all__ = ["WARMUP", "Measure", "Rounds", "take_turns"]

WARMUP = 0.5
"""Seconds of runs before those that count; WebAssembly is compiled a second time meanwhile."""

Block = dict[str, Any]
Measure = Callable[[str, int, float], Block]
"""Of a file's name, the round, and the seconds that its runs may take."""


@dataclass
class Rounds:
    """Blocks of each file, with their ``turn`` (the round) and ``tainted`` (what disturbed it)."""

    blocks: dict[str, list[Block]]
    cut: bool = False
    """Whether the time limit came before all planned blocks were done."""
    _seconds: dict[str, float] = field(default_factory=dict)

    def _clean(self, name: str) -> int:
        return sum(not block["tainted"] for block in self.blocks[name])


def take_turns(
    names: Sequence[str], options: ProfileOptions, seed: int, measure: Measure, bar: Bar
) -> Rounds:
    """Measure each of ``names`` in ``options.blocks`` rounds, and up to twice as many for blocks
    that were disturbed; ``options.time_limit`` ends it.

    Args:
        names: Files.
        options: Rounds, seconds of a block, time limit.
        seed: Of the order.
        measure: Measures one block; it may leave out ``turn``.
        bar: Advances by one for each planned block.
    """
    rounds = Rounds({name: [] for name in names})
    end = time.monotonic() + options.time_limit
    share = options.time_limit / max(1, len(names) * options.blocks)
    shuffler = random.Random(seed)
    for turn in range(2 * options.blocks):
        planned = turn < options.blocks
        if not planned and all(rounds._clean(name) >= options.blocks for name in names):
            break
        for name in shuffler.sample(list(names), len(names)):
            left = end - time.monotonic()
            if left <= rounds._seconds.get(name, 0.0):
                rounds.cut = planned
                return rounds
            start = time.monotonic()
            block = measure(name, turn, min(left, max(share, WARMUP + options.block_seconds)))
            rounds._seconds[name] = time.monotonic() - start
            rounds.blocks[name].append({**block, "turn": turn})
            if planned:
                bar.advance()
    return rounds
