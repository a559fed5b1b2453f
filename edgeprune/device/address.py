# SPDX-License-Identifier: Apache-2.0
"""What the user writes to name a device."""

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from edgeprune.errors import InputError

__all__ = ["FORMS", "Address", "Kind", "parse_address"]

Kind = Literal["local", "ssh", "adb", "emulated", "tflm", "web"]

FORMS = (
    "local",
    "ssh://[USER@]HOST[:PORT]",
    "adb:SERIAL",
    "emulated:TARGET",
    "tflm",
    "web",
    "web:chromium",
)

_SSH = re.compile(
    r"ssh://(?:(?P<user>[^@/]*)@)?(?P<host>\[[^\]/]*\]|[^@:/\[\]]*)(?::(?P<port>[^/]*))?(?P<path>/.*)?",
    re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z0-9_.%][A-Za-z0-9_.%:-]*")
"""User and host names: nothing that ssh or a shell could take for an option or a command."""
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
_MOST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """A device, and for deploying a folder on it."""

    kind: Kind
    name: str = ""
    """Of ``ssh`` the host (an alias of ssh's own config too), of ``adb`` the serial number, of
    ``emulated`` the target, of ``web`` what runs it (``node`` or ``chromium``)."""
    user: str | None = None
    port: int | None = None
    path: str | None = None
    """A folder there; only where a command takes one."""

    def __str__(self) -> str:
        """As the user writes it, without the path."""
        if self.kind == "ssh":
            user = "" if self.user is None else f"{self.user}@"
            host = f"[{self.name}]" if ":" in self.name else self.name
            port = "" if self.port is None else f":{self.port}"
            return f"ssh://{user}{host}{port}"
        plain = self.kind in ("local", "tflm") or (self.kind, self.name) == ("web", "node")
        return self.kind if plain else f"{self.kind}:{self.name}"

    def without_path(self) -> "Address":
        """The device alone."""
        return replace(self, path=None)


def parse_address(text: str) -> Address:
    """Read one of ``FORMS``.

    ``ssh://HOST:/folder``, ``ssh://HOST/folder`` and ``local:/folder`` have a path too.

    Raises:
        InputError: None of these, or a part that could be mistaken for an option.
    """
    if text.startswith("ssh://"):
        return _ssh(text)
    kind, colon, rest = text.partition(":")
    if kind == "local" and (not colon or rest.startswith("/")):
        return Address("local", path=rest or None)
    if kind == "tflm" and not colon:
        return Address("tflm")
    if kind == "web" and (not colon or rest in ("node", "chromium")):
        return Address("web", rest or "node")
    if kind == "adb" and _WORD.fullmatch(rest):
        return Address("adb", rest)
    if kind == "emulated" and _WORD.fullmatch(rest):
        return Address("emulated", rest)
    hint = f"; a device at {text} over ssh is ssh://{text}" if "@" in text else ""
    raise InputError(f"device '{text}': none of {', '.join(FORMS)}{hint}")


def _ssh(text: str) -> Address:
    match = _SSH.fullmatch(text)
    if match is None:
        raise InputError(f"device '{text}': should be ssh://[USER@]HOST[:PORT][/FOLDER]")
    user, host, port = match["user"], match["host"].strip("[]"), match["port"]
    if user is not None and ":" in user:
        raise InputError(
            f"device 'ssh://...@{host}': takes no password, since nothing types it in; "
            f"`ssh-copy-id {user.partition(':')[0]}@{host}` has it asked for once"
        )
    for what, word in (("host", host), ("user", user)):
        bracketed = what == "host" and f"[{host}]" in text
        if word is not None and not (_IPV6 if bracketed else _WORD).fullmatch(word):
            raise InputError(f"device '{text}': '{word}' can't be the name of a {what}")
    number = None
    if port:
        if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MOST_PORT):
            raise InputError(f"device '{text}': port '{port}' isn't one of 1 to {_MOST_PORT}")
        number = int(port)
    return Address("ssh", host, user, number, match["path"])


assert {form.partition(":")[0] for form in FORMS} == set(get_args(Kind))
