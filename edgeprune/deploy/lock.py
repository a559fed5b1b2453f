# SPDX-License-Identifier: Apache-2.0
"""One client at a time in a deployment folder.

The lock is a link that leads nowhere: ``ln -s`` makes it and its text in one atomic step. The text
has a token, the time (of the client's clock: many boards have none), the client's process and its
name. Its owner renews the time as long as it lives; one that wasn't renewed for ``STALE`` seconds,
or whose process was on this machine and is no more, is broken. Whoever changes a lock that is there
holds ``lock.changing`` for that moment.
"""

import hashlib
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeprune.deploy.board import Board, LockLost
from edgeprune.device.transfer import failure
from edgeprune.errors import DeviceError

__all__ = ["RENEW", "STALE", "Lock", "age", "held", "is_dead", "owner"]

STALE = 600.0
"""Seconds after which a lock that isn't renewed counts as left behind."""
RENEW = 60.0

_TEXT = re.compile(
    r"edgeprune-[0-9a-f]+-(?P<time>[0-9]+)"
    r"-(?P<machine>[0-9a-z]+)\.(?P<process>[0-9]+)\.(?P<start>[0-9]+)-(?P<host>.*)"
)
_TIMEOUT = 60.0

_TAKE = """
LC_ALL=C; export LC_ALL
mkdir -p -- "$1" && cd "$1" || exit 1
if [ -L lock ]; then exit 75; fi
if [ -e lock ]; then echo "$1/lock: File exists" >&2; exit 1; fi
ln -s "$2" lock && exit 0
if [ -L lock ]; then exit 75; fi
exit 1
"""
_CHANGE = """
LC_ALL=C; export LC_ALL
cd "$1" || exit 1
mkdir lock.changing || exit 76
code=75
case $(ls -ld lock 2>/dev/null) in *" -> $2")
  if [ "$3" ]; then
    rm -f lock.new && ln -s "$3" lock.new && mv -f -T lock.new lock; code=$?
  else rm -f lock; code=$?; fi ;;
esac
rm -rf lock.changing
exit $code
"""
_FORCE = 'cd "$1" || exit 0; rm -rf lock.changing; rm -f lock'


class Lock:
    """A held lock."""

    def __init__(self, board: Board, token: str, text: str) -> None:
        self.token = token
        self._board, self._text = board, text
        self._over, self._turn = threading.Event(), threading.Lock()
        self._lost: str | None = None
        threading.Thread(target=self._renew, daemon=True).start()

    def check(self) -> None:
        """Raise where it was taken over.

        Raises:
            LockLost: It was.
        """
        if self._lost is not None:
            raise LockLost(self._lost)

    def release(self) -> None:
        """Give it up; where the board is gone it stays, and is broken later."""
        self._over.set()
        with self._turn, suppress(DeviceError):
            self._change("")

    def _renew(self) -> None:
        while not self._over.wait(RENEW):
            with self._turn, suppress(DeviceError):
                if self._over.is_set():
                    return
                text = _text(self.token)
                code = self._change(text)
                if code == 0:
                    self._text = text
                elif code == 75:
                    self._lost = f"{self._board.name}: another deploy took over the lock"
                    return

    def _change(self, text: str) -> int:
        return self._board.shell.script(
            _CHANGE, self._board.folder, self._text, text, timeout=_TIMEOUT
        ).code


@contextmanager
def held(board: Board, *, force: bool = False) -> Iterator[Lock]:
    """Hold the folder's lock while the context is open.

    Args:
        board: The folder; it is made where it isn't there.
        force: Break a lock whatever its age.

    Raises:
        DeviceError: Somebody else holds it, or the folder can't be written.
    """
    if force:
        board.shell.script(_FORCE, board.folder, timeout=_TIMEOUT)
    token = secrets.token_hex(8)
    text = _text(token)
    _take(board, text)
    lock = Lock(board, token, text)
    try:
        yield lock
    finally:
        lock.release()


def age(text: str, now: float) -> float | None:
    """Seconds since a lock was renewed; ``None`` where its text doesn't tell."""
    match = _TEXT.fullmatch(text)
    return None if match is None else now - int(match["time"])


def owner(text: str) -> str:
    """Who holds it."""
    match = _TEXT.fullmatch(text)
    return "somebody" if match is None else match["host"] or "somebody"


def is_dead(text: str) -> bool:
    """Whether the lock is of a process of this machine that is no more."""
    match = _TEXT.fullmatch(text)
    if match is None or match["machine"] != _machine() or match["machine"] == _UNKNOWN:
        return False
    return _started(int(match["process"])) != int(match["start"])


def _take(board: Board, text: str) -> None:
    done = board.shell.script(_TAKE, board.folder, text, timeout=_TIMEOUT)
    if done.code == 0:
        return
    if done.code != 75:
        raise failure(board.shell, board.folder, done)
    there = board.look().lock
    old = None if there is None else age(there, time.time())
    if there is not None and old is not None and (old > STALE or is_dead(there)):
        broken = board.shell.script(_CHANGE, board.folder, there, text, timeout=_TIMEOUT)
        if broken.code == 0:
            return
    who = "another deploy" if there is None else owner(there)
    since = "" if old is None else f" (renewed {max(0.0, old):.0f} s ago)"
    raise DeviceError(
        f"{board.name}: {who} is at work there{since}; wait for it. A lock that was left behind is "
        f"broken {STALE / 60:.0f} minutes after its last sign of life, or at once with "
        "--force-unlock"
    )


def _text(token: str) -> str:
    host = re.sub(r"[^0-9A-Za-z.-]", "-", socket.gethostname())[:60]
    process = f"{_machine()}.{os.getpid()}.{_started(os.getpid())}"
    return f"edgeprune-{token}-{int(time.time())}-{process}-{host}"


_UNKNOWN = "unknown"


def _machine() -> str:
    """Tells this machine, since its last start, from all others; and containers from each other,
    since equal numbers are other processes there."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return _UNKNOWN
    return hashlib.sha256(f"{boot}{space}".encode()).hexdigest()[:12]


def _started(process: int) -> int:
    """When a process started, in ticks since the machine did; 0 where there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = text.rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(fields[18])
