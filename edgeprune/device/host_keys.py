# SPDX-License-Identifier: Apache-2.0
"""Host keys of ssh: seeing a device's for the first time, accepting it, forgetting it.

ssh itself fetches the key, so that the user's configuration and jump hosts apply; nothing here is
called but by ``edgeprune device``.
"""

import base64
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeprune.device.address import Address
from edgeprune.device.process import ask
from edgeprune.device.ssh_command import (
    SshOptions,
    base_words,
    configured,
    explain,
    host_words,
    known_hosts_option,
    quoted_path,
)
from edgeprune.errors import DeviceError, OutputError
from edgeprune.writing import save

__all__ = ["HostKey", "accept", "fetch", "forget", "known_as"]

_SSH_PORT = "22"
_TIMES = 4
"""Of the connect timeout, until a device that doesn't go on is given up."""


@dataclass(frozen=True)
class HostKey:
    """The key that a device showed."""

    host: str
    """As ssh names it in a file of known hosts: ``board``, ``[board]:2222``."""
    kind: str
    """``ssh-ed25519`` ..."""
    blob: str
    """The key in base64."""

    @property
    def fingerprint(self) -> str:
        """``SHA256:...``, as ``ssh-keygen -l`` prints it on the device."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def line(self) -> str:
        """For a file of known hosts."""
        return f"{self.host} {self.kind} {self.blob}\n"


def fetch(address: Address, options: SshOptions, *, compare: bool = True) -> HostKey | None:
    """Get the key that a device shows; ``None``: it is known already.

    Args:
        address: The device.
        options: Their ``known_hosts`` are edgeprune's own.
        compare: Whether to look at the known keys; without, the key is given in any case.

    Raises:
        DeviceError: Another key of the device is known, or it can't be reached.
        InputError: The user's configuration of ssh is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        fresh = Path(folder) / "known_hosts"
        if compare:
            files = known_hosts_option(address, options, fresh)
        else:
            nowhere = "GlobalKnownHostsFile=/dev/null"
            files = ["-o", f"UserKnownHostsFile={quoted_path(fresh)}", "-o", nowhere]
        said = _greet(address, options, files)
        if fresh.exists():
            host, kind, blob = fresh.read_text(encoding="ascii").splitlines()[-1].split()[:3]
            return HostKey(host, kind, blob)
    if compare and ("Permission denied" in said or not said.strip()):
        return None
    raise DeviceError(explain(address, options, said))


def _greet(address: Address, options: SshOptions, files: list[str]) -> str:
    """Connect without logging in, and accept a key that isn't known into the first of the files."""
    command = [
        *base_words(options),
        *files,
        *("-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "PreferredAuthentications=none"),
        *("-o", "ControlMaster=no", "-o", "ControlPath=none"),
        *host_words(address),
        "true",
    ]
    try:
        return ask(command, timeout=_TIMES * options.connect_timeout).stderr
    except subprocess.TimeoutExpired:
        return "timed out"


def accept(path: Path, key: HostKey) -> None:
    """Add a key to edgeprune's file of known hosts.

    Raises:
        OutputError: It can't be written.
    """
    save(path, _read(path) + key.line, parents=True)


def forget(path: Path, host: str) -> bool:
    """Remove a host's keys from edgeprune's file; whether there were any.

    Raises:
        OutputError: It can't be written.
    """
    lines = _read(path).splitlines(keepends=True)
    kept = [line for line in lines if line.split(maxsplit=1)[:1] != [host]]
    if len(kept) == len(lines):
        return False
    save(path, "".join(kept), parents=True)
    return True


def known_as(address: Address, options: SshOptions) -> str:
    """The name under which ssh knows a device's key.

    Raises:
        InputError: The user's configuration of ssh is wrong.
        DeviceError: There is no ssh.
    """
    found = configured(address, options)
    if "hostkeyalias" in found:
        return found["hostkeyalias"]
    host, port = found.get("hostname", address.name).lower(), found.get("port", _SSH_PORT)
    return host if port == _SSH_PORT else f"[{host}]:{port}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise OutputError(f"{path}: can't be read: {error.strerror}") from None
