# SPDX-License-Identifier: Apache-2.0
"""The devices that are set up on this machine, or have no agent: what is there of each."""

from edgeprune.device.address import Address
from edgeprune.device.settings import Named, Places, environment
from edgeprune.errors import InputError
from edgeprune.progress import Progress
from edgeprune.target import find_target

__all__ = ["SET_UP", "describe", "set_up"]

SET_UP = ("emulated", "tflm", "web")
"""Kinds that edgeprune itself sets up, in a folder of its cache."""


def set_up(address: Address, places: Places, progress: Progress) -> str:
    """Make the environment of a device of a kind in ``SET_UP``; one sentence on what is there.

    What stands there already is taken as it is.

    Raises:
        InputError: Something is missing on this machine, with the command that installs it.
        ConfigError: ``emulated:TARGET`` names no target.
        DeviceError: A package can't be had.
        OutputError: The cache can't be written.
    """
    folder = environment(places, address)
    if address.kind == "emulated":
        from edgeprune.device import emulated

        return emulated.set_up(folder, find_target(address.name), progress)
    if address.kind == "tflm":
        from edgeprune.device import tflm

        return tflm.set_up(folder, progress)
    from edgeprune.device import web

    return web.set_up(folder, progress)


def describe(named: Named, places: Places) -> str:
    """What a device without an agent is, in one sentence: ``tflm``, ``web``, ``adb``.

    Raises:
        InputError: It isn't set up.
        DeviceError: The phone can't be reached.
    """
    address = named.address
    if address.kind == "adb":
        from edgeprune.device.adb import Phone

        phone = Phone(address.name)
        phone.check()
        return phone.facts().title
    folder = environment(places, address)
    ready: str | None
    if address.kind == "tflm":
        from edgeprune.device import tflm

        there = tflm.find(folder)
        ready = None if there is None else there.name
    else:
        from edgeprune.device import web

        runtimes = " and ".join(web.runtime_name(form) for form in ("onnx", "tflite"))
        ready = f"{runtimes} in {_engine(address)}" if web.installed(folder) else None
    if ready is None:
        raise InputError(f"{address} isn't set up: edgeprune device add {address}")
    return ready


def _engine(address: Address) -> str:
    return "Chromium" if address.name == "chromium" else "Node"
