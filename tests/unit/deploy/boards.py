# SPDX-License-Identifier: Apache-2.0
"""Boards and releases for tests: folders of this machine, and models that are just texts.

A model whose text begins with ``good`` answers as it should, one with ``bad`` doesn't.
"""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from edgeprune.deploy.board import Board
from edgeprune.deploy.health import Expected, ExpectedOutput, Health
from edgeprune.deploy.release import MANIFEST, SUMS, Release, make_release
from edgeprune.deploy.steps import Outcome, Wishes, deploy
from edgeprune.device.local import LocalShell
from edgeprune.device.shell import Done, Shell, Tell
from edgeprune.progress import Progress, Silent

NAMES = ("model.onnx", "model.tflite")


def release(folder: Path, version: str, text: bytes = b"good", size: int = 3000) -> Release:
    """A release named ``version`` (hexadecimal digits) with two models of ``size`` bytes."""
    folder = folder / f"result-{version}"
    folder.mkdir(exist_ok=True)
    run = version.ljust(64, "0")
    hashes = {}
    for name in NAMES:
        content = (text + name.encode() + version.encode()).ljust(size, b".")
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    (folder / MANIFEST).write_text(f'{{"run": "{run}"}}')
    x = np.arange(6.0).reshape(2, 3)
    np.savez(
        folder / "health.npz",
        **{f"{name}:{way}:0": x for name in NAMES for way in ("input", "output")},
    )
    output = ExpectedOutput(name="y", tolerance=1e-3, why="a test")
    expected = Expected(runtime="none", inputs=("x",), outputs=(output,))
    health = Health(file="health.npz", inputs="test", artifacts=dict.fromkeys(NAMES, expected))
    return make_release(run, folder, hashes, NAMES, health)


def ask(remote: str, inputs: Path, outputs: Path) -> str:
    """Run one of the models."""
    good = Path(remote).read_bytes().startswith(b"good")
    with np.load(inputs) as file:
        np.savez(outputs, y=file["arr_0"] + (0 if good else 1))
    return "a test's runtime"


def board(folder: Path, shell: Shell | None = None) -> Board:
    return Board(shell or LocalShell(), str(folder))


def bring(
    folder: Path,
    what: Release,
    *,
    shell: Shell | None = None,
    progress: Progress | None = None,
    check: Callable[[str, Path, Path], str] | None = ask,
    **wishes: object,
) -> Outcome:
    """Deploy to a folder."""
    asked = Wishes(**wishes)  # type: ignore[arg-type]
    return deploy(board(folder, shell), what, asked, ask=check, progress=progress or Silent())


def current(folder: Path) -> str | None:
    """The version that ``current`` leads to, found whole; by other means than the code's own."""
    link = folder / "current"
    if not link.is_symlink():
        assert not link.exists()
        return None
    target = os.readlink(link)  # noqa: PTH115 - the raw text counts
    assert target.startswith("versions/"), target
    place = folder / target
    assert place.is_dir(), f"{link} dangles"
    lines = (place / SUMS).read_text().splitlines()
    listed = {line[66:]: line[:64] for line in lines}
    assert set(listed) == {*NAMES, MANIFEST}
    assert {path.name for path in place.iterdir()} == {*listed, SUMS}
    for name, digest in listed.items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest, name
    return place.name


def versions(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "versions").iterdir())


def is_tidy(folder: Path) -> bool:
    """Whether nothing is left that only work in progress needs."""
    names = {path.name for path in folder.iterdir()} - {"current", "versions", "previous"}
    return names == {"incoming"} and not any((folder / "incoming").iterdir())


def quick_shell(folder: Path) -> LocalShell:
    """A shell whose ``sync`` does nothing: nothing here loses power, and it would take its time."""
    path = folder / "quick" / "sync"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return LocalShell(environment={"PATH": f"{path.parent}:{os.environ['PATH']}"})


def killed_at(point: int, folder: Path, what: Release, shell: Shell, keep: int = 5) -> int:
    """Deploy in a process that is killed just before its ``point``-th command: its exit code."""
    # from a server without threads, which the process of the tests may have
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.deploy.boards"])
    process = context.Process(target=_die_at, args=(point, folder, what, shell, keep))
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def _die_at(point: int, folder: Path, what: Release, shell: Shell, keep: int) -> None:
    def die(number: int, words: Sequence[str]) -> None:
        if number == point:
            os.kill(os.getpid(), signal.SIGKILL)

    bring(folder, what, shell=Watched(shell, die), keep=keep)


class Watched(Shell):
    """A shell that calls ``before`` and ``after`` around each command, with its number."""

    def __init__(
        self,
        shell: Shell,
        before: Callable[[int, Sequence[str]], None] = lambda number, words: None,
        after: Callable[[int, Sequence[str]], None] = lambda number, words: None,
    ) -> None:
        self._shell, self._before, self._after = shell, before, after
        self.count = 0

    @property
    def name(self) -> str:
        return self._shell.name

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | BinaryIO | None = None,
        timeout: float | None = None,
        tell: Tell | None = None,
    ) -> Done:
        self.count += 1
        number = self.count
        self._before(number, words)
        done = self._shell.run(words, stdin=stdin, timeout=timeout, tell=tell)
        self._after(number, words)
        return done

    def close(self) -> None:
        self._shell.close()
