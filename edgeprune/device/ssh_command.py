# SPDX-License-Identifier: Apache-2.0
"""The words that ssh is started with, and what its complaints mean in one line."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeprune.device.address import Address
from edgeprune.device.process import last_line
from edgeprune.errors import DeviceError, InputError

__all__ = [
    "SshOptions",
    "base_words",
    "configured",
    "explain",
    "host_words",
    "known_hosts_option",
    "quote",
    "quoted_path",
]


@dataclass(frozen=True)
class SshOptions:
    """What is set beside the user's own configuration of ssh, which always applies."""

    known_hosts: Path | None = None
    """Accepted host keys, besides those of the user's own files."""
    identity: Path | None = None
    """The only private key to log in with; ``None``: those that ssh finds."""
    connect_timeout: int = 15
    """Seconds."""
    extra: tuple[str, ...] = ()
    """Further words for ssh, before all others: ``-F FILE``."""


_PIECES = re.compile(r"[\\'!]|[^\\'!]+")


def quote(word: str) -> str:
    """Quote for the shell that the device logs in with, which may be fish or zsh too.

    As ``shlex.quote``, but backslashes, which fish reads inside quotes, are kept out of them.
    """
    pieces = _PIECES.findall(word)
    quoted = (f"\\{piece}" if piece in "\\'!" else f"'{piece}'" for piece in pieces)
    return "".join(quoted) or "''"


def base_words(options: SshOptions) -> list[str]:
    """``ssh`` with all that keeps it from asking, forwarding or running anything else."""
    words = ["ssh", *options.extra, "-T"]
    settings = {
        "BatchMode": "yes",
        "CheckHostIP": "no",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": str(options.connect_timeout),
        "EscapeChar": "none",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "HashKnownHosts": "no",
        "LogLevel": "ERROR",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        "UpdateHostKeys": "no",
    }
    for key, value in settings.items():
        words += ["-o", f"{key}={value}"]
    if options.identity is not None:
        words += ["-i", str(options.identity), "-o", "IdentitiesOnly=yes"]
    return words


def host_words(address: Address) -> list[str]:
    """User, port and host, the last of ssh's own words."""
    words = [] if address.user is None else ["-l", address.user]
    words += [] if address.port is None else ["-p", str(address.port)]
    return [*words, "--", address.name]


def configured(address: Address, options: SshOptions) -> dict[str, str]:
    """What ssh's configuration says of a host, by key in small letters: ``hostname``, ``port`` ...

    Raises:
        InputError: The configuration is wrong.
        DeviceError: There is no ssh.
    """
    command = [*base_words(options), "-G", *host_words(address)]
    try:
        told = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        raise DeviceError(
            f"{address}: the program ssh isn't installed here; it is in the package openssh-client"
        ) from None
    if told.returncode:
        raise InputError(f"{address}: ssh refuses its configuration: {last_line(told.stderr)}")
    lines = (line.partition(" ") for line in told.stdout.splitlines())
    return {key: value for key, _, value in lines}


def known_hosts_option(address: Address, options: SshOptions, *first: Path) -> list[str]:
    """Have ssh read ``first``, the user's own files of host keys, and edgeprune's.

    Raises:
        InputError: The user's configuration of ssh is wrong.
        DeviceError: There is no ssh.
    """
    found = configured(address, options).get("userknownhostsfile", "none")
    # ssh prints the names absolute and unquoted, so that a space may be one inside a name
    files = [] if found == "none" else re.split(r" (?=/)", found)
    own = [] if options.known_hosts is None else [options.known_hosts]
    names = [quoted_path(path) for path in (*first, *map(Path, files), *own)]
    return ["-o", f"UserKnownHostsFile={' '.join(names) or 'none'}"]


def quoted_path(path: Path) -> str:
    """A path as a value of ssh's configuration, which expands ``%`` in it.

    Raises:
        InputError: It has characters that no quoting keeps.
    """
    text = str(path.absolute()).replace("%", "%%")
    if re.search(r'["\\]|\$\{', text):
        raise InputError(f"{path}: ssh can't take a quote, a backslash or ${{ in this name")
    return f'"{text}"'


def explain(address: Address, options: SshOptions, said: str) -> str:
    """One line for what ssh printed when it couldn't connect: what is wrong, what to do."""
    if _NO_GREETING in said and not {"proxyjump", "proxycommand"}.isdisjoint(
        configured(address, options)
    ):
        return (
            f"{address}: the way to it (ProxyJump or ProxyCommand in ssh's configuration) is "
            f"closed; `ssh {address.name}` shows why"
        )
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        return f"{address}: {_changed(options, said)}"
    if "host key is known for" in said or "Host key verification failed" in said:
        return (
            f"{address}: its host key isn't known; `edgeprune device add {address}` shows its "
            "fingerprint and asks whether to accept it"
        )
    refused = re.search(r"^(\S+): Permission denied \((\S+)\)", said, re.MULTILINE)
    if refused:
        key = "the key that was named" if options.identity is not None else "every key ssh tried"
        return (
            f"{address}: the device refuses {key} for {refused[1]}; `ssh-copy-id` puts yours "
            "there, `edgeprune device add --identity FILE` names another"
        )
    if "Could not resolve hostname" in said:
        return (
            f"{address}: no such host '{address.name}': neither a name in the network nor in "
            "ssh's configuration"
        )
    for sign, cause in _CAUSES.items():
        if sign in said:
            return f"{address}: {cause}"
    return f"{address}: ssh can't connect: {last_line(said)}"


_NO_GREETING = "kex_exchange_identification: Connection closed"
"""All that ssh says where a jump host refuses; what that one said may come before it, or not."""
_CAUSES = {
    "Connection refused": "refuses the connection: no ssh server listens on that port",
    "No route to host": "can't be reached: no route to the host; is it on, and in this network?",
    "Network is unreachable": "can't be reached: this machine's network is down or has no route",
    "timed out": "doesn't answer; is it on, and in this network?",
    "Connection reset": "closed the connection; it may be starting, or full",
    "Connection closed": "closed the connection; it may be starting, or full",
}


def _changed(options: SshOptions, said: str) -> str:
    place = re.search(r"^Offending \S+ key in (.*):(\d+)\s*$", said, re.MULTILINE)
    fingerprint = re.search(r"^(SHA256:\S+?)\.?\s*$", said, re.MULTILINE)
    host = re.search(r"^Host key for (\S+) has changed", said, re.MULTILINE)
    name = host[1] if host else "HOST"
    own = (
        options.known_hosts is not None
        and place
        and Path(place[1]) == options.known_hosts.absolute()
    )
    forget = (
        "`edgeprune device remove NAME`"
        if own
        else f"`ssh-keygen -R '{name}' -f {quote(place[1]) if place else 'FILE'}`"
    )
    return (
        "REFUSED: its host key HAS CHANGED"
        + (f", it now shows {fingerprint[1]}" if fingerprint else "")
        + (f", known is line {place[2]} of {place[1]}" if place else "")
        + "; another machine may be answering in its place. Only if you know why it changed: "
        f"{forget}, then `edgeprune device add` again"
    )
