# SPDX-License-Identifier: Apache-2.0
"""Measure artifacts where the agent runs: on this machine, or on a board behind ssh."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any, Protocol

from edgeprune.errors import DataError
from edgeprune.figure import Figure
from edgeprune.measure.figures import Origins, Samples, summarize
from edgeprune.measure.meter import read_meter
from edgeprune.measure.result import Conditions, Profile
from edgeprune.measure.sizes import sizes
from edgeprune.profiler.machine import summary
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import ProfileOptions
from edgeprune.target import Target

__all__ = ["Asks", "measure_onboard"]

MEMORY_REPEATS = 3
ENERGY_SECONDS = 5.0
_EMULATED = "latency, memory: this device is emulated ({by}), so neither is evidence of a real one"


class Asks(Protocol):
    """What is needed of ``edgeprune.device.agent.Agent``."""

    def probe(self) -> dict[str, Any]:
        """Facts of the machine that the agent runs on."""
        ...

    def ask(
        self,
        task: str,
        files: Sequence[Path] = ...,
        options: Mapping[str, Any] | None = ...,
        *,
        progress: Progress | None = ...,
        timeout: float | None = ...,
    ) -> dict[str, Any]:
        """The whole answer to one task."""
        ...


def measure_onboard(
    agent: Asks,
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    *,
    target: Target | None = None,
    meter: Path | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure ``files`` (``dense.onnx``, ``model.tflite`` ...; batch 1 where it is dynamic).

    Every round measures each file once, in an order shuffled with the seed, in a process of its
    own, so that all files see the same quiet and busy times of the machine. A file named
    ``dense.*`` is what the others of its format are compared with, round by round.

    Args:
        agent: Where it is done.
        files: Artifacts by the name to report them under.
        options: Rounds, seconds and runs of a block, time limit.
        conditions: Threads, seed and inputs.
        target: What the figures are to be evidence for.
        meter: Readings of a power meter beside the device, a CSV (``read_meter``) that goes on
            being written while this runs; ``None``: the device's own meter, if any.
        progress: Where to show the progress.

    Raises:
        InputError: A file or ``inputs`` can't be used, or a runtime isn't installed there.
        DeviceError: The device can't be reached, or the agent died.
    """
    progress = progress or Silent()
    known = sizes(files)
    if meter is not None:
        read_meter(meter, fewest=0)  # what is wrong with it is told before the measuring
    before = time()
    facts = agent.probe()
    ahead = facts["time"] - (before + time()) / 2
    where = summary(facts)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    if facts["emulated"] is not None:
        return _bytes_alone(known, where, _EMULATED.format(by=facts["emulated"]))
    refused = None if target is None else _another_board(facts, target)
    samples = _ask_all(agent, files, options, conditions, progress)
    missing: list[str] = []
    if meter is not None or facts["energy_meters"]:
        answers = _energy(agent, files, conditions, progress)
        if meter is not None:
            answers = _weighed(answers, meter, ahead)
        samples = {name: replace(samples[name], energy=answers[name]) for name in files}
    else:
        missing.append("energy: this device tells no power, and no meter's readings were given")
    origins = Origins(where, when, conditions.threads, conditions.kind)
    figures, lacking, notes = summarize(known, samples, origins)
    return Profile(figures, (*missing, *lacking), notes, where, refused)


def _another_board(facts: Mapping[str, Any], target: Target) -> str | None:
    """Why the machine that ``facts`` tell of isn't ``target``; ``None`` where it may be."""
    board = facts["board"]
    if not target.device.may_be(board):
        return f"it is {board or facts['machine']}, and {target.name} is a {target.device.model}"
    lacks = [each for each in target.device.isa if each not in facts["isa"]]
    if target.reach.how == "ssh" and facts["isa"] and lacks:
        return f"its processor lacks {', '.join(lacks)}, which {target.name} has"
    return None


def _bytes_alone(known: Mapping[str, Figure], where: str, reason: str) -> Profile:
    figures = {name: {"bytes": figure} for name, figure in known.items()}
    return Profile(figures, (reason,), (), where, refused="it is emulated")


def _ask_all(
    agent: Asks,
    files: Mapping[str, Path],
    options: ProfileOptions,
    conditions: Conditions,
    progress: Progress,
) -> dict[str, Samples]:
    """Memory and latency of all files."""
    paths = list(files.values())
    limit = options.time_limit
    memory = agent.ask(
        "memory",
        paths,
        conditions.options(repeats=MEMORY_REPEATS, time_limit=limit / 2),
        progress=progress,
        timeout=limit + 60,
    )["result"]["files"]
    latency = agent.ask(
        "latency",
        paths,
        conditions.options(
            blocks=options.blocks,
            block_seconds=options.block_seconds,
            min_runs=options.min_runs,
            max_blocks=max(options.blocks, options.max_blocks),
            time_limit=limit,
        ),
        progress=progress,
        timeout=2 * limit + 60,
    )["result"]["files"]
    return {
        name: Samples(memory[k], latency[k]["blocks"], latency[k]["killed"], latency[k]["cut"])
        for k, name in enumerate(files)
    }


def _weighed(
    answers: Mapping[str, dict[str, Any]], meter: Path, ahead: float
) -> dict[str, dict[str, Any]]:
    """What the meter's readings say of the runs; they cost no more than the joules if they fail."""
    try:
        readings = replace(read_meter(meter), shift=ahead)
    except DataError as error:
        own = {"meter": meter.name, "joules_per_inference": None, "reason": str(error)}
        return {name: {**answer, **own} for name, answer in answers.items()}
    return {name: readings.weigh(answer) for name, answer in answers.items()}


def _energy(
    agent: Asks, files: Mapping[str, Path], conditions: Conditions, progress: Progress
) -> dict[str, dict[str, Any]]:
    """What runs of each file cost, one file after the other."""
    return {
        name: agent.ask(
            "energy",
            [path],
            conditions.options(seconds=ENERGY_SECONDS),
            progress=progress,
            timeout=ENERGY_SECONDS * 4 + 60,
        )["result"]
        for name, path in files.items()
    }
