# SPDX-License-Identifier: Apache-2.0
"""Latency as a ratio to a small fixed model measured in the same processes: what a baseline keeps.

A time depends on what else the machine does, its clock and its temperature; the ratio hardly does,
because the reference model sees the same. It can be compared with one of another day.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.device.open import open_agent
from edgeprune.errors import InputError
from edgeprune.figure import Figure, measured
from edgeprune.measure.onboard import Asks
from edgeprune.measure.profile import Reached
from edgeprune.measure.result import Conditions
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.machine import summary
from edgeprune.profiler.spawn import reason
from edgeprune.progress import Progress

__all__ = ["PRECISION", "TIME_LIMIT", "Referenced", "measure_reference", "reference_model"]

PRECISION = 0.015
"""Share of a ratio by which it may be off either way. Two such ratios are told apart from a growth
of 5 % where there is none, and from one of 15 % where there is one, with room to spare."""
TIME_LIMIT = 60.0
_FOLDER = Path(__file__).with_name("references")
_MIN_BLOCKS = 6
_MAX_BLOCKS = 30
_KINDS = ("local", "ssh")
_OF_A_MACHINE = ("board", "cpu", "cores", "isa", "kernel", "machine", "governor")


@dataclass(frozen=True)
class Referenced:
    """Ratios to the reference model, and on what they were measured."""

    figures: dict[str, Figure]
    """``latency_reference`` (x) by file; a file that couldn't be measured isn't there."""
    machine: str
    """One line about the machine; never a host name."""
    fingerprints: dict[str, str]
    """By file: a hash of processor, instruction set, cores, kernel, governor, threads and runtime.
    Where two differ, the ratios may differ for a reason other than the model."""
    not_measured: tuple[str, ...] = ()


def reference_model(form: str) -> Path:
    """The reference model of a format (``onnx`` or ``tflite``); ``bench/reference_models.py``
    made it.
    """
    return _FOLDER / f"reference.{form}"


def measure_reference(
    files: Mapping[str, Path],
    conditions: Conditions,
    at: Reached,
    *,
    precision: float = PRECISION,
    time_limit: float = TIME_LIMIT,
    progress: Progress | None = None,
) -> Referenced:
    """Measure the latency of each of ``files`` over that of the reference model of its format.

    Both take turns in each of six to thirty processes, until the interval of the ratio is as narrow
    as ``precision`` or the file's part of the time is over; what the ratio is never matters for
    that. With one thread it is a ratio of CPU times, which other processes hardly change; with more
    it has to be one of wall times, and a loaded machine gives wide intervals.

    Args:
        files: Artifacts by the name to report them under.
        conditions: Threads, seed and inputs; the reference model runs on random inputs.
        at: The device, this machine or one behind ssh.
        precision: Share of the ratio by which it may be off either way, above 0.
        time_limit: Seconds for all files together.
        progress: Where to show the progress.

    Raises:
        InputError: A file or the inputs can't be used, a runtime isn't installed there, or devices
            of this kind have no agent.
        DeviceError: The device can't be reached, or what measures there died.
    """
    address = at.named.address
    if address.kind not in _KINDS:
        raise InputError(
            f"device '{at.named.name}': latency over that of the reference model is measured on "
            f"local and ssh devices, not on {address}"
        )
    references = {name: reference_model(detect_format(path)) for name, path in files.items()}
    with closing(open_agent(at.named, at.places)) as agent:
        facts = agent.probe()
        where = summary(facts)
        if facts["emulated"] is not None:
            reason = f"it is emulated by {facts['emulated']}, so its times are no evidence"
            missing = tuple(f"{name}: latency_reference: {reason}" for name in files)
            return Referenced({}, where, {}, missing)
        end = time.monotonic() + time_limit
        answers = {}
        for number, (name, path) in enumerate(files.items()):
            share = max(1.0, (end - time.monotonic()) / (len(files) - number))
            asked = {
                "precision": precision,
                "blocks": _MIN_BLOCKS,
                "max_blocks": _MAX_BLOCKS,
                "time_limit": share,
            }
            answers[name] = _ask(agent, (path, references[name]), conditions, asked, progress)
    return _referenced(answers, facts, conditions)


def _ask(
    agent: Asks,
    pair: tuple[Path, Path],
    conditions: Conditions,
    asked: Mapping[str, Any],
    progress: Progress | None,
) -> dict[str, Any]:
    answer = agent.ask(
        "compare",
        pair,
        conditions.options(**asked),
        progress=progress,
        timeout=2 * asked["time_limit"] + 60,
    )
    result: dict[str, Any] = answer["result"]
    return result


def _referenced(
    answers: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], conditions: Conditions
) -> Referenced:
    """Make figures of the agent's answers."""
    where = summary(facts)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    figures, prints, missing = {}, {}, []
    for name, answer in answers.items():
        ratio, blocks, runtime = answer["ratio"], answer["blocks"], answer["files"][0]["runtime"]
        if len(blocks) < _MIN_BLOCKS:
            missing.append(f"{name}: latency_reference: {_few(answer)}")
            continue
        kind = "CPU" if blocks[0]["clock"] == "cpu" else "wall"
        threads = conditions.threads
        how = (
            f"latency over that of the reference model ({kind} time), {runtime}; "
            f"Hodges-Lehmann estimate of {len(blocks)} processes with its "
            f"{100 * ratio['coverage']:.0f} % signed-rank interval; "
            f"{threads} thread{'s' if threads > 1 else ''}, {conditions.kind} inputs"
        )
        figures[name] = measured(
            ratio["value"],
            "x",
            how,
            where=where,
            when=when,
            runs=sum(block["runs"][0] for block in blocks),
            low=ratio["low"],
            high=ratio["high"],
        )
        prints[name] = _fingerprint(facts, runtime, threads)
    return Referenced(figures, where, prints, tuple(missing))


def _few(answer: Mapping[str, Any]) -> str:
    done = len(answer["blocks"])
    if answer["killed"] is not None:
        return reason(answer["killed"])
    return f"{done} processes were done, an interval takes {_MIN_BLOCKS}: {answer['cut']}"


def _fingerprint(facts: Mapping[str, Any], runtime: str, threads: int) -> str:
    told = {key: facts[key] for key in _OF_A_MACHINE} | {"runtime": runtime, "threads": threads}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
