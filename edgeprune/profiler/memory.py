# SPDX-License-Identifier: Apache-2.0
"""Memory of this process as Linux counts it.

Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["STEADY_MALLOC", "available", "parse_status", "read_status", "reset_peak"]

STEADY_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Environment under which glibc's own adaptation doesn't move the peak from run to run (by up to
17 % without). It must be there when the process starts."""

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def available() -> bool:
    """Whether this system tells a process its memory (Linux does)."""
    return _STATUS.exists()


def read_status() -> dict[str, int]:
    """Read ``VmHWM`` (peak), ``VmRSS``, ``RssAnon``, ``RssFile`` and the like, in bytes."""
    return parse_status(_STATUS.read_text(encoding="ascii", errors="replace"))


def parse_status(text: str) -> dict[str, int]:
    """Bytes of every line of ``/proc/PID/status`` that is given in kB."""
    sizes = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            sizes[words[0].rstrip(":")] = int(words[1]) * 1024
    return sizes


def reset_peak() -> bool:
    """Let ``VmHWM`` start again from what is used now; False where the kernel doesn't allow it."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True
