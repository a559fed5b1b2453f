# SPDX-License-Identifier: Apache-2.0
"""What slows a processor down: frequency, heat, firmware's throttling, other processes.

Every reader takes the root folder under which it looks, so that it can be tried on a recorded tree.
What isn't told is None. Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "VCGENCMD",
    "cores",
    "frequency",
    "governor",
    "parse_throttled",
    "read",
    "state",
    "switches",
    "temperature",
    "vcgencmd",
    "waited",
]

ROOT = Path("/")
VCGENCMD = ("vcgencmd", "/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd")
"""Where a Raspberry Pi's firmware is asked; the login shell of ssh needn't have it on its PATH."""
_BITS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_SINCE_BOOT = 16
_CPU_ZONES = ("cpu", "soc", "x86_pkg", "k10temp", "coretemp", "package")
_CPU_COOLERS = ("cpufreq", "processor", "intel_powerclamp")


def frequency(root: Path = ROOT) -> float | None:
    """Hertz of the fastest core that this process may use, at this moment."""
    found = []
    for core in cores():
        text = read(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq")
        if text and text.isdigit():
            found.append(int(text) * 1000.0)
    return max(found) if found else None


def governor(root: Path = ROOT) -> str | None:
    """How the kernel chooses the frequency: ``ondemand``, ``performance`` ..."""
    return read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def temperature(root: Path = ROOT) -> float | None:
    """Degrees Celsius of the processor's thermal zone, or of the warmest where none is named so."""
    zones = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text, kind = read(zone / "temp"), (read(zone / "type") or "").lower()
        if text and re.fullmatch(r"-?\d+", text):
            ours = any(word in kind for word in _CPU_ZONES)
            zones.append((ours, int(text) / 1000))
    return max(zones)[1] if zones else None


def state(root: Path = ROOT, commands: Sequence[str] = VCGENCMD) -> dict[str, Any]:
    """What holds the processor back: ``now`` and since ``boot``, lists of words; None: unknown."""
    text = vcgencmd(["get_throttled"], commands)
    bits = parse_throttled(text) if text else None
    cooled = _cooled(root)
    now = (
        None if bits is None and cooled is None else [*(bits or {}).get("now", []), *(cooled or [])]
    )
    count = read(root / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count")
    boot = bits["boot"] if bits else None
    if boot is None and count and count.isdigit():
        boot = [f"thermal throttling, {count} times"] if int(count) else []
    return {"now": now, "boot": boot}


def parse_throttled(text: str) -> dict[str, list[str]] | None:
    """Read ``throttled=0x50005``, what ``vcgencmd get_throttled`` prints."""
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", text)
    if match is None:
        return None
    bits = int(match[1], 16)
    return {
        "now": [word for bit, word in _BITS.items() if bits >> bit & 1],
        "boot": [word for bit, word in _BITS.items() if bits >> (bit + _SINCE_BOOT) & 1],
    }


def vcgencmd(words: Sequence[str], commands: Sequence[str] = VCGENCMD) -> str | None:
    """Ask a Raspberry Pi's firmware; None where there is none, or it doesn't answer."""
    for command in filter(shutil.which, commands):
        try:
            done = subprocess.run(
                [command, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return done.stdout.decode("ascii", "replace")
    return None


def waited(root: Path = ROOT) -> float | None:
    """Seconds that the threads of this process were ready to run and had no core."""
    total = None
    for task in (root / "proc/self/task").glob("*"):
        words = (read(task / "schedstat") or "").split()
        if len(words) == 3 and words[1].isdigit():
            total = (total or 0) + int(words[1])
    return None if total is None else total * 1e-9


def switches(root: Path = ROOT) -> int:
    """How often a core was taken from the main thread of this process; 0 where nobody counts."""
    text = read(root / "proc/self/status") or ""
    match = re.search(r"^nonvoluntary_ctxt_switches:\s*(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else 0


def cores() -> list[int]:
    """Numbers of the cores that this process may use: fewer than the machine has, at times."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def read(path: Path) -> str | None:
    """Text of a small file of the kernel, without its end; None where there is nothing."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ") or None
    except OSError:
        return None


def _cooled(root: Path) -> list[str] | None:
    """Which of the kernel's ways to cool the processor are at work."""
    found = []
    known = False
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind, step = read(device / "type") or "", read(device / "cur_state")
        if step and step.isdigit() and any(word in kind.lower() for word in _CPU_COOLERS):
            known = True
            if int(step):
                found.append(f"{kind} at step {step}")
    return found if known else None
