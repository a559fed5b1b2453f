# SPDX-License-Identifier: Apache-2.0
"""Which machine, and which versions of the tools: the origin of a measured figure.

Never a host name, a user or a path: a report may be shown to anybody. Standard library only,
Python 3.8 or newer.
"""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeprune import __version__

__all__ = ["PACKAGES", "describe", "versions"]

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


def describe(root: Path = Path("/")) -> str:
    """Say board or CPU model, cores, operating system: ``Raspberry Pi 4 Model B, 4 cores, Linux``.

    ``root`` is where ``proc`` and ``sys`` are looked for.
    """
    cores = _cores()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    parts = [_board(root) or _cpu(root) or platform.machine(), f"{cores} cores", system]
    governor = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor:
        parts.append(f"governor {governor}")
    return ", ".join(parts).replace(" 1 cores", " 1 core")


def versions() -> dict[str, str]:
    """Versions of edgeprune, Python and the installed ones of ``PACKAGES``."""
    found = {"edgeprune": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def _cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _board(root: Path) -> str | None:
    """Model of an ARM board, where the firmware tells it."""
    return _read(root / "proc/device-tree/model")


def _cpu(root: Path) -> str | None:
    text = _read(root / "proc/cpuinfo") or ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(match[1].split()) if match else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None
