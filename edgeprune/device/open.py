# SPDX-License-Identifier: Apache-2.0
"""From a device that the user named to what reaches it."""

import sys
from pathlib import Path

from edgeprune.device.agent import CODE, FOLDER, Agent
from edgeprune.device.local import LocalShell
from edgeprune.device.settings import Named, Places, environment
from edgeprune.device.shell import Shell
from edgeprune.device.ssh import SshOptions, SshShell
from edgeprune.errors import InputError
from edgeprune.target import find_target

__all__ = ["open_agent", "open_shell", "ssh_options"]


def ssh_options(named: Named, places: Places) -> SshOptions:
    """How ssh reaches a device: with the accepted host keys, and its own private key."""
    identity = named.entry.identity
    return SshOptions(
        places.known_hosts.absolute(),
        None if identity is None else places.config.absolute() / Path(identity).expanduser(),
    )


def open_shell(named: Named, places: Places) -> Shell:
    """What runs commands on a device; nothing is connected yet.

    Raises:
        InputError: No commands can be run on a device of this kind.
    """
    if named.address.kind == "local":
        return LocalShell()
    if named.address.kind == "ssh":
        return SshShell(named.address, ssh_options(named, places))
    raise InputError(f"{named.name}: no commands can be run on {named.address}; this needs ssh")


def open_agent(named: Named, places: Places, *, keep: bool = False) -> Agent:
    """The agent on a device; nothing is connected or copied yet.

    Args:
        named: The device.
        places: Where its host key and its environment are.
        keep: Whether copies of the files stay on the device at the end.

    Raises:
        InputError: Devices of this kind have no agent, or an emulated one isn't set up.
        ConfigError: An emulated one is of no known target.
    """
    address, entry = named.address, named.entry
    if address.kind == "local":
        return Agent(LocalShell(CODE), (sys.executable,), None)
    if address.kind == "ssh":
        python = entry.python or ("python3",)
        return Agent(open_shell(named, places), python, entry.folder or FOLDER, keep=keep)
    if address.kind == "emulated":
        from edgeprune.device.emulated import python_words

        folder = environment(places, address)
        words = python_words(folder, find_target(address.name))
        # Beside this code its Python would find this machine's own packages.
        return Agent(LocalShell(name=str(address)), words, str(folder / "agent"), keep=keep)
    raise InputError(f"{named.name}: the agent doesn't run on {address}; it has its own way")
