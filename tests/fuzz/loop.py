# SPDX-License-Identifier: Apache-2.0
"""Break files for so many seconds, in a process whose memory and time are limited."""

import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

__all__ = ["Limits", "in_a_process", "run"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Limits:
    """What one file may take."""

    seconds: int
    addresses: int
    """Bytes of memory of the process."""
    growth: int | None = None
    """Bytes that the process may grow by."""


def run(
    form: str,
    seconds: float,
    seed: int,
    whole: Sequence[bytes],
    make: Callable[[random.Random], bytes],
    judge: Callable[[bytes, Path], str],
    limits: Limits,
) -> int:
    """Judge broken files; 0 where none did harm and some were refused. One that does harm is
    written to the working folder."""
    chance = random.Random(seed)
    counts = {"read": 0, "refused": 0}

    def give_up(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"one file took more than {limits.seconds} s")  # none catches it

    signal.signal(signal.SIGALRM, give_up)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        judge(whole[0], path)  # what is imported by then is no growth
        before = _peak()
        resource.setrlimit(resource.RLIMIT_AS, (limits.addresses, limits.addresses))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            content = make(chance)
            signal.alarm(limits.seconds)
            try:
                counts[judge(content, path)] += 1
                grown = _peak() - before
                assert limits.growth is None or grown < limits.growth, f"grew by {grown:,} bytes"
            except BaseException:
                Path(f"fuzz-{form}.bin").write_bytes(content)
                raise
            signal.alarm(0)
    print(f"{form}: {counts['read']} read, {counts['refused']} refused")
    return 0 if counts["refused"] else 1


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_a_process(module: str, form: str, seconds: int, request: pytest.FixtureRequest) -> None:
    """Run a module's program on a form; it prints what it did."""
    asked = request.config.getoption("--fuzz-seed")
    seed = str(random.SystemRandom().randrange(2**32) if asked is None else asked)
    command = [sys.executable, "-m", f"tests.fuzz.{module}", form, str(seconds), seed]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, f"seed {seed}: {run.stderr}"
    print(run.stdout)
