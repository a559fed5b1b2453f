# SPDX-License-Identifier: Apache-2.0
"""Whether this process, or its whole machine, is emulated: then its times are no evidence.

Standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgeprune.profiler.throttle import ROOT, read

__all__ = ["emulated"]


def emulated(root: Path = ROOT) -> str | None:
    """Say by what this is emulated: ``qemu-user``, ``qemu-system`` or None.

    A virtual machine with the processor's own support (KVM) isn't emulated. On ARM one can't be
    told from the other, so qemu's ``virt`` machine counts as emulated there.
    """
    if _user(root):
        return "qemu-user"
    names = (read(root / "proc/device-tree/compatible") or "").split("\0")
    maker = read(root / "sys/class/dmi/id/sys_vendor") or ""
    clocks = read(root / "sys/devices/system/clocksource/clocksource0/available_clocksource") or ""
    if "linux,dummy-virt" in names or (maker == "QEMU" and "kvm-clock" not in clocks.split()):
        return "qemu-system"
    return None


def _user(root: Path) -> bool:
    """Whether a thread of this process has qemu's program in its memory.

    qemu's user mode fakes ``/proc/self/maps`` and ``/proc/PID/maps``, but not those of the threads.
    """
    return any(
        re.search(r"/qemu-\w+(-static)?$", read(thread / "maps") or "", re.MULTILINE)
        for thread in (root / "proc/self/task").glob("*")
    )
