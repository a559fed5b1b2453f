# SPDX-License-Identifier: Apache-2.0
"""Which machine, and which versions of the tools: the origin of a measured figure.

Never a host name, a user or a path: a report may be shown to anybody. Standard library only,
Python 3.8 or newer.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeprune import __version__
from edgeprune.profiler.emulation import emulated
from edgeprune.profiler.throttle import ROOT, cores, governor, read

__all__ = ["PACKAGES", "describe", "fingerprint", "summary", "system", "versions"]

PACKAGES = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "litert-torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tflite-runtime",
    "torch",
    "torchao",
)
"""Tools whose version can change an artifact or a figure."""
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


def describe(root: Path = ROOT) -> str:
    """The ``summary`` of the machine whose ``proc``, ``sys`` and ``etc`` are in ``root``."""
    return summary({**fingerprint(root), "os": system(root)})


def summary(facts: Mapping[str, Any]) -> str:
    """One line of a machine's facts: ``Raspberry Pi 4 Model B, 4 cores, Debian ... aarch64``.

    Args:
        facts: What ``fingerprint`` gives, and its ``os``; a device's ``probe`` has all of them.
    """
    runs = (facts["os"], facts["kernel"], facts["machine"])
    parts = [
        facts["board"] or facts["cpu"] or facts["machine"],
        f"{facts['cores']} core{'s' if facts['cores'] != 1 else ''}",
        " ".join(word for word in runs if word),
    ]
    if facts["governor"]:
        parts.append(f"governor {facts['governor']}")
    if facts["emulated"]:
        parts.append(f"emulated by {facts['emulated']}")
    return ", ".join(parts)


def fingerprint(root: Path = ROOT) -> dict[str, Any]:
    """What every answer says about the device that it is of."""
    return {
        "board": _board(root),
        "cpu": _cpu(root),
        "cores": len(cores()),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "governor": governor(root),
        "emulated": emulated(root),
    }


def system(root: Path = ROOT) -> str | None:
    """Name and version of the distribution."""
    text = read(root / "etc/os-release") or ""
    match = re.search(r"^PRETTY_NAME=[\"']?(.*?)[\"']?$", text, re.MULTILINE)
    return match[1] if match else None


def versions() -> dict[str, str]:
    """Versions of edgeprune, Python and the installed ones of ``PACKAGES``."""
    found = {"edgeprune": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


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
