# SPDX-License-Identifier: Apache-2.0
"""The agent: measures artifacts on the device that it runs on, and answers in one line of JSON.

    python3 edgeprune-agent.pyz TASK [options] [--] FILE...

The line is ``{"schema": 1, "agent": VERSION, "task": TASK, "device": {...}, "result": {...}}``, or
with ``error`` and ``exit_code`` in place of the last two: 2 where the input or the device's
packages can't be used, 3 where something failed. The exit code of the program is the same.

Nothing is kept on the device, nothing is sent, nothing but Python, numpy and one runtime is
needed. It ends with the connection that it was started through. Standard library only, Python 3.8
or newer; numpy and the runtime are imported in the measuring processes alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgeprune import __version__
from edgeprune.errors import DeviceError, EdgepruneError, InputError
from edgeprune.profiler import memory, options, spawn, throttle
from edgeprune.profiler.compare import Until, compare
from edgeprune.profiler.energy import measure_energy
from edgeprune.profiler.latency import Limits, measure_latency
from edgeprune.profiler.machine import fingerprint
from edgeprune.profiler.probe import probe

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["SCHEMA", "main"]

SCHEMA = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments ask and print the answer; the exit code."""
    _open_standard_files()
    task = None
    try:
        spawn.hear_signals()
        given = options.parse(sys.argv[1:] if arguments is None else arguments)
        task = given.task
        device = fingerprint()
        result = _Agent(given, device["emulated"]).do()
        return _print({"task": task, "device": device, "result": result}, 0)
    except EdgepruneError as error:
        code = 2 if isinstance(error, InputError) else 3
        return _print({"task": task, "error": _one_line(error), "exit_code": code}, code)
    except spawn.Stopped as stopped:
        return 128 + stopped.number


class _Agent:
    """One task of the agent."""

    def __init__(self, given: Namespace, emulated: str | None) -> None:
        self.given = given
        # What an emulated process starts runs on the host's own processor, if at all.
        self.fork = emulated == "qemu-user"
        self._end = time.monotonic() + getattr(given, "time_limit", 0.0)
        self._tasks: dict[str, Callable[[], dict[str, Any]]] = {
            "compare": self._compare,
            "count": self._count,
            "energy": self._energy,
            "latency": self._latency,
            "memory": self._memory,
            "ops": self._ops,
            "probe": probe,
            "run": self._run,
        }

    def do(self) -> dict[str, Any]:
        """Do the task and give its result."""
        return self._tasks[self.given.task]()

    def _memory(self) -> dict[str, Any]:
        if not memory.available():
            raise DeviceError(f"this system ({sys.platform}) doesn't tell a process its memory")
        found = [_Memory(path) for path in self.given.files]
        total = len(found) * self.given.repeats
        for repeat in range(self.given.repeats):
            for place, file in enumerate(found):
                self._tell(repeat * len(found) + place, total, file.path)
                if file.killed is None and file.cut is None:
                    file.add(self._ask(file.path, {"task": "memory", "arena": True}))
        return {"files": [file.told() for file in found]}

    def _latency(self) -> dict[str, Any]:
        given = self.given
        limits = Limits(
            given.blocks, given.block_seconds, given.min_runs, given.max_blocks, given.time_limit
        )
        found = measure_latency(
            given.files,
            limits,
            seed=given.seed,
            ask=self._ask,
            state=throttle.state,
            tell=self._tell,
        )
        return {"files": [asdict(file) for file in found]}

    def _compare(self) -> dict[str, Any]:
        given = self.given
        until = Until(
            given.precision, given.blocks, given.max_blocks, given.block_seconds, given.time_limit
        )
        other = _absolute(given.files[1])

        def ask(path: str, job: dict[str, Any], seconds: float) -> spawn.Ended:
            return self._ask(path, {**job, "other": other}, seconds)

        return asdict(compare(tuple(given.files), until, ask=ask, tell=self._tell))

    def _ops(self) -> dict[str, Any]:
        return self._answer({"task": "ops"})

    def _run(self) -> dict[str, Any]:
        return self._answer({"task": "run", "outputs": _absolute(self.given.outputs)})

    def _count(self) -> dict[str, Any]:
        """In this very process: what counts it from outside need not follow another."""
        from edgeprune.profiler.worker import perform

        answer: dict[str, Any] = {}
        with options.alarm(self.given.time_limit), _quiet_output():
            for part in perform(self._job({"task": "count", "runs": self.given.runs})):
                answer.update(part)
        return answer

    def _energy(self) -> dict[str, Any]:
        given = self.given

        def busy(tick: tuple[float, Callable[[], None]]) -> dict[str, Any]:
            return self._answer({"task": "busy", "seconds": given.seconds}, tick=tick)

        self._tell(0, 1, given.files[0])
        return measure_energy(given.seconds, given.meter, busy, _wait)

    def _answer(self, job: dict[str, Any], **watching: Any) -> dict[str, Any]:
        """Do a job of one file that is worth nothing by halves.

        Raises:
            DeviceError: It was killed, or its time is over.
        """
        path = self.given.files[0]
        ended = self._ask(path, job, **watching)
        if ended.late:
            limit = self.given.time_limit
            raise DeviceError(f"{path}: the time limit of {limit:g} s was reached")
        if ended.killed is not None:
            raise DeviceError(f"{path}: {spawn.reason(ended.killed)}")
        return ended.answer

    def _ask(
        self, path: str, job: dict[str, Any], seconds: float | None = None, **watching: Any
    ) -> spawn.Ended:
        left = self._end - time.monotonic()
        return spawn.ask(
            self._job(job, path),
            seconds=left if seconds is None else min(left, seconds),
            # Latency keeps malloc as it is: with fixed thresholds the blocks of four small files
            # spread no less, and a file with an output of 1 MB took 503 instead of 65 µs, since
            # each of its outputs was mapped anew.
            environment=memory.STEADY_MALLOC if job["task"] == "memory" else {},
            fork=self.fork,
            **watching,
        )

    def _job(self, job: dict[str, Any], path: str | None = None) -> dict[str, Any]:
        given = self.given
        common = {
            "path": _absolute(path or given.files[0]),
            "threads": given.threads,
            "seed": given.seed,
            "memory_limit": given.memory_limit,
            "inputs": _absolute(given.inputs) if given.inputs else None,
            "sizes": given.sizes,
        }
        return {**common, **job}

    def _tell(self, done: int, total: int, text: str) -> None:
        if self.given.progress:
            words = " ".join(text.encode("utf-8", "replace").decode().split())
            print("progress", done, total, words, file=sys.stderr, flush=True)


class _Memory:
    """What was measured of one file's memory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.killed: int | None = None
        self.cut: str | None = None
        self._answers: list[dict[str, Any]] = []
        self._runtime: str | None = None

    def add(self, ended: spawn.Ended) -> None:
        """Take the answer of one process, whole or not."""
        self._runtime = ended.answer.get("runtime", self._runtime)
        if ended.late:
            self.cut = "the time limit was reached"
        self.killed = ended.killed
        if "peak" in ended.answer:
            self._answers.append(ended.answer)
            if ended.killed is not None:  # in the arena's part, after all that counts was done
                self._answers[-1]["arena_reason"] = spawn.reason(ended.killed)
                self.killed = None

    def told(self) -> dict[str, Any]:
        """Give what the answer says of the file."""
        answers = self._answers
        arenas = [answer["arena"] for answer in answers if answer.get("arena")]
        largest = max(arenas, key=lambda arena: int(arena["bytes"])) if arenas else None
        reasons = [answer.get("arena_reason") for answer in answers]
        unknown = "it wasn't measured" if self.killed is None else spawn.reason(self.killed)
        return {
            "path": self.path,
            "runtime": self._runtime,
            **{key: [answer[key] for answer in answers] for key in ("peak", "base", "model")},
            "reset": bool(answers) and all(answer["reset"] for answer in answers),
            "arena": largest,
            "arenas": [arena["bytes"] for arena in arenas],
            "arena_reason": None if largest else next(filter(None, reasons), unknown),
            "killed": self.killed,
            "cut": self.cut,
        }


def _wait(seconds: float, tick: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        spawn.check_connection()
        tick()
        time.sleep(min(0.05, max(0.0, end - time.monotonic())))


def _absolute(path: str) -> str:
    """``path`` from the root on, for a process that needn't share this folder; links are kept."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", resolve drops links


def _print(answer: dict[str, Any], code: int) -> int:
    line = json.dumps({"schema": SCHEMA, "agent": __version__, **answer})
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:  # nobody reads it any more
        return 3
    return code


def _one_line(error: EdgepruneError) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def _quiet_output() -> Any:
    """Keep standard output for the answer, whatever a runtime prints."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _open_standard_files() -> None:
    """Let 0, 1 and 2 be open files, so that none of ours gets one of these numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")
