# SPDX-License-Identifier: Apache-2.0
"""Where the agent and the files that it is asked about are: here, or copied to a device."""

import contextlib
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from edgeprune.device import archive
from edgeprune.device.shell import Shell
from edgeprune.device.transfer import failure, get, put
from edgeprune.device.weights import weight_files
from edgeprune.errors import DeviceError, InputError
from edgeprune.progress import Progress
from edgeprune.workspace import chain, file_hash

__all__ = ["Here", "Place", "There"]

_QUICK = 120.0
"""Seconds for a command that does next to nothing."""


class Place(Protocol):
    """Where the agent and its files are."""

    def program(self, progress: Progress | None) -> tuple[str, ...]:
        """The words after Python's that start the agent."""

    def put(self, path: Path, copy: int, progress: Progress | None) -> str:
        """Have a file there, and those with its weights; its path there, where ``copy`` 0, 1 ...
        tells equal ones apart."""

    def fresh(self, path: Path) -> contextlib.AbstractContextManager[str]:
        """A path there for a file that the agent writes, which is removed at the end."""

    def get(self, there: str, path: Path) -> None:
        """Bring that file here."""

    def clean(self) -> None:
        """Remove what was put there."""


class Here:
    """On this machine every file is used where it is."""

    def program(self, progress: Progress | None) -> tuple[str, ...]:
        """The words after Python's that start the agent."""
        return ("-m", "edgeprune.profiler")

    def put(self, path: Path, copy: int, progress: Progress | None) -> str:
        """Have a file there; its path there."""
        return str(path.absolute())

    @contextlib.contextmanager
    def fresh(self, path: Path) -> Iterator[str]:
        """A path there for a file that the agent writes."""
        yield str(path.absolute())

    def get(self, there: str, path: Path) -> None:
        """It was written to its place."""

    def clean(self) -> None:
        """Nothing was put anywhere."""


class There:
    """A device that gets copies: ``FOLDER/edgeprune-agent-SHA12.pyz``, ``FOLDER/SHA12/NAME``."""

    def __init__(self, shell: Shell, folder: str, keep: bool) -> None:
        self._shell, self._wanted, self._keep = shell, folder, keep
        self._folder: str | None = None
        self._program: str | None = None
        self._put: set[str] = set()
        self._folders: set[str] = set()
        self._mark = f"{_USED}{secrets.token_hex(6)}"

    def program(self, progress: Progress | None) -> tuple[str, ...]:
        """The words after Python's that start the agent."""
        if self._program is None:
            name = archive.name()
            there = f"{self._home()}/{name}"
            with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
                path = Path(folder) / name
                path.write_bytes(archive.build())
                put(self._shell, path, there, progress)
            self._program = there
        return (self._program,)

    def put(self, path: Path, copy: int, progress: Progress | None) -> str:
        """Have a file there; its path there."""
        try:
            beside = weight_files(path)
            digest = file_hash(path)
            if beside:  # another model may have the same graph and other weights
                digest = chain(digest, *map(file_hash, beside))
        except OSError as error:
            raise InputError(f"{error.filename or path}: can't be read: {error.strerror}") from None
        folder = f"{self._home()}/{digest[:12]}" + (f"-{copy}" if copy else "")
        self._use(folder)
        for file in (*beside, path):
            there = f"{folder}/{file.relative_to(path.parent).as_posix()}"
            if there not in self._put:
                put(self._shell, file, there, progress)
                self._put.add(there)
        return f"{folder}/{path.name}"

    def _use(self, folder: str) -> None:
        """Say there that this run needs ``folder``, which others with the same file share."""
        if folder in self._folders:
            return
        done = self._shell.script(_USE, folder, self._mark, timeout=_QUICK)
        if done.code:
            raise failure(self._shell, folder, done)
        self._folders.add(folder)

    @contextlib.contextmanager
    def fresh(self, path: Path) -> Iterator[str]:
        """A path there for a file that the agent writes."""
        folder = f"{self._home()}/run-{secrets.token_hex(6)}"
        there = f"{folder}/{path.name}"
        done = self._shell.script('mkdir -- "$1"', folder, timeout=_QUICK)
        if done.code:
            raise failure(self._shell, folder, done)
        try:
            yield there
        finally:
            with contextlib.suppress(DeviceError):
                self._shell.script(_REMOVE, there, timeout=_QUICK)

    def get(self, there: str, path: Path) -> None:
        """Bring that file here."""
        get(self._shell, there, path)

    def clean(self) -> None:
        """Remove what was put there, but for what another run needs."""
        if self._folders:
            kept = "kept" if self._keep else ""
            self._shell.script(_LEAVE, self._mark, kept, *sorted(self._folders), timeout=_QUICK)
            self._folders.clear()
            self._put.clear()

    def _home(self) -> str:
        if self._folder is None:
            done = self._shell.script(_FIND, self._wanted, timeout=_QUICK)
            if done.code:
                cause = failure(self._shell, self._wanted, done)
                raise DeviceError(
                    f"{cause}; files go there: `edgeprune device add NAME ADDRESS --folder FOLDER` "
                    "names another folder"
                )
            _, mark, said = done.out.decode(errors="surrogateescape").rpartition(_MARK)
            if not mark or not said.startswith("/"):  # never to write into the root folder
                raise DeviceError(
                    f"{self._shell.name}: its shell answers nothing; look at the start-up files of "
                    "that user there (~/.bashrc)"
                )
            self._folder = said[:-1]
        return self._folder


_MARK = "edgeprune-folder "
_FIND = f"""
LC_ALL=C; export LC_ALL
case $1 in
  "~") folder=$HOME ;;
  "~/"*) folder=$HOME/${{1#"~/"}} ;;
  /*) folder=$1 ;;
  *) folder=$HOME/$1 ;;
esac
mkdir -p -- "$folder" && cd -- "$folder" || exit 1
if [ ! -w . ]; then echo "$folder: Permission denied" >&2; exit 1; fi
printf '{_MARK}%s\\n' "$(pwd -P)"
"""
_USED = ".used-"
_USE = """
LC_ALL=C; export LC_ALL
mkdir -p -- "$1" && : >"$1/$2"
"""
_LEAVE = f"""
mark=$1; kept=$2; shift 2
for folder do
  rm -f -- "$folder/$mark"
  [ "$kept" ] && continue
  for other in "$folder"/{_USED}*; do [ -e "$other" ] && continue 2; done
  rm -rf -- "$folder"
done
exit 0
"""
_REMOVE = """
for file do rm -f -- "$file"; rmdir -- "${file%/*}" 2>/dev/null; done
exit 0
"""
