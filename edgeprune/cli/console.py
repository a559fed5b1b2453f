# SPDX-License-Identifier: Apache-2.0
"""Progress on standard error: bars on a terminal, plain lines anywhere else."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from edgeprune.progress import Bar
from edgeprune.progress import Progress as Shown

__all__ = ["PlainProgress", "TerminalProgress", "page", "progress"]

_SECONDS_BETWEEN_LINES = 10.0
_PAGE = 120
_WIDEST = 10_000


def page(whole: RenderableType | None = None) -> Console:
    """Standard output: as wide as the terminal; 120 columns where there is none.

    ``whole`` isn't folded then however wide it is: a program may look for a name in it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an ASCII terminal has no dashes and lines
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console(highlight=False)
    needed = 0 if whole is None else Console(width=_WIDEST).measure(whole).maximum
    return Console(highlight=False, width=max(_PAGE, needed))


def progress() -> Shown:
    """What suits standard error: bars where it is a terminal, lines where it isn't."""
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()


def _beside(done: int, seconds: float, figures: dict[str, float]) -> str:
    rate = f"{done / seconds:.1f}/s" if seconds > 0 and done else ""
    shown = (f"{name} {value:.4g}" for name, value in figures.items())
    return "  ".join(part for part in (rate, *shown) if part)


class TerminalProgress:
    """A bar with rate, figures and the time left; lines are printed above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show a bar of ``total`` steps while the context is open."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[beside]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as shown:
            yield _TerminalBar(shown, shown.add_task(title, total=total, beside=""))

    def say(self, text: str) -> None:
        """Show one line."""
        self._console.print(text, markup=False)


class _TerminalBar:
    def __init__(self, shown: Progress, task: TaskID) -> None:
        self._shown, self._task = shown, task
        self._start, self._done = time.monotonic(), 0

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count ``steps`` as done and show ``figures`` beside the bar."""
        self._done += steps
        text = _beside(self._done, time.monotonic() - self._start, figures)
        self._shown.update(self._task, advance=steps, beside=text)


class PlainProgress:
    """One line when a bar ends, and one every ten seconds while it is long."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Say how far the work is, now and then."""
        shown = _PlainBar(title, total)
        yield shown
        shown.show()

    def say(self, text: str) -> None:
        """Show one line."""
        print(text, file=sys.stderr, flush=True)


class _PlainBar:
    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._start = self._shown = time.monotonic()
        self._done = 0
        self._figures: dict[str, float] = {}

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count ``steps`` as done; a line at most every ten seconds."""
        self._done += steps
        self._figures.update(figures)
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES:
            self.show()

    def show(self) -> None:
        """Print where the work is."""
        self._shown = time.monotonic()
        beside = _beside(self._done, self._shown - self._start, self._figures)
        left = ""
        if 0 < self._done < self._total:
            seconds = (self._shown - self._start) / self._done * (self._total - self._done)
            left = f"  {seconds:.0f} s left"
        print(
            f"  {self._title}: {self._done}/{self._total}  {beside}{left}",
            file=sys.stderr,
            flush=True,
        )
