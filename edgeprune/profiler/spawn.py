# SPDX-License-Identifier: Apache-2.0
"""Starting this very code again as a fresh process, watching it, and ending it in time.

A measuring process ends with the agent, however that ends; and the agent ends with the connection
that it talks through. Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import DeviceError, EdgepruneError, InputError
from edgeprune.profiler import worker

__all__ = ["Ended", "Stopped", "ask", "check_connection", "hear_signals", "reason"]

_CODE = (
    "import sys; sys.path[:] = [sys.argv.pop()] + [place for place in sys.path if place]; "
    "from edgeprune.profiler.worker import main; sys.exit(main())"
)
"""Nothing of the folder that the agent was started in is ever imported."""
_LOCATION = str(Path(__file__).absolute().parents[2])
"""The folder or the .pyz that this code is in."""
_LOOK = 0.25
"""Seconds between two looks at the connection."""
_KEPT = 4000
_NO_ANSWER = (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)
"""What native code dies of that gets no memory, among other causes."""
_PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """The agent was told to stop, or nobody hears it any more; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Ended:
    """A measuring process that has ended."""

    answer: dict[str, Any]
    """All that it answered, which is a part only where it was killed."""
    code: int
    """Exit code; negative: the signal that ended it."""
    late: bool
    """Whether it was killed because its time was over."""
    said: str
    """The last line of its standard error."""

    @property
    def killed(self) -> int | None:
        """The signal that ended it, where it wasn't us."""
        return -self.code if self.code < 0 and not self.late else None


def hear_signals() -> None:
    """Let SIGHUP, SIGINT and SIGTERM raise ``Stopped``; those that are ignored stay so (nohup)."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def check_connection() -> None:
    """Look whether somebody still reads standard output and error.

    Raises:
        Stopped: One of them was closed at the other end.
    """
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    if any(
        event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0)
    ):
        raise Stopped(signal.SIGHUP)


def ask(
    job: dict[str, Any],
    *,
    seconds: float,
    environment: dict[str, str] | None = None,
    fork: bool = False,
    tick: tuple[float, Callable[[], None]] | None = None,
    hear: Callable[[dict[str, Any]], None] | None = None,
) -> Ended:
    """Do ``job`` in a fresh process (``worker.TASKS`` says which there are).

    Args:
        job: ``task`` and what it takes.
        seconds: After which it is killed.
        environment: Put into its environment, beside a fixed hash seed.
        fork: Go on from this process instead of starting Python again. That is for emulated
            processes: what they start isn't emulated.
        tick: Something to call every so many seconds meanwhile.
        hear: Gets every part of the answer as it comes.

    Raises:
        InputError: The job can't be done with this input, or not within ``memory_limit``.
        DeviceError: It failed in another way than by being killed.
        Stopped: The connection is gone.
    """
    process = _Process(job, {"PYTHONHASHSEED": "0", **(environment or {})}, fork)
    try:
        late = process.watch(time.monotonic() + seconds, tick, hear)
    finally:
        process.kill()
    ended = process.ended(late)
    if "error" in ended.answer:
        kind: type[EdgepruneError] = InputError if ended.answer["exit_code"] == 2 else DeviceError
        raise kind(ended.answer["error"])
    error = worker.too_large(job, ended.said) if ended.code else None
    if error is not None:
        raise error
    if ended.code > 0:
        raise DeviceError(
            f"a measuring process failed ({ended.code}): {ended.said or 'no message'}"
        )
    return ended


def reason(number: int) -> str:
    """Say why a process was killed by signal ``number``."""
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"its process was killed ({name}), most likely for want of memory"
    if number in _NO_ANSWER:
        name += ", as a runtime may that comes to the memory limit (--memory-limit)"
    return f"its process died of {name}"


def _stop(number: int, _frame: Any) -> None:
    raise Stopped(number)


@dataclass
class _Process:
    """One measuring process: its pipes, and what came through them."""

    job: dict[str, Any]
    environment: dict[str, str]
    fork: bool
    answer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._code: int | None = None
        self._rest = {"out": b"", "err": b""}
        job_in, job_out = os.pipe()
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            try:
                os.close(job_out)
                self._become(parent, job_in, out, err)
            finally:
                os._exit(127)
        for number in (job_in, out, err):
            os.close(number)
        with contextlib.suppress(BrokenPipeError), os.fdopen(job_out, "wb") as pipe:
            pipe.write(json.dumps(self.job).encode("ascii"))

    def _become(self, parent: int, *pipes: int) -> None:
        """Turn the forked process into the measuring one; never come back."""
        os.setsid()
        _end_with(parent)
        # Where memory runs out the measuring process is to blame, and nothing else on the device.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        _limit_memory(self.job.get("memory_limit"))
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
        if self.fork:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.environ.update(self.environment)
            os._exit(worker.main())
        words = [sys.executable, "-c", _CODE, _LOCATION]
        try:
            os.execve(sys.executable, words, {**os.environ, **self.environment})
        except OSError as error:
            os.write(2, f"{sys.executable}: {error.strerror}".encode(errors="replace"))

    def watch(
        self,
        end: float,
        tick: tuple[float, Callable[[], None]] | None,
        hear: Callable[[dict[str, Any]], None] | None,
    ) -> bool:
        """Read until the process has closed its pipes; True if ``end`` came first."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        poll.register(self._err, select.POLLIN)
        opened = 2
        pause = min(_LOOK, tick[0] if tick else _LOOK)
        while opened:
            left = end - time.monotonic()
            if left <= 0:
                return True
            for number, _ in poll.poll(1000 * min(pause, left)):
                data = os.read(number, 65536)
                if not data:
                    poll.unregister(number)
                    opened -= 1
                self._take("out" if number == self._out else "err", data, hear)
            check_connection()
            if tick:
                tick[1]()
        return not self._wait(end)

    def kill(self) -> None:
        """End it, if it hasn't, and give its pipes back."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._wait(None)
        for number in (self._out, self._err):
            os.close(number)

    def ended(self, late: bool) -> Ended:
        """Tell how it ended."""
        lines = self._rest["err"].decode(errors="replace").strip().splitlines()
        return Ended(self.answer, self._code or 0, late, lines[-1] if lines else "")

    def _take(self, which: str, data: bytes, hear: Callable[[dict[str, Any]], None] | None) -> None:
        whole = self._rest[which] + data
        if which == "err":
            self._rest[which] = whole[-_KEPT:]
            return
        *lines, self._rest[which] = whole.split(b"\n")
        for line in lines:
            part = json.loads(line)
            self.answer.update(part)
            if hear:
                hear(part)

    def _wait(self, end: float | None) -> bool:
        """Wait for its end, until ``end``; None: as long as it takes."""
        while self._code is None:
            found, status = os.waitpid(self._pid, 0 if end is None else os.WNOHANG)
            if found:
                killed = os.WIFSIGNALED(status)
                self._code = -os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)
            elif end is not None and time.monotonic() > end:
                return False
            else:
                check_connection()
                time.sleep(0.005)
        return True


def _limit_memory(gibibytes: float | None) -> None:
    """Let the kernel refuse this process more memory of its own than that.

    Not of addresses (RLIMIT_AS), which runtimes reserve and never use, and pages of mapped files
    don't count.
    """
    if gibibytes is not None:
        size = int(gibibytes * 2**30)
        with contextlib.suppress(OSError, ValueError):  # a lower limit is set already
            resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when ``parent`` dies, even of SIGKILL (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError):  # some small Pythons are built without ctypes
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
