# SPDX-License-Identifier: Apache-2.0
"""From ``--device`` and a target to what is measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeprune.measure.profile import Reached
    from edgeprune.target import Target

__all__ = ["DeviceOption", "check", "of_target", "reached"]

DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Measure there: a name (`edgeprune device list`), ssh://USER@HOST, adb:SERIAL, "
        "emulated:TARGET, tflm, web.",
        show_default="this machine",
    ),
]


def reached(text: str) -> Reached:
    """The device that the user named.

    Raises:
        InputError: There is none.
    """
    from edgeprune.cli.places import places
    from edgeprune.device.settings import find_device
    from edgeprune.measure.profile import Reached

    where = places()
    return Reached(find_device(text, where), where)


def of_target(text: str | None, target: Target) -> Reached | None:
    """The device to measure a target's artifacts on, besides this machine; ``None``: there is none.

    That is the one the user named, else the one the target's file names, else the simulator or the
    browser of a target that is reached that way, where it was set up.

    Raises:
        InputError: There is no such device.
    """
    named = text or target.reach.device
    if named is not None:
        found = reached(named)
        return None if found.named.address.kind == "local" else found
    usual = {"simulator": "tflm", "browser": "web"}.get(target.reach.how)
    if usual is None:
        return None
    from edgeprune.device.settings import environment

    found = reached(usual)
    there = environment(found.places, found.named.address).exists()
    return found if there else None


def check(devices: Iterable[Reached | None]) -> None:
    """See that each device can be measured on, so that it isn't found out after a training.

    Raises:
        InputError: Something is missing there, or it isn't set up.
        DeviceError: It can't be reached.
    """
    there = {each.named.address: each for each in devices if each is not None}
    for at in there.values():
        kind = at.named.address.kind
        if kind == "ssh":
            _check_agent(at)
        elif kind == "emulated":
            from edgeprune.device.open import open_agent

            open_agent(at.named, at.places).close()
        elif kind != "local":
            from edgeprune.device.setups import describe

            describe(at.named, at.places)


def _check_agent(at: Reached) -> None:
    from edgeprune.cli.probed import lacking
    from edgeprune.device.open import open_agent
    from edgeprune.errors import InputError

    with open_agent(at.named, at.places) as agent:
        missing = lacking(agent.probe(), at.named)
    if missing:
        raise InputError(f"{at.named.name}: {'; '.join(missing)}")
