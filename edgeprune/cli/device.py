# SPDX-License-Identifier: Apache-2.0
"""``edgeprune device``: which devices there are, adding one, looking at it, forgetting it."""

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import probed, show
from edgeprune.cli.console import progress
from edgeprune.cli.places import places
from edgeprune.device import archive, host_keys
from edgeprune.device.address import FORMS, Address, Kind, parse_address
from edgeprune.device.open import open_agent, ssh_options
from edgeprune.device.settings import (
    Entry,
    Named,
    Places,
    check_name,
    environment,
    find_device,
    read_devices,
    write_devices,
)
from edgeprune.device.setups import SET_UP, describe, set_up
from edgeprune.errors import DeviceError, InputError
from edgeprune.writing import check_place, save

__all__ = ["app"]

app = typer.Typer(help="The devices that artifacts are measured on.", no_args_is_help=True)

_ADD = """Examples:

  edgeprune device add board ssh://pi@192.168.1.20

  edgeprune device add board ssh://pi@board --python /opt/venv/bin/python --identity ~/.ssh/board

  edgeprune device add board ssh://pi@board --fingerprint SHA256:kZ5...

  edgeprune device add emulated:rpi4

  edgeprune device add phone adb:R58M12ABCDE --benchmark-model benchmark_model

The device itself prints its fingerprint with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
"""
_PROBE = """Examples:

  edgeprune device probe board

  edgeprune device probe ssh://pi@192.168.1.20 --json

  edgeprune device probe local
"""
_REMOVE = """Examples:

  edgeprune device remove board

  edgeprune device remove emulated-rpi4 --purge
"""
_AGENT = """Examples:

  edgeprune device agent -o edgeprune-agent.pyz

  python3 edgeprune-agent.pyz --help    (on the device)

Only for a device that edgeprune can't reach: elsewhere the agent goes there by itself.
"""
_KINDS: dict[str, tuple[Kind, ...]] = {
    "python": ("ssh",),
    "identity": ("ssh",),
    "folder": ("ssh",),
    "benchmark_model": ("adb",),
}
"""Which devices a setting is for."""
_NAME = "[NAME] ADDRESS"


@dataclass(frozen=True)
class _Report:
    """What was removed beside a device's entry, and what was not, and why."""

    done: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_DEVICE = typer.Argument(
    metavar="DEVICE", show_default=False, help="A name that was added, or an address."
)


@app.command("list")
def list_(json: opt.JsonOption = False) -> None:
    """List the devices that were added."""
    where = places()
    devices = read_devices(where)
    if json:
        tables = {
            name: entry.model_dump(mode="json", exclude_none=True)
            for name, entry in devices.items()
        }
        show.as_json({"file": str(where.devices), "devices": tables})
        return
    if devices:
        rows = [(name, entry.address, _settings(entry)) for name, entry in devices.items()]
        show.table(("name", "address", "settings"), rows, left=3)
    else:
        typer.echo("No device was added yet: edgeprune device add --help")
    typer.echo(f"Wherever a name can stand, an address can too: {', '.join(FORMS)}")


@app.command(epilog=_ADD)
def add(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar=_NAME,
            show_default=False,
            help="A name of your choice (else one is made of the address), and the address: "
            f"{', '.join(FORMS[1:])}.",
        ),
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="SHA256:...",
            help="Accept an unknown host key only if this is its fingerprint; for scripts.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept an unknown host key, whatever it is, unasked.")
    ] = False,
    python: Annotated[
        str | None,
        typer.Option(
            "--python", metavar="COMMAND", help="What starts Python there.", show_default="python3"
        ),
    ] = None,
    identity: Annotated[
        Path | None,
        typer.Option("--identity", metavar="FILE", help="The private key to log in with."),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--folder",
            metavar="FOLDER",
            help="Where the agent and its files go there.",
            show_default="~/.cache/edgeprune",
        ),
    ] = None,
    benchmark_model: Annotated[
        Path | None,
        typer.Option(
            "--benchmark-model",
            metavar="FILE",
            help="TensorFlow Lite's benchmark_model, built for the phone.",
        ),
    ] = None,
) -> None:
    """Give a device a name, see its host key and accept it, or set an emulated one up.

    Of one that was added already, the settings that are given are changed.

    Here alone a new host key of ssh is ever accepted, into a file of edgeprune's own.
    """
    where = places()
    name, address = _name_and_address(words)
    devices = read_devices(where)
    given: dict[str, Any] = {
        "python": None if python is None else _words(python) or None,
        "identity": _file(identity, "--identity"),
        "folder": folder,
        "benchmark_model": _file(benchmark_model, "--benchmark-model"),
    }
    entry = Entry(address=str(address), **given)
    _check(name, address, entry, devices)
    if name in devices:  # what isn't named anew stays
        changes = {key: value for key, value in given.items() if value is not None}
        entry = devices[name].model_copy(update=changes)
    named = Named(name, address, entry)
    if address.kind == "ssh":
        _accept_key(named, where, fingerprint, yes)
    elif fingerprint is not None:
        raise InputError(f"--fingerprint: {address} has no host key; it is for ssh")
    told = set_up(address, where, progress()) if address.kind in SET_UP else None
    write_devices(where, {**read_devices(where), name: entry})
    typer.echo(f"{name}: added" if name == str(address) else f"{name}: added, {address}")
    _first_look(named, where, told)


@app.command(epilog=_PROBE)
def probe(
    device: Annotated[str, _DEVICE],
    json: opt.JsonOption = False,
) -> None:
    """Look at a device: board, memory, runtimes and their versions, throttling, energy meters."""
    where = places()
    named = find_device(device, where)
    if named.address.kind in ("local", "ssh", "emulated"):
        with open_agent(named, where) as agent:
            found = agent.probe()
        if json:
            show.as_json({"device": named.name, "address": str(named.address), "probe": found})
            return
        probed.print_table(named, found)
        return
    told = describe(named, where)
    if json:
        show.as_json({"device": named.name, "address": str(named.address), "ready": told})
    else:
        typer.echo(told)


@app.command(epilog=_REMOVE)
def remove(
    device: Annotated[str, _DEVICE],
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Also delete what was set up on this machine: emulated, tflm, web."
        ),
    ] = False,
) -> None:
    """Forget a device and its host key."""
    where = places()
    named = find_device(device, where)
    kind = named.address.kind
    if purge and kind not in SET_UP:
        raise InputError(f"--purge: nothing of {named.address} is on this machine")
    devices = read_devices(where)
    known = devices.pop(named.name, None) is not None
    others = [parse_address(entry.address) for entry in devices.values()]
    report = _Report()
    if known:
        write_devices(where, devices)
    if kind == "ssh":
        report = _forget_key(named, where, others)
    elif kind in SET_UP:
        report = _leave_or_delete(named.address, where, others, purge)
    done = (*([f"{named.name}: removed"] if known else []), *report.done)
    if not done:
        raise InputError("; ".join((f"device '{device}' was not added", *report.notes)))
    show.lines((*done, *report.notes))


@app.command(epilog=_AGENT)
def agent(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    overwrite: opt.OverwriteOption = False,
) -> None:
    """Write the agent, one file that Python 3.8 and newer run, to carry it to a device yourself."""
    check_place(out, overwrite=overwrite)
    content = archive.build()
    save(out, [content])
    typer.echo(f"{out}: {len(content):,} B")


def _name_and_address(words: list[str]) -> tuple[str, Address]:
    if len(words) > 2:
        raise InputError(f"'{words[2]}': this takes {_NAME}")
    address = parse_address(words[-1])
    if address.path is not None:
        raise InputError(f"device '{words[-1]}': here no folder is taken; add '{address}'")
    if address.kind == "local":
        raise InputError("'local' is this machine; it needs no adding")
    made = f"emulated-{address.name}" if address.kind == "emulated" else str(address)
    made = address.name if address.kind in ("ssh", "adb") else made.replace(":", "-")
    name = words[0] if len(words) > 1 else made
    check_name(name, address)
    return name, address


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise InputError(f"--python: '{command}': {str(error).lower()}") from None


def _file(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    path = path.expanduser()
    if not path.is_file():
        raise InputError(f"{option}: {path}: no such file")
    return str(path.absolute())


def _check(name: str, address: Address, entry: Entry, devices: dict[str, Entry]) -> None:
    for key, kinds in _KINDS.items():
        if getattr(entry, key) is not None and address.kind not in kinds:
            option = f"--{key.replace('_', '-')}"
            raise InputError(f"{option} is for {' and '.join(kinds)}; {address} takes none")
    if name in devices and parse_address(devices[name].address) != address:
        raise InputError(
            f"device '{name}' is {devices[name].address}; choose another name, or first: edgeprune "
            f"device remove {name}"
        )


def _accept_key(named: Named, where: Places, fingerprint: str | None, yes: bool) -> None:
    options = ssh_options(named, where)
    unknown = host_keys.fetch(named.address, options)
    if fingerprint is not None:
        shown = unknown or host_keys.fetch(named.address, options, compare=False)
        if shown is None or shown.fingerprint != fingerprint:
            other = "none" if shown is None else f"{shown.fingerprint} ({shown.kind})"
            raise DeviceError(
                f"{named.address}: REFUSED: its host key's fingerprint is {other}, not "
                f"{fingerprint}; nothing was changed"
            )
    if unknown is None:
        typer.echo(f"{named.address}: its host key is known already")
        return
    typer.echo(f"{named.address} shows this {unknown.kind} host key:\n  {unknown.fingerprint}")
    if fingerprint is None and not yes:
        _ask(named.address)
    host_keys.accept(where.known_hosts, unknown)


def _ask(address: Address) -> None:
    if not sys.stdin.isatty():
        raise InputError(
            f"{address}: its host key isn't accepted unasked; --fingerprint SHA256:... accepts "
            "that key alone"
        )
    if not typer.confirm("Is that the device's own fingerprint?", default=False):
        raise InputError(f"{address}: its host key was not accepted; nothing was changed")


def _first_look(named: Named, where: Places, told: str | None) -> None:
    """Say what is there; a device that can't be used yet stays added, and the error says so."""
    if told is not None:
        typer.echo(told)
    try:
        if named.address.kind == "ssh":
            with open_agent(named, where) as agent:
                found = agent.probe()
            typer.echo(probed.one_line(found))
            show.lines(probed.lacking(found, named))
        elif named.address.kind == "adb":
            typer.echo(describe(named, where))
    except (InputError, DeviceError) as error:
        kind = InputError if isinstance(error, InputError) else DeviceError
        raise kind(f"added, but it can't be used yet: {error}") from None


def _forget_key(named: Named, where: Places, others: list[Address]) -> _Report:
    options = ssh_options(named, where)
    host = host_keys.known_as(named.address, options)
    for other in others:
        if other.kind == "ssh" and host_keys.known_as(other, options) == host:
            return _Report(notes=(f"its host key stays, since {other} has it too",))
    if not host_keys.forget(where.known_hosts, host):
        return _Report()
    return _Report((f"host key of {host}: forgotten",))


def _leave_or_delete(
    address: Address, where: Places, others: list[Address], purge: bool
) -> _Report:
    folder = environment(where, address)
    if not folder.exists():
        return _Report()
    if any(other.kind in SET_UP and environment(where, other) == folder for other in others):
        return _Report(notes=(f"{folder} stays, since another device uses it",))
    if not purge:
        return _Report(notes=(f"{folder} stays; --purge deletes it",))
    shutil.rmtree(folder)
    return _Report((f"{folder}: deleted",))


def _settings(entry: Entry) -> str:
    table: dict[str, Any] = entry.model_dump(exclude={"address"}, exclude_none=True)
    shown = {
        key: shlex.join(value) if isinstance(value, tuple) else value
        for key, value in table.items()
    }
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())
