# SPDX-License-Identifier: Apache-2.0
"""Setting up an emulated board: a folder that is there whole, or not at all.

FOLDER/root/                 the userland
FOLDER/root/usr/bin/edgeprune-python   starts its Python in the emulator
FOLDER/count.so              the instruction counter, where it can be made
FOLDER/board.json            what was set up
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.device.emulated.board import board_files, features
from edgeprune.device.emulated.counter import SOURCE, make_counter
from edgeprune.device.emulated.tools import Tools, find_debian, find_tools, start
from edgeprune.device.emulated.userland import (
    build_userland,
    install_wheels,
    python_of,
    wheels_of,
)
from edgeprune.errors import DeviceError, InputError
from edgeprune.progress import Progress, Silent
from edgeprune.target import Target
from edgeprune.workspace import staged
from edgeprune.writing import write

__all__ = ["Board", "python_words", "read_board", "set_up"]

_LAYOUT = 1
"""Of the folder; another one is set up anew."""
_LAUNCHER = Path("root/usr/bin/edgeprune-python")
_STEPS = 4
_TRYING = 300.0
_CAPABILITIES = "import ctypes; print(ctypes.CDLL(None).getauxval(16))"
_TRY = """
import importlib, json, platform, sys
from importlib.metadata import version
modules = {"onnxruntime": "onnxruntime", "ai-edge-litert": "ai_edge_litert.interpreter"}
found = {"numpy": version("numpy")}
for name in sys.argv[1:]:
    importlib.import_module(modules[name])
    found[name] = version(name)
print(json.dumps({"python": platform.python_version(), "versions": found}))
"""


@dataclass(frozen=True)
class Board:
    """An emulated board that was set up."""

    key: str
    """Names all that it was made from."""
    title: str
    cpu: str
    """QEMU's name of it."""
    qemu: str
    debian: str
    python: str
    versions: dict[str, str]
    """Of numpy and the runtimes."""
    lacking: tuple[str, ...]
    """Instruction sets of the target that the emulated CPU doesn't have."""
    uncounted: str | None
    """Why instructions can't be counted; ``None``: they can."""

    def __str__(self) -> str:
        """One sentence."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        lacking = f", without {' '.join(self.lacking)}" if self.lacking else ""
        counted = self.uncounted is None
        count = "can be counted" if counted else f"can't be counted: {self.uncounted}"
        return (
            f"{self.title}, emulated by QEMU {self.qemu} as {self.cpu}{lacking}: Debian "
            f"{self.debian} arm64, Python {self.python}, {versions}; instructions {count}"
        )


def set_up(folder: Path, target: Target, progress: Progress | None = None) -> str:
    """Make the emulated board of ``target`` in ``folder``, and say in one sentence what it is.

    What is there already, from the same target and the same QEMU, is taken as it is.

    Raises:
        InputError: The target has no emulated CPU or no runtime that comes as a wheel, or this
            machine lacks mmdebstrap or QEMU; with the command that installs them.
        DeviceError: Debian or the wheels can't be had, or don't run in the emulator.
        OutputError: ``folder`` can't be written.
    """
    cpu = _cpu(target)
    tools = find_tools()
    key = _key(target, tools)
    there = read_board(folder)
    if there is not None and there.key == key:
        return str(there)
    with staged(folder) as work:
        board = _build(work / "new", target, cpu, tools, progress or Silent())
        if folder.exists():
            folder.rename(work / "old")
        (work / "new").rename(folder)
    return str(board)


def read_board(folder: Path) -> Board | None:
    """What was set up in ``folder``; ``None``: nothing, or by another version of edgeprune."""
    try:
        found: dict[str, Any] = json.loads((folder / "board.json").read_text(encoding="utf-8"))
        return Board(**{**found, "lacking": tuple(found["lacking"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def python_words(folder: Path, target: Target) -> tuple[str, ...]:
    """The words that start the emulated Python; children that it starts are emulated too.

    Raises:
        InputError: Nothing is set up in ``folder``.
    """
    if read_board(folder) is None:
        raise InputError(
            f"emulated:{target.name} isn't set up: edgeprune device add emulated:{target.name}"
        )
    return (str(folder.resolve() / _LAUNCHER),)


def _cpu(target: Target) -> str:
    if target.reach.emulator is None:
        raise InputError(
            f"emulated:{target.name}: the target has no 'reach.emulator', so no CPU of QEMU is "
            "known to stand for it; rpi4 has one"
        )
    return target.reach.emulator


def _key(target: Target, tools: Tools) -> str:
    told = {"title", "model", "cores", "isa", "ram"}
    device = target.device.model_dump(mode="json", include=told)
    parts = [_LAYOUT, device, target.reach.emulator, wheels_of(target), tools.qemu, tools.version]
    text = json.dumps(parts, sort_keys=True) + SOURCE.read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _build(folder: Path, target: Target, cpu: str, tools: Tools, progress: Progress) -> Board:
    root, wheels = folder / "root", wheels_of(target)
    folder.mkdir()
    with progress.bar(f"setting up emulated:{target.name}", _STEPS) as bar:
        build_userland(root, tools, find_debian(), folder)
        bar.advance()
        install_wheels(root, wheels)
        bar.advance()
        _write_launcher(folder / _LAUNCHER, python_of(root).name, cpu, tools)
        has, lacking = features(target.device.isa, int(_ask(folder, _CAPABILITIES)))
        for name, text in board_files(target, cpu, has).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        found = json.loads(_ask(folder, _TRY, [wheel.partition("=")[0] for wheel in wheels]))
        bar.advance()
        uncounted = make_counter(folder, folder / _LAUNCHER)
        bar.advance()
    debian = (root / "etc/debian_version").read_text(encoding="utf-8").strip()
    board = Board(
        key=_key(target, tools),
        title=target.device.title,
        cpu=cpu,
        qemu=tools.version,
        debian=debian,
        python=found["python"],
        versions=found["versions"],
        lacking=lacking,
        uncounted=uncounted,
    )
    write(folder / "board.json", json.dumps(asdict(board), indent=2) + "\n")
    return board


def _write_launcher(path: Path, python: str, cpu: str, tools: Tools) -> None:
    """A script that Python takes for itself (``sys.executable``), so that it can start itself.

    Nothing of the host's Python must reach it: neither its paths nor the user's own packages.
    """
    path.write_text(
        "#!/bin/sh\n"
        "unset PYTHONHOME PYTHONPATH\n"
        "root=${0%/usr/bin/*}\n"
        f"PYTHONNOUSERSITE=1 exec {shlex.quote(tools.qemu)} -cpu {cpu} "
        '-U LD_PRELOAD,LD_LIBRARY_PATH -0 "$0" -L "$root" '
        f'"$root/usr/bin/{python}" "$@"\n',
        encoding="utf-8",
    )
    path.chmod(0o755)


def _ask(folder: Path, code: str, arguments: Sequence[str] = ()) -> str:
    """Run ``code`` in the emulated Python.

    Raises:
        DeviceError: It failed.
    """
    words = [str(folder / _LAUNCHER), "-c", code, *arguments]
    try:
        return start(words, timeout=_TRYING)
    except DeviceError as error:
        raise DeviceError(f"the emulated Python doesn't run: {error}") from None
