# SPDX-License-Identifier: Apache-2.0
"""Files to a device and back; ``sh``, ``cat``, ``wc``, ``mv`` and ``sha256sum`` are enough there.

A file grows as ``.edgeprune-SHA12.part`` beside its final place, so that a cut upload goes on where
it ended and two contents never mix; what is complete and has the right hash is renamed. So the
final name always leads to a whole file, the old one or the new one.
"""

import hashlib
import io
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgeprune.device.shell import Done, Shell
from edgeprune.errors import DeviceError, InputError
from edgeprune.progress import Bar, Progress, Silent
from edgeprune.writing import save

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["failure", "get", "part_name", "put"]

_CHUNK = 1 << 16
_ENGLISH = "LC_ALL=C; export LC_ALL\n"
"""So that the causes that programs print can be told apart."""

_LOOK = (
    _ENGLISH
    + """
folder=${1%/*}/
mkdir -p -- "$folder" || exit 1
if [ -d "$1" ]; then echo "$1: Is a directory" >&2; exit 1; fi
there=none
if [ -f "$1" ]; then there=$(sha256sum <"$1") || exit 1; fi
if [ "${there%% *}" = "$3" ]; then echo "$3 0 unknown"; exit; fi
: >>"$2" && have=$(wc -c <"$2") || exit 1
free=$(df -Pk -- "$folder" 2>/dev/null | { read -r _; read -r _ _ _ k _; echo "$k"; })
echo "${there%% *}" $have "${free:-unknown}"
"""
)
"""``df`` may be missing; then a full disk shows itself while writing."""

_APPEND = _ENGLISH + 'cat >>"$1"'

_FINISH = (
    _ENGLISH
    + """
if [ ! -e "$1" ]; then
  there=$(sha256sum <"$2") || exit 1
  if [ "${there%% *}" = "$3" ]; then exit 0; else exit 65; fi
fi
there=$(sha256sum <"$1") || exit 1
if [ "${there%% *}" != "$3" ]; then rm -f -- "$1"; exit 65; fi
sync -- "$1" 2>/dev/null || sync
mv -f -- "$1" "$2" || exit 1
sync -- "${2%/*}/" 2>/dev/null || sync
"""
)

"""Where the part is gone, another upload of the same file may have been faster."""

_SEND = (
    _ENGLISH
    + """
if [ -d "$1" ]; then echo "$1: Is a directory" >&2; exit 1; fi
size=$(wc -c <"$1") && there=$(sha256sum <"$1") || exit 1
echo "${there%% *}" $size
"""
)

_DAMAGED = 65
_FULL = ("No space left on device", "Disk quota exceeded")
_CAUSES = {
    **dict.fromkeys(_FULL, "no space left on the device"),
    "Read-only file system": "on a read-only file system",
    "Permission denied": "permission denied",
    "Operation not permitted": "permission denied",
    "File name too long": "file name too long",
    "Not a directory": "a file is where a folder should be",
    "File exists": "a file is where a folder should be",
    "Is a directory": "a folder is there",
    "No such file": "no such file",
    "nonexistent": "no such folder",
    "File too large": "too large for the file system",
    "Input/output error": "input/output error: the storage may be failing",
}
"""What the programs say (``dash`` has words of its own), and what the user reads."""


def part_name(remote: str, digest: str) -> str:
    """Where a file whose sha256 is ``digest`` grows on its way to ``remote``."""
    return posixpath.join(posixpath.dirname(remote), f".edgeprune-{digest[:12]}.part")


def put(shell: Shell, path: Path, remote: str, progress: Progress | None = None) -> str:
    """Bring a file to a device; what an earlier attempt brought there isn't sent again.

    Args:
        shell: The device.
        path: The file here.
        remote: Its absolute path there; missing folders are made.
        progress: Where to show the progress.

    Returns:
        The file's sha256, in hex, which the device has confirmed.

    Raises:
        InputError: ``path`` can't be read.
        DeviceError: The device can't be reached, or can't take the file: no space, no permission.
    """
    assert remote.startswith("/"), remote
    digest, size = _digest(path)
    upload = _Upload(shell, path, remote, part_name(remote, digest), digest, size)
    # a second time where an older part was damaged, or somebody else wrote into it
    if not (upload.attempt(progress or Silent()) or upload.attempt(progress or Silent())):
        raise DeviceError(f"{shell.name}: {remote}: arrived damaged, twice; nothing was changed")
    return digest


def get(shell: Shell, remote: str, path: Path, *, timeout: float | None = None) -> str:
    """Fetch a file of a device; ``path`` is there whole or not at all.

    Returns:
        Its sha256, in hex.

    Raises:
        InputError: ``path`` can't be written.
        DeviceError: The device can't be reached, or the file there can't be read.
    """
    told = shell.script(_SEND, remote, timeout=timeout)
    if told.code:
        raise failure(shell, remote, told)
    digest, size = _words(shell, remote, told, 2)
    sent = shell.script(_ENGLISH + 'exec cat <"$1"', remote, timeout=timeout)
    if sent.code:
        raise failure(shell, remote, sent)
    # the end, since a login shell's start-up file may print something first
    data = sent.out[max(0, len(sent.out) - int(size)) :]
    if hashlib.sha256(data).hexdigest() != digest:
        raise DeviceError(f"{shell.name}: {remote}: changed or was damaged on its way here")
    save(path, [data])
    return digest


def failure(shell: Shell, remote: str, done: Done) -> DeviceError:
    """The error for a script about ``remote`` that didn't end well, with its cause."""
    ended = f"signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
    lines = done.err.strip().splitlines()[-1:] or [f"failed with {ended}"]
    known = [said for cause, said in _CAUSES.items() if cause in done.err]
    return DeviceError(f"{shell.name}: {remote}: {(known or lines)[0]}")


@dataclass(frozen=True)
class _Upload:
    shell: Shell
    path: Path
    remote: str
    part: str
    digest: str
    size: int

    def attempt(self, progress: Progress) -> bool:
        """Whether the file is there, whole, at the end; False where what arrived was damaged."""
        looked = self.shell.script(_LOOK, self.remote, self.part, self.digest)
        if looked.code:
            raise failure(self.shell, self.remote, looked)
        there, have, free = _words(self.shell, self.remote, looked, 3)
        if there == self.digest:
            return True
        begin = min(int(have), self.size)
        self._check_space(free, self.size - begin)
        if begin < self.size or not self.size:
            self._send(begin, progress)
        done = self.shell.script(_FINISH, self.part, self.remote, self.digest)
        if done.code not in (0, _DAMAGED):
            raise failure(self.shell, self.remote, done)
        return done.code == 0

    def _check_space(self, free: str, wanted: int) -> None:
        if free.isdigit() and wanted > int(free) * 1024:
            self.shell.script('[ -s "$1" ] || rm -f -- "$1"', self.part)
            folder = posixpath.dirname(self.remote)
            raise DeviceError(
                f"{self.shell.name}: {self.remote}: no space: {wanted:,} B are still to come, and "
                f"{int(free) * 1024:,} B are free in {folder}"
            )

    def _send(self, begin: int, progress: Progress) -> None:
        try:
            with (
                self.path.open("rb") as file,
                progress.bar(f"{self.path.name} to {self.shell.name}, bytes", self.size) as bar,
            ):
                file.seek(begin)
                bar.advance(begin)
                told = io.BufferedReader(_Told(file, self.size - begin, bar), _CHUNK)
                done = self.shell.script(_APPEND, self.part, stdin=told)
        except OSError as error:
            raise InputError(f"{self.path}: can't be read: {error.strerror}") from None
        if done.code:
            if any(cause in done.err for cause in _FULL):
                self.shell.script('rm -f -- "$1"', self.part)
            raise failure(self.shell, self.remote, done)


class _Told(io.RawIOBase):
    """A file that tells a bar how much of it was read, and ends where it ended at first."""

    def __init__(self, file: BinaryIO, left: int, bar: Bar) -> None:
        self._file, self._left, self._bar = file, left, bar

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)
        data = self._file.read(min(len(view), self._left))
        view[: len(data)] = data
        self._left -= len(data)
        self._bar.advance(len(data))
        return len(data)


def _digest(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest, file.seek(0, os.SEEK_END)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None


def _words(shell: Shell, remote: str, done: Done, count: int) -> list[str]:
    lines = done.out.decode(errors="replace").strip().splitlines()
    words = lines[-1].split() if lines else []
    if len(words) != count:
        raise DeviceError(f"{shell.name}: {remote}: the device's shell gave no usable answer")
    return words
