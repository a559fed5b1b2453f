# SPDX-License-Identifier: Apache-2.0
"""Measure artifacts on a device, whatever its kind."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.device.address import Address
from edgeprune.device.open import open_agent
from edgeprune.device.settings import Entry, Named, Places, environment
from edgeprune.errors import InputError
from edgeprune.measure.onboard import measure_onboard
from edgeprune.measure.result import Conditions, Profile
from edgeprune.progress import Progress
from edgeprune.reading import regular
from edgeprune.recipe import ProfileOptions
from edgeprune.target import Target, find_target

__all__ = ["Reached", "here", "profile"]


@dataclass(frozen=True)
class Reached:
    """A device, and where the user keeps what reaching it takes."""

    named: Named
    places: Places


def here() -> Reached:
    """Name this machine, which needs no settings."""
    local = Named("local", Address("local"), Entry(address="local"))
    return Reached(local, Places(Path(), Path()))


def profile(
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    at: Reached,
    *,
    target: Target | None = None,
    meter: Path | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure ``files`` on the device ``at``.

    A file named ``dense.*`` is what the others of its format are compared with. What a kind of
    device can't tell is named in ``not_measured``: an emulator gives instructions but no time, a
    microcontroller's simulator the tensor arena.

    Args:
        files: Artifacts by the name to report them under.
        options: Rounds, seconds and runs of a block, time limit.
        conditions: Threads, seed and inputs.
        at: The device.
        target: What the figures are to be evidence for: ``refused`` says why they can't be.
        meter: Readings of a power meter beside the device, a CSV (``meter.read_meter``).
        progress: Where to show the progress.

    Raises:
        InputError: A file, the inputs or the readings can't be used, or something that the device
            needs isn't there.
        DeviceError: The device can't be reached, or what measures there died.
    """
    for path in files.values():
        regular(path)
    address = at.named.address
    if meter is not None and address.kind not in ("local", "ssh"):
        raise InputError(f"{meter}: readings of a meter fit local and ssh devices, not {address}")
    if address.kind in ("local", "ssh"):
        with closing(open_agent(at.named, at.places)) as agent:
            return measure_onboard(
                agent, files, options, conditions, target=target, meter=meter, progress=progress
            )
    return _elsewhere(files, options, conditions, at, progress)


def _elsewhere(
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    at: Reached,
    progress: Progress | None,
) -> Profile:
    """Where no agent runs; each kind brings its own program."""
    from edgeprune.measure.android import measure_adb
    from edgeprune.measure.browser import measure_web
    from edgeprune.measure.emulator import measure_emulated
    from edgeprune.measure.simulator import measure_tflm

    address, entry = at.named.address, at.named.entry
    if address.kind == "adb":
        if entry.benchmark_model is None:
            raise InputError(
                f"device '{at.named.name}': needs LiteRT's benchmark_model for the phone: "
                f"edgeprune device add {address} --benchmark-model FILE"
            )
        return measure_adb(
            files,
            options,
            conditions,
            serial=address.name,
            benchmark_model=Path(entry.benchmark_model),
            progress=progress,
        )
    folder = environment(at.places, address)
    if address.kind == "tflm":
        return measure_tflm(files, conditions, folder=folder, progress=progress)
    if address.kind == "web":
        return measure_web(
            files, options, conditions, folder=folder, engine=address.name, progress=progress
        )
    found = measure_emulated(
        files,
        options,
        conditions,
        folder=folder,
        target=find_target(address.name),
        progress=progress,
    )
    return replace(found, refused="an emulator's figures are no evidence of a real board")
