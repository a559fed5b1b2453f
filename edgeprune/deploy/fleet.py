# SPDX-License-Identifier: Apache-2.0
"""The same work on several boards at once; one that fails doesn't stop the others."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import ConfigDict, Field

from edgeprune.errors import ConfigError, DeviceError, EdgepruneError
from edgeprune.progress import Bar, Progress
from edgeprune.toml import Config, load, parse

__all__ = ["Result", "Station", "each", "read_inventory"]

T = TypeVar("T")
_AT_ONCE = 16
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]


class Station(Config):
    """One board of an inventory."""

    to: Text
    """Device and folder, as after ``--to``."""
    health_command: Text | None = None
    """Instead of the one of the command line."""


class _File(Config):
    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True)
class Result(Generic[T]):
    """What came of the work on one board: a value, or an error."""

    name: str
    value: T | None = None
    error: EdgepruneError | None = None


def read_inventory(path: Path) -> dict[str, Station]:
    """The boards of an inventory by name: one table each.

    Raises:
        ConfigError: The file is wrong or has no board; the message names the board and the key.
    """
    stations = {}
    for name, table in (load(path, _File).model_extra or {}).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: key '{name}' should be a table, [{name}], of one board")
        stations[name] = parse(table, Station, f"{path}: [{name}]")
    if not stations:
        raise ConfigError(f'{path}: has no board; one is [kitchen] with to = "ssh://pi@kitchen:/f"')
    return stations


def each(
    names: Sequence[str], work: Callable[[str, Progress], T], progress: Progress
) -> list[Result[T]]:
    """Do ``work`` for each name, in parallel, and wait for all; in the order of ``names``.

    Ctrl-C stops each at the next point where nothing is left half done, and is then raised.
    """
    stop = threading.Event()
    quiet = progress if len(names) == 1 else _Together(progress, stop)

    def one(name: str) -> Result[T]:
        try:
            return Result(name, work(name, quiet))
        except EdgepruneError as error:
            return Result(name, error=error)

    if len(names) == 1:
        return [one(names[0])]
    with ThreadPoolExecutor(min(len(names), _AT_ONCE)) as pool:
        tasks = [pool.submit(one, name) for name in names]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Together:
    """Progress of boards that work at once: their lines, but no bars, which would overwrite each
    other. It is also where they learn that they shall stop."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop
        self._turn = threading.Lock()

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """A bar that isn't shown."""
        self._check()
        yield self

    def say(self, text: str) -> None:
        """Show one line."""
        self._check()
        with self._turn:
            self._progress.say(text)

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count nothing."""
        self._check()

    def _check(self) -> None:
        if self._stop.is_set():
            raise DeviceError("interrupted")
