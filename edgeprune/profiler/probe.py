# SPDX-License-Identifier: Apache-2.0
"""What a device is and what it has: board, processor, memory, runtimes, meters.

Never a host name, a user or a path. Standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeprune.profiler import throttle
from edgeprune.profiler.machine import fingerprint, system
from edgeprune.profiler.meters import METERS, find_meter
from edgeprune.profiler.throttle import ROOT, read

__all__ = ["probe"]

_RUNTIMES = {
    "onnxruntime": ("onnxruntime", ("onnxruntime-gpu",)),
    "ai-edge-litert": ("ai_edge_litert", ("ai-edge-litert-nightly",)),
    "tflite-runtime": ("tflite_runtime", ("tflite-runtime-nightly",)),
    "tensorflow": ("tensorflow", ("tensorflow-cpu", "tensorflow-aarch64", "tf-nightly")),
}
"""Packages that run artifacts, what each is imported as, and other names it is installed under."""


def probe(root: Path = ROOT) -> dict[str, Any]:
    """All that this device tells about itself; what it doesn't tell is None.

    ``ram`` is in bytes, ``time`` in seconds since 1970. ``throttled`` has what holds the processor
    back ``now`` and what did since ``boot``. ``energy_reason`` says why a meter isn't there.
    """
    found = {name: find_meter(name, root) for name in METERS}
    meters = [name for name, (meter, _) in found.items() if meter]
    reasons = [reason for _, reason in found.values() if reason]
    return {
        **fingerprint(root),
        "soc": _soc(root),
        "isa": _isa(root),
        "ram": _ram(root),
        "os": system(root),
        "python": platform.python_version(),
        "numpy": _version("numpy", "numpy"),
        "runtimes": {
            package: version
            for package, (module, others) in _RUNTIMES.items()
            if (version := _version(module, package, *others))
        },
        "frequency_hz": throttle.frequency(root),
        "temperature_c": throttle.temperature(root),
        "throttled": throttle.state(root),
        "energy_meters": meters,
        "energy_reason": "; ".join(reasons) if not meters else None,
        "time": time.time(),
    }


def _soc(root: Path) -> str | None:
    compatible = (read(root / "proc/device-tree/compatible") or "").split("\0")
    family = [read(root / f"sys/devices/soc0/{key}") for key in ("family", "soc_id")]
    return compatible[-1] or " ".join(word for word in family if word) or None


def _isa(root: Path) -> list[str]:
    text = read(root / "proc/cpuinfo") or ""
    match = re.search(r"^(?:Features|flags)\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1].split() if match else []


def _ram(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", read(root / "proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _version(module: str, *packages: str) -> str | None:
    """Version of an installed package by the first name that is known, without importing it."""
    if importlib.util.find_spec(module) is None:
        return None
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return "of unknown version"
