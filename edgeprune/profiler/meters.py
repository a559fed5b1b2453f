# SPDX-License-Identifier: Apache-2.0
"""What tells a device's power: Intel RAPL, a Raspberry Pi 5's PMIC, an INA3221.

Every reader takes the root folder, or the command, that it looks at, so that it can be tried on
recorded ones. Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgeprune.profiler.throttle import VCGENCMD, read, vcgencmd

__all__ = ["METERS", "Ina3221", "Pmic", "Power", "Rapl", "find_meter", "integrate"]

ROOT = Path("/")
METERS = ("rapl", "pmic", "ina3221")


class Power(NamedTuple):
    """Power at a moment, or the mean of the time since the sample before."""

    time: float
    """Seconds since 1970."""
    watts: float


class Absent(Exception):
    """A meter isn't there, or can't be read; the text says why."""


class Rapl:
    """Counters of energy in Intel and AMD processors (``/sys/class/powercap/intel-rapl:*``)."""

    name = "rapl"
    interval = 0.1

    def __init__(self, root: Path = ROOT) -> None:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        found = {zone: read(zone / "name") or "" for zone in zones}
        used = [zone for zone, name in found.items() if re.match(r"package-\d+|dram", name)]
        if not used:
            raise Absent("no package is listed in /sys/class/powercap")
        self._zones = [(zone, self._number(zone / "max_energy_range_uj")) for zone in used]
        self._last = self._counters()
        names = " + ".join(found[zone] for zone in used)
        self.how = f"RAPL energy counters {names}: the processor's own estimate, not the board's"

    def joules(self) -> float:
        """Joules since the last call; counters that started again from zero are taken into account.

        Raises:
            Absent: The counters can't be read any more.
        """
        now = self._counters()
        micro = 0
        for index, (_, largest) in enumerate(self._zones):
            step = now[index] - self._last[index]
            micro += step if step >= 0 else step + largest
        self._last = now
        return micro * 1e-6

    def _counters(self) -> list[int]:
        return [self._number(zone / "energy_uj") for zone, _ in self._zones]

    @staticmethod
    def _number(path: Path) -> int:
        try:
            return int(path.read_text(encoding="ascii"))
        except PermissionError:
            raise Absent(f"{path} may be read by root only") from None
        except (OSError, ValueError):
            raise Absent(f"{path} can't be read") from None


class Pmic:
    """Rails of a Raspberry Pi 5's power chip (``vcgencmd pmic_read_adc``)."""

    name = "pmic"
    interval = 0.1

    def __init__(self, commands: Sequence[str] = VCGENCMD) -> None:
        self._commands = commands
        self.watts()
        self.how = (
            "sum of volts times amperes of the PMIC's rails: losses before it and what hangs on "
            "5 V (USB) aren't in it"
        )

    def watts(self) -> float:
        """Watts of all rails now.

        Raises:
            Absent: The firmware tells none: it is another board than a Raspberry Pi 5.
        """
        text = vcgencmd(["pmic_read_adc"], self._commands)
        if text is None:
            raise Absent("vcgencmd pmic_read_adc tells nothing here (a Raspberry Pi 5 has it)")
        found = parse_pmic(text)
        if found is None:
            raise Absent("vcgencmd pmic_read_adc prints no rail with volts and amperes")
        return found


class Ina3221:
    """Channels of INA3221 chips by the kernel's hwmon: Jetson boards have them."""

    name = "ina3221"
    interval = 0.05

    def __init__(self, root: Path = ROOT) -> None:
        chips = [
            chip
            for chip in sorted((root / "sys/class/hwmon").glob("hwmon*"))
            if read(chip / "name") == "ina3221"
        ]
        rails = {}
        for chip in chips:
            for number in (1, 2, 3):
                label = read(chip / f"in{number}_label") or f"{chip.name} channel {number}"
                if _rail(chip, number) is not None:
                    rails[label] = (chip, number)
        if not rails:
            raise Absent("no ina3221 with a channel that works is in /sys/class/hwmon")
        # One of Jetson's channels is often the board's whole input; the others are parts of it.
        whole = {label: rail for label, rail in rails.items() if re.fullmatch(_WHOLE, label)}
        self._rails = whole or rails
        self.how = "volts times amperes of the INA3221's " + " + ".join(sorted(self._rails))

    def watts(self) -> float:
        """Watts of the board's input, or of all channels where none is the input.

        Raises:
            Absent: A channel can't be read any more.
        """
        values = [_rail(chip, number) for chip, number in self._rails.values()]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            raise Absent("a channel of the ina3221 can't be read any more")
        return sum(known)


_WHOLE = r"VDD_IN|POM_5V_IN|VIN|VDD_5V_IN|CV_VDD_IN|VDD_TOTAL"


def find_meter(
    wanted: str, root: Path = ROOT, commands: Sequence[str] = VCGENCMD
) -> tuple[Rapl | Pmic | Ina3221 | None, str | None]:
    """Find the meter ``wanted``, or the first that works (``auto``): it, or None and the reason."""
    # The whole board's comes first: that is what drains a battery.
    reasons = []
    for name in ("ina3221", "pmic", "rapl"):
        if wanted in ("auto", name):
            try:
                return _open(name, root, commands), None
            except Absent as error:
                reasons.append(f"{name}: {error}")
    return None, "; ".join(reasons)


def _open(name: str, root: Path, commands: Sequence[str]) -> Rapl | Pmic | Ina3221:
    if name == "ina3221":
        return Ina3221(root)
    return Pmic(commands) if name == "pmic" else Rapl(root)


def parse_pmic(text: str) -> float | None:
    """Watts of all rails that ``vcgencmd pmic_read_adc`` gives volts and amperes of."""
    found: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for name, unit, value in re.findall(
        r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)\s*=\s*(-?\d+(?:\.\d+)?)\s*[AV]\s*$",
        text,
        re.MULTILINE,
    ):
        found[unit][name] = float(value)
    both = found["A"].keys() & found["V"].keys()
    return sum(found["A"][name] * found["V"][name] for name in sorted(both)) if both else None


def integrate(samples: Sequence[Power], start: float, end: float) -> float | None:
    """Joules from ``start`` to ``end`` (seconds since 1970), linear between samples.

    None where the samples don't reach over the whole time, or one is missing for over a tenth of
    it (and over 2.5 s): what lies between would be guessed.
    """
    if len(samples) < 2 or samples[0].time > start or samples[-1].time < end or end <= start:
        return None
    longest = max(2.5, 0.1 * (end - start))
    total = 0.0
    for one, other in zip(samples, samples[1:]):  # noqa: B905, RUF007 - Python 3.8
        low, high = max(one.time, start), min(other.time, end)
        if low >= high:
            continue
        step = other.time - one.time
        if step > longest:
            return None
        slope = (other.watts - one.watts) / step
        middle = one.watts + slope * ((low + high) / 2 - one.time)
        total += middle * (high - low)
    return total


def _rail(chip: Path, number: int) -> float | None:
    volts, amperes = read(chip / f"in{number}_input"), read(chip / f"curr{number}_input")
    numbers = [text for text in (volts, amperes) if text and re.fullmatch(r"-?\d+", text)]
    return int(numbers[0]) * int(numbers[1]) * 1e-6 if len(numbers) == 2 else None
