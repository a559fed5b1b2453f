# SPDX-License-Identifier: Apache-2.0
"""What an emulated board can tell of an artifact: instructions an inference, and its outputs.

Never a time and never memory: both are the emulator's own.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgeprune.device.agent import Agent
from edgeprune.device.emulated import Board, python_words, read_board
from edgeprune.device.emulated.counter import counting, read_counts
from edgeprune.device.local import LocalShell
from edgeprune.errors import DeviceError
from edgeprune.figure import Figure, measured
from edgeprune.measure.result import Conditions, Profile
from edgeprune.measure.sizes import sizes
from edgeprune.profiler.count import WARMUP
from edgeprune.profiler.inputs import random_inputs, real_inputs
from edgeprune.profiler.machine import describe
from edgeprune.profiler.run import write_npz
from edgeprune.profiler.runtime import Session, open_session
from edgeprune.progress import Bar, Progress, Silent
from edgeprune.recipe import ProfileOptions
from edgeprune.target import Target

__all__ = ["RUNS", "measure_emulated"]

RUNS = 6
"""Inferences of a file that are counted."""
_TIMEOUT = 600.0


def measure_emulated(
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    *,
    folder: Path,
    target: Target,
    progress: Progress | None = None,
) -> Profile:
    """Count each file's instructions on an emulated board, and hold its outputs against ours.

    Args:
        files: Artifacts by the name to report them under.
        options: Only its time limit counts: no file is begun after it.
        conditions: Threads, seed and inputs; instructions are counted with one thread.
        folder: The emulated board, as ``device.emulated.set_up`` made it.
        target: Whose board it is.
        progress: Where to show the progress.

    Raises:
        InputError: Nothing is set up in ``folder``, a file or the inputs can't be used, or a
            runtime isn't installed on this machine.
        DeviceError: The emulator failed.
    """
    python = python_words(folder, target)
    board = read_board(folder)
    assert board is not None
    known = sizes(files)
    found = _Found(board, conditions.kind)
    end = time.monotonic() + options.time_limit
    bar = (progress or Silent()).bar(f"running in an emulated {board.title}", 2 * len(files))
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch, bar as steps:
        run = _Run(folder, python, Path(scratch), conditions, target.name, steps)
        for name, path in files.items():
            found.figures[name] = {"bytes": known[name]}
            if time.monotonic() > end:
                reason = f"the time limit of {options.time_limit:g} s came first"
                found.missing.append(f"{name}: instructions, drift: {reason}")
                continue
            _measure(run, found, name, path)
    return Profile(
        found.figures, (*found.missing, _refusal(board)), tuple(found.notes), found.where
    )


@dataclass
class _Found:
    """What is known so far."""

    board: Board
    inputs: str
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.emulator = f"QEMU {self.board.qemu} as {self.board.cpu}"
        self.where = f"{self.board.title} emulated by {self.emulator} on {describe()}"
        self.when = datetime.now(UTC).isoformat(timespec="seconds")

    def add_instructions(self, name: str, runtime: str, counts: list[int]) -> None:
        """Add a file's count of each run."""
        how = (
            f"instructions of one inference in {runtime}, counted by {self.emulator}: a count in "
            "an emulator, which knows no caches, memory or pipeline, and no time; median of "
            f"{len(counts)} runs after {WARMUP}, interval from the lowest to the highest; 1 "
            f"thread, {self.inputs} inputs"
        )
        self.figures[name]["instructions"] = measured(
            median(counts),
            "instructions",
            how,
            where=self.where,
            when=self.when,
            runs=len(counts),
            low=min(counts),
            high=max(counts),
        )

    def add_drift(self, name: str, runtime: str, there: list[Any], here: list[Any]) -> None:
        """Add how far a file's outputs are from this machine's."""
        pairs = [(_wide(one), _wide(other)) for one, other in zip(there, here, strict=True)]
        gap = max((_largest(one - other) for one, other in pairs), default=0.0)
        largest = max((_largest(other) for _, other in pairs), default=0.0)
        if not np.isfinite(gap):
            self.missing.append(f"{name}: drift: its outputs are not all finite")
            return
        values = sum(other.size for _, other in pairs)
        how = (
            f"largest absolute difference between the outputs of {runtime} there and on this "
            f"machine: {values} values, the largest of them {largest:.3g}; {self.inputs} inputs"
        )
        self.figures[name]["drift"] = measured(
            gap, "output units", how, where=self.where, when=self.when, runs=1
        )
        self.notes.append(
            f"{name}: outputs there differ from this machine's by at most {gap:.2g} (the largest "
            f"of {values} is {largest:.3g})"
        )


@dataclass
class _Run:
    """One emulated board at work."""

    folder: Path
    python: tuple[str, ...]
    scratch: Path
    conditions: Conditions
    target: str
    steps: Bar
    done: int = 0

    def outputs(self, path: Path) -> tuple[str, list[Any], list[Any]]:
        """The runtime there, and a file's outputs there and here for the same inputs."""
        session = open_session(path, self.conditions.threads)
        arrays = self._arrays(session)
        given, made = self.scratch / "inputs.npz", self.scratch / "outputs.npz"
        specs = zip(session.inputs, arrays, strict=True)
        write_npz(given, {spec.name: array for spec, array in specs})
        answer = self._agent(self.python).run(path, given, made, threads=self.conditions.threads)
        with np.load(made, allow_pickle=False) as file:
            there = [file[spec.name] for spec in session.outputs]
        self.steps.advance()
        return answer["runtime"], there, session.run(arrays)

    def instructions(self, path: Path) -> tuple[str, list[int]]:
        """The runtime there, and the instructions of each run."""
        self.done += 1
        out = self.scratch / f"counts-{self.done}.txt"
        options = replace(self.conditions, threads=1).options(runs=RUNS)
        agent = self._agent((*counting(self.folder, out), *self.python))
        answer = agent.ask("count", [path], options, timeout=_TIMEOUT)["result"]
        self.steps.advance()
        return answer["runtime"], read_counts(out, answer["empty"], answer["runs"])

    def _agent(self, python: tuple[str, ...]) -> Agent:
        # copied, since beside an installed edgeprune lie the packages of this machine's Python
        shell = LocalShell(name=f"emulated:{self.target}")
        return Agent(shell, python=python, folder=str(self.scratch / "agent"))

    def _arrays(self, session: Session) -> list[Any]:
        if self.conditions.inputs is None:
            return random_inputs(session.inputs, self.conditions.seed, dict(self.conditions.sizes))
        return real_inputs(session.inputs, self.conditions.inputs, whole=True)


def _measure(run: _Run, found: _Found, name: str, path: Path) -> None:
    """Add one file's figures, or why there are none."""
    runtime, there, here = run.outputs(path)
    found.add_drift(name, runtime, there, here)
    if found.board.uncounted is not None:
        found.missing.append(f"{name}: instructions: {found.board.uncounted}")
        return
    try:
        runtime, counts = run.instructions(path)
    except DeviceError as error:
        found.missing.append(f"{name}: instructions: {error}")
        return
    found.add_instructions(name, runtime, counts)


def _refusal(board: Board) -> str:
    return (
        f"latency, memory, energy: an emulator's are its own and no evidence of a {board.title}; "
        "measure there: --device ssh://USER@BOARD"
    )


def _wide(array: Any) -> Any:
    return array.astype(np.float64)


def _largest(array: Any) -> float:
    return float(np.abs(array).max(initial=0.0))
