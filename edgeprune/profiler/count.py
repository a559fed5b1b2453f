# SPDX-License-Identifier: Apache-2.0
"""Inferences between marker system calls, for an instruction counter outside of this process.

A marker is a seek that every kernel refuses: it changes nothing, and an emulator's plugin sees it
(``device/emulated/count.c``). Nothing is counted here; without a counter the runs are just runs.
Runs on the device: standard library and numpy, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import TYPE_CHECKING, Any

from edgeprune.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from edgeprune.profiler.runtime import Session

__all__ = ["EMPTY", "MAGIC", "WARMUP", "count"]

MAGIC = 0x6570
"""What a marker's offset has above its lower 16 bits, which number it."""
EMPTY = 3
"""Pairs of markers with nothing between them: what the marking itself costs."""
WARMUP = 3
"""Runs before the first marker: kernels pack weights and size their buffers in these."""
_MOST = 0x10000 // 2 - EMPTY


def count(session: Session, arrays: list[np.ndarray[Any, Any]], runs: int) -> dict[str, Any]:
    """Run ``session`` on ``arrays``, each run between two markers of its own.

    Markers are numbered from 0: the first ``EMPTY`` pairs have nothing between them, each further
    pair has one run.

    Raises:
        InputError: ``runs`` is less than 1, or more than can be numbered.
        DeviceError: The runtime failed while running.
    """
    if not 1 <= runs <= _MOST:
        raise InputError(f"--runs is {runs}; it should be 1 to {_MOST}")
    for _ in range(WARMUP):
        session.run(arrays)
    gc.collect()
    gc.disable()
    try:
        for pair in range(EMPTY):
            _mark(2 * pair)
            _mark(2 * pair + 1)
        for pair in range(EMPTY, EMPTY + runs):
            _mark(2 * pair)
            session.run(arrays)
            _mark(2 * pair + 1)
    finally:
        gc.enable()
    return {"runtime": session.runtime, "warmup": WARMUP, "empty": EMPTY, "runs": runs}


def _mark(number: int) -> None:
    with contextlib.suppress(OSError):
        os.lseek(-1, MAGIC << 16 | number, os.SEEK_SET)
