# SPDX-License-Identifier: Apache-2.0
"""Running programs on this machine, and the one way in which all devices start theirs."""

import contextlib
import io
import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from edgeprune.device.shell import Done, Shell, Tell
from edgeprune.errors import DeviceError

__all__ = ["LocalShell", "execute"]

_CHUNK = 1 << 16
_GRACE = 2.0
"""Seconds between the polite signal and SIGKILL, and that a dead process's pipes may be silent."""
_TICK = 0.5


class LocalShell(Shell):
    """Programs of this machine.

    Args:
        folder: Where programs start; ``None``: where this process is.
        environment: Added to this process's own.
        name: The device, for messages; an emulated one runs here under its own.
    """

    def __init__(
        self,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        name: str = "local",
    ) -> None:
        self._folder, self._environment, self._name = folder, environment, name

    @property
    def name(self) -> str:
        """The device."""
        return self._name

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | BinaryIO | None = None,
        timeout: float | None = None,
        tell: Tell | None = None,
    ) -> Done:
        """Run a program; one that isn't there ends with 127, as in a shell.

        Raises:
            DeviceError: Time is over.
        """
        environment = None if self._environment is None else {**os.environ, **self._environment}
        try:
            done = execute(
                words,
                stdin=stdin,
                timeout=timeout,
                tell=tell,
                folder=self._folder,
                environment=environment,
            )
        except TimeoutError:
            raise DeviceError(
                f"{self.name}: {words[0]} took more than {timeout:g} s and was stopped"
            ) from None
        except (FileNotFoundError, PermissionError) as error:
            return Done(127, b"", f"{words[0]}: {error.strerror}")
        return done

    def close(self) -> None:
        """Nothing is held open."""


def execute(
    words: Sequence[str],
    *,
    stdin: bytes | BinaryIO | None = None,
    timeout: float | None = None,
    tell: Tell | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Start a program in a process group of its own, feed it, and wait for its end.

    Whatever ends the waiting early (time, Ctrl-C, an error in ``tell`` or ``stdin``) ends the
    whole group too.

    Raises:
        TimeoutError: It took more than ``timeout`` seconds and was stopped.
        OSError: It can't be started.
    """
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    try:
        with _Pipes(process, source, tell) as pipes:
            while pipes.open and not (process.poll() is not None and pipes.idle > _GRACE):
                pipes.serve(min(_TICK, _left(deadline)))
            left = _left(deadline)
            code = process.wait(None if left == math.inf else left)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        _stop(process)
    return Done(code, bytes(pipes.out), pipes.err.decode(errors="replace"))


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all of its group, if it isn't over yet."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)


class _Pipes:
    """What goes into a process and comes out of it."""

    def __init__(
        self, process: subprocess.Popen[bytes], source: BinaryIO | None, tell: Tell | None
    ) -> None:
        self._source, self._tell = source, tell
        self._selector = selectors.DefaultSelector()
        self._process = process
        self._chunk, self._line = b"", b""
        self._served = time.monotonic()
        self.out, self.err = bytearray(), bytearray()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            self._selector.register(pipe, selectors.EVENT_READ)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def open(self) -> bool:
        """Whether anything may still go in or come out."""
        return bool(self._selector.get_map())

    @property
    def idle(self) -> float:
        """Seconds since anything was moved; a daemon that a program leaves may hold its pipes."""
        return time.monotonic() - self._served

    def serve(self, seconds: float) -> None:
        """Move what can be moved, waiting up to ``seconds`` for it."""
        for key, _ in self._selector.select(seconds):
            self._served = time.monotonic()
            if key.fileobj is self._process.stdin:
                self._write(key.fd)
            else:
                self._read(key)

    def _write(self, number: int) -> None:
        assert self._source is not None
        assert self._process.stdin is not None
        self._chunk = self._chunk or self._source.read(_CHUNK)
        over = not self._chunk
        try:
            self._chunk = self._chunk[os.write(number, self._chunk) :]
        except BrokenPipeError:  # it has read enough; its exit code tells why
            over = True
        if over:
            self._selector.unregister(self._process.stdin)
            self._process.stdin.close()

    def _read(self, key: selectors.SelectorKey) -> None:
        chunk = os.read(key.fd, _CHUNK)
        if not chunk:
            self._selector.unregister(key.fileobj)
        elif key.fileobj is self._process.stdout:
            self.out += chunk
        else:
            self.err += chunk
            *whole, self._line = (self._line + chunk).split(b"\n")
            if self._tell is not None:
                for line in whole:
                    self._tell(line.decode(errors="replace"))
