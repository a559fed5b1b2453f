# SPDX-License-Identifier: Apache-2.0
"""Every error that edgeprune raises on purpose, and the exit code of each.

    EdgepruneError            3  something inside edgeprune went wrong
    ├── InputError            2  a file, an option or a piece of data can't be used
    │   ├── ModelError        2  ... the model
    │   ├── DataError         2  ... the data or its spec
    │   ├── ConfigError       2  ... a target, recipe or spec file
    │   ├── OutputError       2  ... the place to write to
    │   └── MissingExtra      2  a part of edgeprune that isn't installed
    ├── CheckFailed           1  an artifact doesn't do what its model does
    └── DeviceError           3  a device, or a measuring process, could not be reached or died

A message is one line: what is wrong, where (file, key), what is allowed, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

__all__ = [
    "CheckFailed",
    "ConfigError",
    "DataError",
    "DeviceError",
    "EdgepruneError",
    "InputError",
    "MissingExtra",
    "ModelError",
    "OutputError",
    "calling",
    "naming",
    "nearest",
    "printable",
]


class EdgepruneError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 3

    def __str__(self) -> str:
        """The message; what a damaged file brings into it is escaped."""
        return "\n".join(map(printable, super().__str__().split("\n")))


class InputError(EdgepruneError):
    """What the user gave can't be used."""

    exit_code = 2


class ModelError(InputError):
    """A model file can't be read, captured or run."""


class DataError(InputError):
    """A data set or its spec can't be used."""


class ConfigError(InputError):
    """A TOML file has a wrong key or value."""


class OutputError(InputError):
    """The output folder can't be written, or holds a result already."""


class MissingExtra(InputError):
    """A package of an optional extra isn't installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        super().__init__(
            f"this command needs {package}, which isn't installed: pip install 'edgeprune[{extra}]'"
        )


class CheckFailed(EdgepruneError):
    """An artifact was made, run and found to differ from the model that it came from."""

    exit_code = 1


class DeviceError(EdgepruneError):
    """A device or a measuring process could not be reached, or died."""


@contextmanager
def calling(function: str, kind: type[InputError]) -> Iterator[None]:
    """Call a function of the user's: whatever it raises is bad input, and names it.

    Args:
        function: Its name, as the user gave it.
        kind: Of the error.

    Raises:
        InputError: It raised something, ``SystemExit`` included; only Ctrl-C goes through.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except SystemExit as left:
        raise kind(f"{function}: ended Python (SystemExit: {left.code})") from left
    except BaseException as error:
        lines = str(error).strip().splitlines()
        told = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise kind(f"{function}: {told}") from error


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Name the file in the errors of what reads no file itself.

    Raises:
        InputError: One was raised inside; it is of the same kind, and begins with ``path``.
    """
    try:
        yield
    except InputError as error:
        error.args = (f"{path}: {error}",)
        raise


def printable(text: str) -> str:
    """A text with what no terminal prints escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Say what was probably meant: ``"; did you mean 'x'?"``, or nothing where no name is near."""
    match = get_close_matches(word, list(allowed), n=1)
    return f"; did you mean '{match[0]}'?" if match else ""
