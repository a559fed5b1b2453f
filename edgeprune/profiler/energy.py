# SPDX-License-Identifier: Apache-2.0
"""Joules of an inference: what a meter says of a busy time, less what it says of an idle one.

Where there is no meter nothing is made up; the times are told all the same, so that the host can
hold them against a meter outside of the device. Runs on the device: standard library and, in the
measuring process, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeprune.profiler.meters import Absent, Ina3221, Pmic, Power, Rapl, find_meter, integrate

__all__ = ["Recorder", "keep_busy", "measure_energy"]

_WARMUP = 0.5
_MARGIN = 0.3
"""Seconds for which the meter is read before and after a measured time."""


def keep_busy(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a file for ``seconds`` after a warm-up: ``start`` and ``end`` (unix time), ``runs``.

    Raises:
        InputError: The file or its inputs can't be used.
        DeviceError: The runtime failed.
    """
    from edgeprune.profiler.inputs import job_inputs
    from edgeprune.profiler.runtime import open_session

    session = open_session(Path(job["path"]), job["threads"])
    arrays = job_inputs(session.inputs, job)
    session.run(arrays)
    warm = time.monotonic() + _WARMUP
    while time.monotonic() < warm:
        session.run(arrays)
    runs = 0
    start = time.time()
    end = time.monotonic() + job["seconds"]
    while time.monotonic() < end:
        session.run(arrays)
        runs += 1
    yield {"runtime": session.runtime, "start": start, "end": time.time(), "runs": runs}
    time.sleep(_MARGIN)


class Recorder:
    """Samples of a meter's power; None of a meter: nothing."""

    def __init__(self, meter: Rapl | Pmic | Ina3221 | None) -> None:
        self._meter = meter
        self._last = time.time()
        self._counted: list[Power] = []
        self.samples: list[Power] = []
        self.lost: str | None = None
        """Why the meter couldn't be read any more."""
        self.interval = meter.interval if meter else 0.25

    def sample(self) -> None:
        """Read the meter once."""
        meter = self._meter
        now = time.time()
        if meter is None or self.lost or now - self._last < self.interval:
            return
        try:
            if isinstance(meter, Rapl):
                joules = meter.joules()
                self._step(joules / (now - self._last), now)
            else:
                self.samples.append(Power(now, meter.watts()))
        except Absent as error:
            self.lost = str(error)
        self._last = now

    def _step(self, watts: float, now: float) -> None:
        """A counter's mean power holds from the last reading to this one, with a sharp edge."""
        if now > self._last:
            self.samples += [Power(self._last + 1e-6, watts), Power(now, watts)]

    def joules(self, start: float, end: float) -> float | None:
        """Joules between two unix times, where the samples cover them."""
        return integrate(self.samples, start, end)


def measure_energy(
    seconds: float,
    wanted: str,
    busy: Callable[[tuple[float, Callable[[], None]]], dict[str, Any]],
    wait: Callable[[float, Callable[[], None]], None],
    root: Path = Path("/"),
) -> dict[str, Any]:
    """Measure idle ``seconds``, then ``busy`` ones, by the meter ``wanted``.

    Args:
        seconds: Of each.
        wanted: ``auto`` or a name of ``meters.METERS``.
        busy: Keeps the device busy, calling what it gets every so many seconds; gives the answer
            of ``keep_busy``.
        wait: Waits for some seconds and calls what it gets meanwhile.
        root: Where the meters are looked for.
    """
    meter, reason = find_meter(wanted, root)
    recorder = Recorder(meter)
    wait(_MARGIN, recorder.sample)
    start = time.time()
    wait(seconds, recorder.sample)
    end = time.time()
    wait(_MARGIN, recorder.sample)
    idle = recorder.joules(start, end)
    answer = busy((recorder.interval, recorder.sample))
    spent = recorder.joules(answer["start"], answer["end"])
    if meter and (idle is None or spent is None):
        reason = f"{meter.name}: {recorder.lost or 'its readings have gaps'}"
    watts = None if idle is None else idle / (end - start)
    return {
        "runtime": answer["runtime"],
        "meter": meter.name if meter else None,
        "how": meter.how if meter else None,
        "idle": {"start": start, "end": end, "watts": watts},
        "busy": {
            "start": answer["start"],
            "end": answer["end"],
            "joules": spent,
            "runs": answer["runs"],
        },
        **_per_inference(watts, spent, answer, reason),
    }


def _per_inference(
    watts: float | None, spent: float | None, answer: dict[str, Any], reason: str | None
) -> dict[str, Any]:
    if watts is None or spent is None or not answer["runs"]:
        return {"joules_per_inference": None, "reason": reason or "no run ended in this time"}
    more = spent - watts * (answer["end"] - answer["start"])
    if more <= 0:
        text = "the meter shows no more power while it runs than while it doesn't"
        return {"joules_per_inference": None, "reason": text}
    return {"joules_per_inference": more / answer["runs"], "reason": None}
