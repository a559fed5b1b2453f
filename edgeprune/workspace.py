# SPDX-License-Identifier: Apache-2.0
"""Where a run writes: its work folder, its lock, and the one rename that makes a result.

    <out>/rpi4/          the result: whole, or not there
    <out>/.rpi4.work/    one folder a stage, with what it made and a ``done.json`` that seals it
    <out>/.rpi4.lock     held while a run is under way

A stage is sealed under a key, the hash of everything that went into it, so that a resumed run
takes up exactly what an undisturbed one would make. Nothing is written outside ``<out>``.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeprune.errors import OutputError
from edgeprune.writing import save

__all__ = ["Workspace", "chain", "check", "claim", "file_hash", "kept", "staged", "work_folder"]

_FULL = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EROFS)


def chain(previous: str, *parts: Any) -> str:
    """The key that follows ``previous``: sha256 over it and the JSON of ``parts``."""
    text = json.dumps([previous, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Workspace:
    """A run's place on disk while the run holds its lock."""

    result: Path
    """``<out>/<target>``"""
    folder: Path
    """``<out>/.<target>.work``"""
    key: str
    """Names the run: the hash of everything that goes into its result."""

    def published(self) -> bool:
        """Whether the result in place is that of this very run."""
        manifest = _read_json(self.result / "manifest.json")
        return manifest is not None and manifest.get("run") == self.key

    def partial(self) -> bool:
        """Whether the result in place lacks a file that was to be made."""
        manifest = _read_json(self.result / "manifest.json")
        return manifest is not None and bool(manifest.get("missing"))

    def sealed(self, stage: str, key: str) -> bool:
        """Whether ``stage`` was finished under ``key`` and none of its files has changed since."""
        folder = self.folder / stage
        seal = _read_json(folder / "done.json")
        if seal is None or seal.get("key") != key:
            return False
        files: dict[str, str] = seal["files"]
        return all(
            (folder / name).is_file() and file_hash(folder / name) == digest
            for name, digest in files.items()
        )

    def begin(self, stage: str, key: str) -> Path:
        """The stage's folder. What an interrupted attempt left there under the same key, its
        checkpoints, stays; anything else is removed."""
        folder = self.folder / stage
        begun = _read_json(folder / "begun.json")
        if begun is None or begun.get("key") != key:
            _remove(folder)
            folder.mkdir(parents=True)
            save(folder / "begun.json", json.dumps({"key": key}))
        (folder / "done.json").unlink(missing_ok=True)
        return folder

    def seal(self, stage: str, key: str, names: Sequence[str]) -> None:
        """Declare ``stage`` finished, with these files of its folder as what it made."""
        folder = self.folder / stage
        for name in names:
            _sync(folder / name)
        files = {name: file_hash(folder / name) for name in names}
        save(folder / "done.json", json.dumps({"key": key, "files": files}))

    def publish(self, files: Mapping[str, Path | str]) -> None:
        """Put the result in place by one rename; a value is a file to copy or a text to write.

        An older result is moved into the work folder first and goes with it. A run that dies
        between the two renames leaves the old one there, whence the next run takes it back.
        """
        fresh = self.folder / "result"
        _remove(fresh)
        fresh.mkdir()
        for name, content in files.items():
            if isinstance(content, str):
                save(fresh / name, content)
            else:
                shutil.copyfile(content, fresh / name)
                _sync(fresh / name)
        _sync(fresh)
        if self.result.exists():
            self.result.rename(self.folder / "old")
        fresh.rename(self.result)
        _sync(self.result.parent)
        _remove(self.folder / "old")

    def worth_resuming(self) -> bool:
        """Whether any stage was finished."""
        return any(self.folder.glob("*/done.json"))


def check(out: Path, name: str, *, overwrite: bool) -> None:
    """Refuse what can be seen to be impossible before any work; writes nothing.

    Raises:
        OutputError: ``out`` is no folder or can't be written, or holds a result already.
    """
    try:
        place = next(path for path in (out, *out.absolute().parents) if path.exists())
    except OSError as error:  # a name that is too long, a folder that can't be searched
        raise OutputError(f"{out}: can't be written: {error.strerror}") from None
    if not place.is_dir():
        raise OutputError(f"{out}: {place} is a file, not a folder; choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: no permission to write in {place}; choose another --out")
    result = out / name
    if not result.exists():
        return
    if not overwrite:
        raise OutputError(f"{result}: holds a result already; --overwrite replaces it")
    if not result.is_dir() or (any(result.iterdir()) and not (result / "manifest.json").is_file()):
        raise OutputError(
            f"{result}: isn't a result of edgeprune, so it is left alone; move it away"
        )


@contextmanager
def claim(
    out: Path, name: str, key: str, *, overwrite: bool, resume: bool, keep: bool
) -> Iterator[Workspace]:
    """Hold ``<out>/<name>`` for the run that ``key`` names.

    What an earlier run left in the work folder is taken up with ``resume`` and discarded without;
    a result that this very run put in place just before it died is accepted with ``resume``, and
    one that lacks a file is replaced. After success the work folder goes, unless ``keep``; after
    a failure, or where the result lacks a file, it stays for ``resume``, unless no stage was
    finished.

    Raises:
        OutputError: Another run holds it, it holds a result already, or it can't be written.
    """
    work = Workspace(out / name, out / f".{name}.work", key)
    made = [path for path in (out, *out.parents) if not path.exists()]
    try:
        lock = out / f".{name}.lock"
        with writable(out, work.result, work.folder, lock):
            _make(out)
            with _lock(lock):
                _mend(work)
                if not (resume and work.published()):
                    check(out, name, overwrite=overwrite or (resume and work.partial()))
                if not resume:
                    _remove(work.folder)
                work.folder.mkdir(exist_ok=True)
                yield from _cleaned(work, keep)
    except BaseException:
        with suppress(OSError):  # not empty: somebody's, or to be resumed
            for path in made:
                path.rmdir()
        raise


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` for the work on it, removed at the end in any case.

    Raises:
        OutputError: It can't be written.
    """
    folder = work_folder(out)
    with _held(out):
        _remove(folder)
        folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)


@contextmanager
def kept(out: Path, about: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """As ``staged``, but what a run that failed or was killed made stays there for ``resume``.

    Args:
        out: What the work is for.
        about: All that decides the result, by name, as JSON knows it.
        resume: Take up what lies in the folder; else it is removed first.

    Raises:
        OutputError: It can't be written, or what is to be taken up is of another run.
    """
    folder = work_folder(out)
    with _held(out):
        begun = _read_json(folder / "begun.json")
        if resume and begun is not None:
            _check_same(folder, begun, json.loads(json.dumps(about)))
        else:
            _remove(folder)
            folder.mkdir()
            save(folder / "begun.json", json.dumps(about))
        try:
            yield folder
        except BaseException:
            with suppress(OSError):  # what went wrong first is what is told
                if [path.name for path in folder.iterdir()] == ["begun.json"]:
                    _remove(folder)
            raise
        _remove(folder)


def work_folder(out: Path) -> Path:
    """Where the work on ``out`` is done: beside it."""
    return out.with_name(f".{out.name}.work")


@contextmanager
def writable(out: Path, *places: Path) -> Iterator[None]:
    """Turn the system's refusals to write into one line that names ``out``.

    Args:
        out: What is written.
        places: The files and folders that this takes. An error elsewhere, as with a photo that
            can't be read, stays what it is.

    Raises:
        OutputError: No space, a file-system that can't be written, or any error of ``out`` itself
            or in one of ``places``.
    """
    try:
        yield
    except OSError as error:
        at = next((path for path in _named(error) if _within(path, out, places)), None)
        if at is None and error.errno not in _FULL:
            raise
        where = "" if at is None or at == _absolute(out) else f" ({at.name})"
        raise OutputError(f"{out}: can't be written: {error.strerror or error}{where}") from error


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Hold the lock of a file ``out``, whose folder is made where it isn't there."""
    lock = out.with_name(f".{out.name}.lock")
    with writable(out, out, work_folder(out), lock):
        _make(out.parent)
        with _lock(lock):
            yield


def _named(error: OSError) -> list[Path]:
    """The paths that an error names; its file may be a number or bytes, too."""
    names = (error.filename, error.filename2)
    return [_absolute(os.fsdecode(name)) for name in names if isinstance(name, str | bytes)]


def _absolute(path: Path | str) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - the same file, though links stay


def _within(path: Path, out: Path, places: Sequence[Path]) -> bool:
    return path == _absolute(out) or any(path.is_relative_to(_absolute(each)) for each in places)


def _check_same(folder: Path, begun: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    names = sorted(name for name in {*begun, *about} if begun.get(name) != about.get(name))
    if names:
        told = "; ".join(
            f"{name} was {_short(begun.get(name))}, is {_short(about.get(name))}"
            for name in names[:3]
        )
        more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
        raise OutputError(
            f"{folder}: --resume: the checkpoint there is of another run: {told}{more}; give "
            "what was given then, or leave --resume out to start anew"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else f"{text[:17]}..."


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be made: {error.strerror}") from None


def _cleaned(work: Workspace, keep: bool) -> Iterator[Workspace]:
    try:
        yield work
    except BaseException:
        if not work.worth_resuming():
            _remove(work.folder)
        raise
    if not keep and not work.partial():
        _remove(work.folder)


def _mend(work: Workspace) -> None:
    old = work.folder / "old"
    if old.exists() and not work.result.exists():
        old.rename(work.result)
    _remove(old)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    handle = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        handle.close()


def _acquire(path: Path) -> IO[str]:
    while True:
        handle = path.open("w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise OutputError(
                f"{path}: another run holds this lock; wait for it, or name another output"
            ) from None
        except OSError as error:  # a file-system without locks; the error itself names no file
            handle.close()
            raise OSError(error.errno, error.strerror, str(path)) from error
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                return handle
        handle.close()  # its owner removed the file between our open and our lock


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        try:
            shutil.rmtree(path)
        except OSError as error:  # which names what is inside without the folder
            raise OSError(error.errno, error.strerror, str(path)) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
