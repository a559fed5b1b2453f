# SPDX-License-Identifier: Apache-2.0
"""Progress of long work. Stages talk to the protocol; only the command line knows a terminal."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Bar", "Progress", "Silent"]


class Bar(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Count ``steps`` as done and show ``figures`` (``loss=0.31``) beside the bar."""


class Progress(Protocol):
    """Where progress is shown."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Show a bar of ``total`` steps while the context is open."""

    def say(self, text: str) -> None:
        """Show one line."""


class Silent:
    """Progress that is shown nowhere."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Yield a bar that shows nothing."""
        yield self

    def say(self, text: str) -> None:
        """Show nothing."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Show nothing."""
