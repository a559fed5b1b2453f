# SPDX-License-Identifier: Apache-2.0
"""What a device is and what it has: board, processor, memory, runtimes, meters.

Never a host name, a user or a path. Standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeprune.profiler import throttle
from edgeprune.profiler.emulation import emulated
from edgeprune.profiler.meters import METERS, find_meter
from edgeprune.profiler.throttle import ROOT, read

__all__ = ["fingerprint", "probe"]

_RUNTIMES = {
    "onnxruntime": ("onnxruntime", ("onnxruntime-gpu",)),
    "ai-edge-litert": ("ai_edge_litert", ("ai-edge-litert-nightly",)),
    "tflite-runtime": ("tflite_runtime", ("tflite-runtime-nightly",)),
    "tensorflow": ("tensorflow", ("tensorflow-cpu", "tensorflow-aarch64", "tf-nightly")),
}
"""Packages that run artifacts, what each is imported as, and other names it is installed under."""
_ARM = {
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}
"""Arm's own cores by the ``CPU part`` of ``/proc/cpuinfo``."""
_ARM_LTD = 0x41


def fingerprint(root: Path = ROOT) -> dict[str, Any]:
    """What every answer says about the device that it is of."""
    return {
        "board": _board(root),
        "cpu": _cpu(root),
        "cores": _cores(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "governor": throttle.governor(root),
        "emulated": emulated(root),
    }


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
        "os": _system(root),
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


def _board(root: Path) -> str | None:
    """Model as the firmware tells it: the device tree's on ARM, DMI's on PCs."""
    tree = read(root / "proc/device-tree/model")
    cpuinfo = re.search(r"^Model\s*:\s*(.+)$", read(root / "proc/cpuinfo") or "", re.MULTILINE)
    if tree or cpuinfo:
        return tree or (cpuinfo[1].strip() if cpuinfo else None)
    names = [read(root / f"sys/class/dmi/id/{key}") for key in ("sys_vendor", "product_name")]
    return " ".join(name for name in names if name) or None


def _cpu(root: Path) -> str | None:
    text = read(root / "proc/cpuinfo") or ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    makers = re.findall(r"^CPU implementer\s*:\s*(0x[0-9a-f]+)$", text, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(0x[0-9a-f]+)$", text, re.MULTILINE)
    if parts:  # it says more than the "model name" of 32-bit ARM, and big and little are apart
        names = [_arm_core(*words) for words in zip(makers, parts)]  # noqa: B905 - 3.8
    unique = dict.fromkeys(" ".join(name.split()) for name in names)
    return " + ".join(unique) or None


def _arm_core(maker: str, part: str) -> str:
    known = _ARM.get(int(part, 16)) if int(maker, 16) == _ARM_LTD else None
    return known or f"ARM core {part} of implementer {maker}"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def _system(root: Path) -> str | None:
    text = read(root / "etc/os-release") or ""
    match = re.search(r"^PRETTY_NAME=[\"']?(.*?)[\"']?$", text, re.MULTILINE)
    return match[1] if match else None


def _version(module: str, *packages: str) -> str | None:
    """Version of an installed package by the first name that is known, without importing it."""
    if importlib.util.find_spec(module) is None:
        return None
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return "of unknown version"
