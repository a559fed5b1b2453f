# SPDX-License-Identifier: Apache-2.0
"""Readings of a power meter beside the device: a CSV of (t, W), as a USB meter records it."""

import csv
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edgeprune.errors import DataError

__all__ = ["Meter", "read_meter"]

_FEWEST = 3
"""Readings that a span needs before its mean power says anything."""


@dataclass(frozen=True)
class Meter:
    """Power over time."""

    name: str
    times: tuple[float, ...]
    """Unix time in seconds, rising."""
    watts: tuple[float, ...]
    shift: float = 0.0
    """Seconds that the device's clock is ahead of the meter's."""

    def weigh(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The agent's answer to ``energy`` with the joules that this meter saw.

        ``joules_per_inference`` is the integral over the busy span (trapezoids between readings)
        less the idle power over the same time, by the number of runs; absent, with a reason, where
        the readings don't cover a span.
        """
        idle, busy = answer["idle"], answer["busy"]
        own = {"meter": f"the readings in {self.name}", "joules_per_inference": None}
        for what, span in (("idle", idle), ("busy", busy)):
            count = len(self._inside(span["start"], span["end"]))
            seconds = span["end"] - span["start"]
            if count < _FEWEST:
                reason = (
                    f"{self.name} has {count} readings of the {what} {seconds:.0f} s, "
                    f"{_FEWEST} are needed; record during the whole run, in this machine's time"
                )
                return {**answer, **own, "reason": reason}
        watts = self._integral(idle["start"], idle["end"]) / (idle["end"] - idle["start"])
        total = self._integral(busy["start"], busy["end"])
        net = total - watts * (busy["end"] - busy["start"])
        spans = {"idle": {**idle, "watts": watts}, "busy": {**busy, "joules": total}}
        if net <= 0:
            reason = f"{self.name}: the run took no more power than the idle {watts:.3g} W"
            return {**answer, **own, **spans, "reason": reason}
        return {**answer, **own, **spans, "joules_per_inference": net / busy["runs"]}

    def _inside(self, start: float, end: float) -> Sequence[float]:
        first = bisect_left(self.times, start - self.shift)
        return self.times[first : bisect_right(self.times, end - self.shift)]

    def _integral(self, start: float, end: float) -> float:
        """Joules between two times, linear between readings."""
        start, end = start - self.shift, end - self.shift
        inner = self._inside(start + self.shift, end + self.shift)
        times = [start, *inner, end]
        values = [self._at(time) for time in times]
        return sum(
            (times[k + 1] - times[k]) * (values[k] + values[k + 1]) / 2
            for k in range(len(times) - 1)
        )

    def _at(self, time: float) -> float:
        place = bisect_left(self.times, time)
        if place == 0 or place == len(self.times):
            return self.watts[min(place, len(self.watts) - 1)]
        before, after = self.times[place - 1], self.times[place]
        share = (time - before) / (after - before)
        return self.watts[place - 1] + share * (self.watts[place] - self.watts[place - 1])


def read_meter(path: Path, *, fewest: int = _FEWEST) -> Meter:
    """Read a CSV whose first two columns are time (unix seconds, or ISO 8601) and power in watts.

    A first line that isn't numbers is a heading; a last one without its end is still being written,
    and left out if it isn't two values.

    Args:
        path: The file.
        fewest: Readings that there must be.

    Raises:
        DataError: It can't be read, a line isn't two such values, times don't rise.
    """
    times: list[float] = []
    watts: list[float] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = file.readlines()
        if lines and not lines[-1].endswith("\n") and not _is_reading(lines[-1]):
            lines.pop()
        for number, row in enumerate(csv.reader(lines), start=1):
            if not row or (number == 1 and _time(row[0]) is None):
                continue
            _take(path, number, row, times, watts)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path}: is no CSV of time and watts") from None
    if len(times) < fewest:
        raise DataError(f"{path}: has {len(times)} readings, {fewest} are needed at least")
    return Meter(path.name, tuple(times), tuple(watts))


def _is_reading(line: str) -> bool:
    row = next(csv.reader([line]), [])
    return len(row) > 1 and _time(row[0]) is not None and _number(row[1]) is not None


def _take(path: Path, number: int, row: list[str], times: list[float], watts: list[float]) -> None:
    time = _time(row[0])
    power = _number(row[1]) if len(row) > 1 else None
    if time is None or power is None:
        raise DataError(
            f"{path}: line {number}: should be time (unix seconds or ISO 8601) and watts"
        )
    if times and time <= times[-1]:
        raise DataError(f"{path}: line {number}: its time isn't after that of the line before")
    times.append(time)
    watts.append(power)


def _time(text: str) -> float | None:
    number = _number(text)
    if number is not None:
        return number
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
