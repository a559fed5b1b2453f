# SPDX-License-Identifier: Apache-2.0
"""Where a run's time goes: every second belongs to the part of the run that ends next."""

from collections.abc import Callable
from time import perf_counter

__all__ = ["Clock"]


class Clock:
    """Starts when it is made.

    Args:
        now: Seconds since any moment.
    """

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._start = self._last = now()
        self._added = self._pending = 0.0
        self.parts: dict[str, float] = {}
        """Seconds of each part that ended, in the order of their first ends."""

    @property
    def running(self) -> float:
        """Seconds since the last part ended, with what was added since."""
        return self._now() - self._last + self._pending

    @property
    def total(self) -> float:
        """Seconds from the start to the end of the last part, with all that was added."""
        return self._last - self._start + self._added

    def add(self, seconds: float) -> None:
        """Count what an interrupted run spent on the part under way."""
        self._pending += seconds
        self._added += seconds

    def lap(self, part: str) -> None:
        """Say that ``part`` ends now."""
        now = self._now()
        spent = now - self._last + self._pending
        self.parts[part] = self.parts.get(part, 0.0) + spent
        self._last, self._pending = now, 0.0
