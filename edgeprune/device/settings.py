# SPDX-License-Identifier: Apache-2.0
"""The devices that the user has added: ``devices.toml`` in the user's config folder.

[board]
address = "ssh://pi@192.168.1.20"
python = ["/opt/venv/bin/python"]
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import ConfigDict, Field, field_validator

from edgeprune.device.address import FORMS, Address, parse_address
from edgeprune.errors import ConfigError, InputError, nearest
from edgeprune.toml import Config, load, parse
from edgeprune.writing import save

__all__ = [
    "Entry",
    "Named",
    "Places",
    "check_name",
    "environment",
    "find_device",
    "read_devices",
    "write_devices",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TARGET = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]


@dataclass(frozen=True)
class Places:
    """Where edgeprune keeps what belongs to the user, not to one run."""

    config: Path
    """``devices.toml`` and ``known_hosts``."""
    cache: Path
    """What set-ups make: emulated boards, the environments of ``tflm`` and ``web``."""

    @property
    def devices(self) -> Path:
        """The file of the devices."""
        return self.config / "devices.toml"

    @property
    def known_hosts(self) -> Path:
        """The host keys that ``edgeprune device add`` accepted."""
        return self.config / "known_hosts"


class Entry(Config):
    """One device that was added."""

    address: Text
    python: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """The words that start Python there (ssh); ``None``: ``python3``."""
    identity: Text | None = None
    """Path of the private key to log in with (ssh)."""
    folder: Text | None = None
    """Where the agent and its files go there (ssh); ``None``: ``~/.cache/edgeprune``."""
    benchmark_model: Text | None = None
    """Path of TensorFlow Lite's ``benchmark_model`` for the phone (adb)."""

    @field_validator("address")
    @classmethod
    def _is_address(cls, text: str) -> str:
        try:
            address = parse_address(text)
        except InputError as error:
            raise ValueError(str(error)) from None
        if address.path is not None:
            raise ValueError(f"'{text}' has a folder; a device is '{address}'")
        return text


class _File(Config):
    """The file as it is read; each table is then an ``Entry``, so that errors name the device."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True)
class Named:
    """A device that the user named on the command line."""

    name: str
    """Its own name; of a bare address, the address."""
    address: Address
    entry: Entry


def read_devices(places: Places) -> dict[str, Entry]:
    """The added devices by name; none where nothing was added yet.

    Raises:
        ConfigError: The file is wrong; the message names the device and the key.
    """
    path = places.devices
    if not path.exists():
        return {}
    entries = {}
    for name, table in (load(path, _File).model_extra or {}).items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: key '{name}' should be a table, [{name}], of one device")
        entries[name] = parse(table, Entry, f"{path}: [{name}]")
        try:
            check_name(name, parse_address(entries[name].address))
        except InputError as error:
            raise ConfigError(f"{path}: {error}") from None
    return entries


def write_devices(places: Places, devices: Mapping[str, Entry]) -> None:
    """Replace the file; it is there whole at any time.

    Raises:
        OutputError: It can't be written.
    """
    tables: dict[str, Any] = {
        name: entry.model_dump(mode="json", exclude_none=True)
        for name, entry in sorted(devices.items())
    }
    save(places.devices, tomli_w.dumps(tables), parents=True)


def check_name(name: str, address: Address) -> None:
    """Refuse a name that can't stand for ``address`` on a command line.

    Raises:
        InputError: It has other characters, or is the address of another device.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' can't be the name of a device: letters, digits, '.', '_' and '-', the first "
            "one a letter or digit"
        )
    if name in FORMS and name != str(address):
        raise InputError(f"'{name}' can't be the name of {address}: it is an address itself")


def find_device(text: str, places: Places, *, takes_path: bool = False) -> Named:
    """The device that ``--device TEXT`` means: a name that was added, or an address.

    An address that was added under exactly one name has that one's settings.

    Args:
        text: What the user wrote.
        places: Where the added devices are.
        takes_path: Whether a folder may follow: ``NAME:/folder``, ``ssh://HOST/folder``.

    Raises:
        InputError: Neither, or a folder where none is taken.
        ConfigError: The file of the devices is wrong.
    """
    devices = read_devices(places)
    name, colon, path = text.partition(":/")
    if text in devices:
        return Named(text, parse_address(devices[text].address), devices[text])
    if colon and name in devices and takes_path:
        address = replace(parse_address(devices[name].address), path=f"/{path}")
        return Named(name, address, devices[name])
    address = _address(text, devices)
    if address.path is not None and not takes_path:
        raise InputError(f"device '{text}': here no folder is taken; the device is '{address}'")
    same = [
        name
        for name, entry in devices.items()
        if parse_address(entry.address) == address.without_path()
    ]
    if len(same) == 1:
        return Named(same[0], address, devices[same[0]])
    return Named(str(address), address, Entry(address=str(address)))


def _address(text: str, devices: Mapping[str, Entry]) -> Address:
    if not _NAME.fullmatch(text) or text in FORMS:
        return parse_address(text)
    added = f"added are {', '.join(devices)}" if devices else "none was added yet"
    raise InputError(
        f"device '{text}': no such device{nearest(text, devices)}; {added}; an address is one of "
        f"{', '.join(FORMS)}"
    )


def environment(places: Places, address: Address) -> Path:
    """The folder of a device that edgeprune itself sets up: ``emulated``, ``tflm``, ``web``.

    Raises:
        InputError: ``emulated:TARGET`` with what can't be the name of a target.
    """
    assert address.kind in ("emulated", "tflm", "web"), address
    if address.kind != "emulated":
        return places.cache / address.kind
    if not _TARGET.fullmatch(address.name):  # ".." would be a folder that isn't ours to delete
        raise InputError(f"{address}: '{address.name}' can't be the name of a target")
    return places.cache / address.kind / address.name
