# SPDX-License-Identifier: Apache-2.0
"""Ask a version on a board what it answers, and hold it against what it should answer."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.deploy.board import Board
from edgeprune.deploy.health import Difference, Expected, compare, read_batch
from edgeprune.deploy.release import Release
from edgeprune.errors import CheckFailed, DeviceError, InputError
from edgeprune.profiler.npz import opened

__all__ = ["Ask", "Checked", "check_command", "check_outputs", "require_health"]

Ask = Callable[[str, Path, Path], str]
"""Runs a file of the board there: its path, inputs ``.npz``, outputs ``.npz``; gives the runtime's
name and version."""


@dataclass(frozen=True)
class Checked:
    """An artifact that answered as it should."""

    artifact: str
    runtime: str
    outputs: tuple[Difference, ...]


def require_health(release: Release) -> Mapping[str, Expected]:
    """What each artifact of the release should answer.

    Raises:
        InputError: Nobody recorded it.
    """
    known = release.health.artifacts if release.health is not None else {}
    missing = [piece.name for piece in release.artifacts if piece.name not in known]
    if missing:
        raise InputError(
            f"{release.batch.parent}: what {', '.join(missing)} should answer was not recorded "
            "(by an older edgeprune, or it isn't a result of `edgeprune compress`), so nobody can "
            "tell whether it is healthy on the board; --no-health deploys it unchecked"
        )
    return known


def check_outputs(board: Board, release: Release, place: str, ask: Ask) -> tuple[Checked, ...]:
    """Run one batch through each artifact in ``place`` on the board (``versions/ID``, ``current``).

    Raises:
        CheckFailed: One doesn't run there, or its outputs differ by more than is allowed.
        DeviceError: The board can't be reached or has nothing to run the artifact with.
        InputError: The recorded batch isn't there.
    """
    found = []
    for name, expected in require_health(release).items():
        if any(piece.name == name for piece in release.artifacts):
            batch = read_batch(release.batch, name, expected)
            with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
                inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
                np.savez(inputs, *batch.inputs)
                runtime = _run(board, board.path(place, name), ask, inputs, outputs)
                got = _read(board, outputs)
            try:
                differences = compare(name, expected, batch.outputs, got)
            except CheckFailed as error:
                raise CheckFailed(f"{board.name}: {error}; {runtime} there") from None
            found.append(Checked(name, runtime, differences))
    return tuple(found)


def check_command(board: Board, command: str, timeout: float) -> None:
    """Run the user's health command in the current version's folder.

    Raises:
        CheckFailed: It ended with another code than 0.
        DeviceError: The board can't be reached, or it took too long.
    """
    done = board.command(command, timeout)
    if done.code:
        said = (done.err or done.out.decode(errors="replace")).strip().splitlines()
        text = f": {said[-1]}" if said else ""
        raise CheckFailed(f"{board.name}: the health command ended with {done.code}{text}")


def _run(board: Board, remote: str, ask: Ask, inputs: Path, outputs: Path) -> str:
    try:
        return ask(remote, inputs, outputs)
    except InputError as error:  # its runtime refuses the file
        raise CheckFailed(f"{board.name}: doesn't run there: {error}") from None


def _read(board: Board, path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with opened(path) as file:
            return {name: file.read(name) for name in file.names}
    except InputError as error:
        raise DeviceError(f"{board.name}: the outputs can't be read: {error}") from None
