# SPDX-License-Identifier: Apache-2.0
"""Converters print progress, diagnostics and warnings; the terminal belongs to the user."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO

__all__ = ["Output", "quiet"]


class Output:
    """What was printed while ``quiet`` was open."""

    def __init__(self, native: IO[bytes]) -> None:
        self._native = native
        self._python = io.StringIO()
        self._kept = ""

    def text(self) -> str:
        """All of it; native code's first, as a compiler's diagnostics are."""
        if not self._native.closed:
            self._native.seek(0)
            self._kept = self._native.read().decode(errors="replace")
        return self._kept + self._python.getvalue()


@contextlib.contextmanager
def quiet() -> Iterator[Output]:
    """Keep a library call's printing, logging and warnings off the terminal, and hold them.

    Standard error is caught as a file descriptor too, since MLIR and absl write to it from C++.
    """
    with tempfile.TemporaryFile() as native:
        output = Output(native)
        with (
            _descriptor(2, native.fileno()),
            contextlib.redirect_stdout(output._python),
            contextlib.redirect_stderr(output._python),
            warnings.catch_warnings(),
            _silent_root_logger(),
        ):
            warnings.simplefilter("ignore")
            try:
                yield output
            finally:
                output.text()


@contextlib.contextmanager
def _descriptor(number: int, other: int) -> Iterator[None]:
    try:
        saved = os.dup(number)
    except OSError:  # there is no standard error
        yield
        return
    try:
        os.dup2(other, number)
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@contextlib.contextmanager
def _silent_root_logger() -> Iterator[None]:
    """``logging.warning`` of a library would install a handler on the root logger for good."""

    def reject(record: logging.LogRecord) -> bool:
        return False

    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)
    root.addFilter(reject)
    try:
        yield
    finally:
        root.removeFilter(reject)
        root.removeHandler(nothing)
