# SPDX-License-Identifier: Apache-2.0
"""The programs of this machine that make and run an emulated board."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.device.local import LocalShell
from edgeprune.errors import DeviceError, InputError

__all__ = ["Debian", "Tools", "find_debian", "find_tools", "start"]

_INSTALL = "apt-get install --no-install-recommends mmdebstrap qemu-user"


@dataclass(frozen=True)
class Tools:
    """What is there to work with."""

    mmdebstrap: str
    qemu: str
    """The user-mode emulator of arm64, if possible the one that takes plugins."""
    version: str
    """Of QEMU."""


@dataclass(frozen=True)
class Debian:
    """Where this machine's own apt gets Debian from."""

    mirror: str
    suite: str


def find_tools() -> Tools:
    """Find mmdebstrap and QEMU.

    Raises:
        InputError: One isn't there; with the command that installs it.
    """
    mmdebstrap = shutil.which("mmdebstrap")
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if mmdebstrap is None or qemu is None:
        missing = [n for n, p in (("mmdebstrap", mmdebstrap), ("qemu-aarch64", qemu)) if p is None]
        raise InputError(f"an emulated board needs {' and '.join(missing)} (Debian): {_INSTALL}")
    told = re.search(r"version (\d+(?:\.\d+)*)", start([qemu, "--version"], timeout=60))
    return Tools(mmdebstrap, qemu, told[1] if told else "of unknown version")


def find_debian() -> Debian:
    """Ask apt for its first Debian archive and the suite it takes from there.

    Raises:
        InputError: There is no apt, or it has no Debian in its sources.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise InputError("an emulated board is made on Debian only: there is no apt-get here")
    wanted = ["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"]
    form = "$(CODENAME) $(REPO_URI)"
    told = start([apt, "indextargets", "--format", form, *wanted], timeout=60)
    for line in told.splitlines():
        suite, _, mirror = line.partition(" ")
        if mirror and re.fullmatch(r"[a-z]+", suite):  # not bookworm-updates
            return Debian(mirror, suite)
    raise InputError(
        "an emulated board is made from the Debian that apt knows of, and it knows of none: "
        "see /etc/apt/sources.list, then apt-get update"
    )


def start(
    words: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program without input and give what it printed; it and its children end with us.

    Args:
        words: The program and its arguments.
        timeout: Seconds.
        environment: Variables to set on top of our own.

    Raises:
        DeviceError: It failed, or took longer.
    """
    done = LocalShell(environment=environment).run(words, timeout=timeout)
    told = done.out.decode("utf-8", errors="replace")
    if done.code:
        cause = _cause(done.err or told)
        raise DeviceError(f"{Path(words[0]).name} failed ({done.code}): {cause}")
    return told


def _cause(text: str) -> str:
    """The line that tells most: the last one that speaks of an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(E|ERROR|error|\w*Error)\b", line)]
    return (telling or lines or ["no message"])[-1]
