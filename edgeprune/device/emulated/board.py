# SPDX-License-Identifier: Apache-2.0
"""What the emulated board says of itself under ``/proc`` and ``/sys``, made from its target.

Without it the runtimes read the host's ``/proc/cpuinfo``, and onnxruntime dies of that. They choose
their kernels by what stands there, so it has to be the board's.
"""

from collections.abc import Sequence

from edgeprune.target import Target

__all__ = ["MIDR", "board_files", "features"]

MIDR = {
    "cortex-a53": 0x410FD034,
    "cortex-a57": 0x411FD070,
    "cortex-a72": 0x410FD083,
    "cortex-a76": 0x414FD0B1,
}
"""Main ID register (implementer, variant, part, revision) of each CPU, as QEMU gives it too."""

_FEATURES = (
    *("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp"),
    *("asimdhp", "cpuid", "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4"),
    *("asimddp", "sha512", "sve", "asimdfhm", "dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb"),
)
"""Linux's names of the bits of AT_HWCAP on arm64, from bit 0."""


def features(isa: Sequence[str], capabilities: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a target's instruction sets in those that are emulated, and those that are not.

    Args:
        isa: Names as in ``/proc/cpuinfo``.
        capabilities: ``AT_HWCAP`` as the emulator gives it to a program.
    """
    has = {name for bit, name in enumerate(_FEATURES) if capabilities >> bit & 1}
    return tuple(n for n in isa if n in has), tuple(n for n in isa if n not in has)


def board_files(target: Target, cpu: str, isa: Sequence[str]) -> dict[str, str]:
    """Text of each file that the board has in place of the host's, by its path from the root.

    Args:
        target: Its cores, RAM and name are told.
        cpu: QEMU's name of the CPU.
        isa: The instruction sets to tell of.
    """
    device = target.device
    cores = device.cores or 1
    listed = "0" if cores == 1 else f"0-{cores - 1}"
    name = device.model or device.title
    files = {
        "proc/cpuinfo": _cpuinfo(name, cores, MIDR[cpu], isa),
        "proc/device-tree/model": name + "\0",
        "sys/devices/system/cpu/possible": listed + "\n",
        "sys/devices/system/cpu/present": listed + "\n",
        "sys/devices/system/cpu/online": listed + "\n",
    }
    if device.ram is not None:
        files["proc/meminfo"] = f"MemTotal:       {device.ram // 1024:8d} kB\n"
    return files


def _cpuinfo(name: str, cores: int, midr: int, isa: Sequence[str]) -> str:
    facts = (
        f"Features\t: {' '.join(isa)}\n"
        f"CPU implementer\t: 0x{midr >> 24:02x}\n"
        "CPU architecture: 8\n"
        f"CPU variant\t: 0x{midr >> 20 & 0xF:x}\n"
        f"CPU part\t: 0x{midr >> 4 & 0xFFF:03x}\n"
        f"CPU revision\t: {midr & 0xF}\n\n"
    )
    each = "".join(f"processor\t: {core}\n{facts}" for core in range(cores))
    return f"{each}Model\t\t: {name}\n"
