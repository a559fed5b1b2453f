# SPDX-License-Identifier: Apache-2.0
"""The virtual environment that tflite-micro lives in.

It has one of its own because it is a pre-release with needs of its own. The environment is built
beside its place and put there by one rename, so it is whole or not there.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import DeviceError, InputError, OutputError
from edgeprune.progress import Progress
from edgeprune.workspace import staged
from edgeprune.writing import write

__all__ = ["PACKAGE", "Environment", "find", "set_up"]

PACKAGE = "tflite-micro"
_VERSION = "0.dev20261023182759"
"""It has no releases; of its daily builds this one was tried."""
_PINS = (f"{PACKAGE}=={_VERSION}", "numpy==2.4.6", "flatbuffers==25.12.19", "pyyaml==6.0.3")
_MARK = "edgeprune-tflm.txt"
"""Written last; holds the pins, so that another version of them is made anew."""
_TIMEOUT = 900.0
_NO_WHEEL = ("No matching distribution found", "Could not find a version")


@dataclass(frozen=True)
class Environment:
    """An environment that is ready."""

    python: Path
    """Its interpreter, absolute."""
    name: str
    """Package and version."""


def find(folder: Path) -> Environment | None:
    """The environment in ``folder``; ``None`` where none is, or one of an older edgeprune."""
    python = folder.absolute() / "bin" / "python"
    try:
        mark = (folder / _MARK).read_text(encoding="utf-8")
    except OSError:
        return None
    return Environment(python, _name()) if mark == _mark() and python.exists() else None


def set_up(folder: Path, progress: Progress) -> str:
    """Make the environment in ``folder`` (about 100 MB) unless it is there; give its name.

    Raises:
        InputError: tflite-micro has no wheel for this machine or this Python.
        OutputError: ``folder`` can't be written, or holds something else.
        DeviceError: Python can't make environments, or the packages can't be fetched.
    """
    ready = find(folder)
    if ready is not None:
        return ready.name
    _refuse_foreign(folder)
    folder = folder.absolute()
    with staged(folder) as work, progress.bar(f"setting up {PACKAGE}", 3) as bar:
        fresh = work / "environment"
        _run([sys.executable, "-m", "venv", str(fresh)], "python -m venv")
        bar.advance()
        python = str(fresh / "bin" / "python")
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--pre"]
        _run([python, "-I", *pip, "--only-binary=:all:", *_PINS], "pip install")
        bar.advance()
        _run([python, "-I", "-c", "import tflite_micro.python.tflite_micro.runtime"], PACKAGE)
        write(fresh / _MARK, _mark())
        if folder.exists():
            folder.rename(work / "old")
        fresh.rename(folder)
        bar.advance()
    return _name()


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / _MARK).is_file()):
        return
    raise OutputError(
        f"{folder}: isn't an environment of edgeprune, so it is left alone; choose another folder"
    )


def _run(command: list[str], what: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"tflm: {what} took more than {_TIMEOUT:.0f} s; try again") from None
    except OSError as error:
        raise DeviceError(f"tflm: {what} can't be started: {error.strerror}") from None
    if done.returncode == 0:
        return
    if any(text in done.stdout and PACKAGE in done.stdout for text in _NO_WHEEL):
        raise InputError(
            f"tflm: pip finds no wheel of {_PINS[0]} for {_machine()}; there are wheels for Linux "
            "x86_64 with CPython 3.11 to 3.14: run edgeprune there, or see whether pip can reach "
            "its package index"
        )
    raise DeviceError(f"tflm: {what} failed: {_cause(done.stdout)}")


def _cause(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no message"])[-1]


def _machine() -> str:
    version = platform.python_version()
    return (
        f"{platform.system()} {platform.machine()} with {platform.python_implementation()} "
        f"{version}"
    )


def _mark() -> str:
    return "\n".join(_PINS) + "\n"


def _name() -> str:
    return f"{PACKAGE} {_VERSION}"
