# SPDX-License-Identifier: Apache-2.0
"""A Debian arm64 userland with Python and the runtimes' own aarch64 wheels, in a folder.

Packages are unpacked and not configured, which takes seconds where a whole installation under the
emulator takes minutes, and neither root nor a mount is needed.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeprune.device.emulated.tools import Debian, Tools, start
from edgeprune.errors import DeviceError, InputError
from edgeprune.target import Target

__all__ = ["build_userland", "install_wheels", "python_of", "wheels_of"]

_PACKAGES = ("base-files", "python3", "libstdc++6", "libgcc-s1", "busybox-static")
"""The two libraries are what the wheels need of the system besides libc; busybox is a shell for
whoever enters the folder by chroot."""
_GLIBC = (17, 26, 27, 28, 31, 34, 35, 36)
"""manylinux_2_N platforms that a current Debian runs."""
_WHEELS = ("onnxruntime", "ai-edge-litert")
_SITE = Path("usr/lib/python3/dist-packages")
_UNPACKING = 900.0
_INSTALLING = 1200.0


def wheels_of(target: Target) -> tuple[str, ...]:
    """The target's runtimes as pip names them: ``onnxruntime==1.31.1``.

    Raises:
        InputError: It has none that comes as a wheel.
    """
    runtimes = [target.runtime(form) for form in target.formats]
    wheels = tuple(f"{r.name}=={r.version}" for r in runtimes if r.name in _WHEELS)
    if not wheels:
        names = ", ".join(runtime.name for runtime in runtimes)
        raise InputError(
            f"emulated:{target.name}: its runtimes ({names}) are none of {', '.join(_WHEELS)}, "
            "which an emulated board runs"
        )
    return wheels


def build_userland(root: Path, tools: Tools, debian: Debian, scratch: Path) -> None:
    """Unpack Debian's arm64 Python to the new folder ``root``.

    Raises:
        DeviceError: mmdebstrap failed, most likely because the archive can't be reached.
    """
    words = [
        tools.mmdebstrap,
        *("--quiet", "--mode=root" if os.geteuid() == 0 else "--mode=chrootless"),
        *("--variant=extract", "--architectures=arm64"),
        f"--include={','.join(_PACKAGES)}",
        *(debian.suite, str(root), f"deb {debian.mirror} {debian.suite} main"),
    ]
    start(words, timeout=_UNPACKING, environment={"TMPDIR": str(scratch)})
    python_of(root)


def python_of(root: Path) -> Path:
    """The interpreter in a userland.

    Raises:
        DeviceError: There is none.
    """
    found = sorted(root.glob("usr/bin/python3.[0-9]*[0-9]"))
    if not found:
        raise DeviceError(f"{root}: no Python was unpacked there")
    return found[0]


def install_wheels(root: Path, wheels: Sequence[str]) -> None:
    """Install aarch64 wheels, and what they depend on, where the userland's Python looks.

    Raises:
        DeviceError: pip failed: no such wheel for this Python, or the index can't be reached.
    """
    version = python_of(root).name.removeprefix("python")
    words = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"),
        *("--disable-pip-version-check", "--no-input", "--target", str(root / _SITE)),
        *("--platform", "manylinux2014_aarch64"),
        *(word for n in _GLIBC for word in ("--platform", f"manylinux_2_{n}_aarch64")),
        *("--python-version", version, "--implementation", "cp", "--only-binary=:all:"),
        *wheels,
    ]
    start(words, timeout=_INSTALLING)
