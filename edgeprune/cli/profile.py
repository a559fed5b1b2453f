# SPDX-License-Identifier: Apache-2.0
"""``edgeprune profile``: bytes, memory and latency of artifacts, here or on a device."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import reach, show
from edgeprune.cli.console import page, progress
from edgeprune.errors import InputError
from edgeprune.gate import Verdict, judge, merge, passed
from edgeprune.measure.result import Profile
from edgeprune.recipe import ProfileOptions
from edgeprune.report import text
from edgeprune.report.measured import memory_table, speed_table
from edgeprune.report.terminal import print_sections
from edgeprune.report.view import verdict_section
from edgeprune.target import Budgets, Target, find_target
from edgeprune.toml import parse

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune profile out/rpi4/model.onnx

  edgeprune profile dense.onnx model.onnx model.tflite --threads 4 --json

  edgeprune profile model.onnx --device ssh://pi@board --target rpi4

A file named dense.* is what the others of its format are compared with.
"""

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE", show_default=False, help=".onnx or .tflite files")
]
Inputs = Annotated[
    Path | None,
    typer.Option("--inputs", metavar="FILE.npz", help="Real inputs.", show_default="random ones"),
]
Blocks = Annotated[
    int | None,
    typer.Option("--blocks", min=2, help="Interleaved processes a file.", show_default="5"),
]
MaxBlocks = Annotated[
    int | None,
    typer.Option(
        "--max-blocks",
        min=2,
        help="With those that make up for disturbed or differing ones.",
        show_default="30",
    ),
]
BlockSeconds = Annotated[
    float | None,
    typer.Option("--block-seconds", help="Seconds of runs in each.", show_default="0.5"),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", help="Seconds after which no more is begun.", show_default="120"),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        metavar="GIB",
        min=0.0625,
        help="GiB that a process that runs a file may take, here or on an ssh device.",
        show_default="8",
    ),
]

TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        help="Judge by this target's latency and memory.",
        show_default="nothing is judged",
    ),
]
MeterFile = Annotated[
    Path | None,
    typer.Option(
        "--meter",
        metavar="FILE.csv",
        help="Time (unix seconds) and watts of a power meter that records meanwhile.",
        show_default="the device's own, if any",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(profile)


def profile(
    files: Files,
    inputs: Inputs = None,
    size: opt.SizeOption = None,
    blocks: Blocks = None,
    max_blocks: MaxBlocks = None,
    block_seconds: BlockSeconds = None,
    time_limit: TimeLimit = None,
    memory_limit: MemoryLimit = None,
    device: reach.DeviceOption = None,
    target: TargetName = None,
    max_latency: opt.MaxLatencyOption = None,
    max_memory: opt.MaxMemoryOption = None,
    meter: MeterFile = None,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", min=1, max=opt.MOST_THREADS, help="Compute threads of the runtimes."
        ),
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of order and random inputs.")] = 0,
    json: opt.JsonOption = False,
) -> None:
    """Measure artifacts, here or on a device: bytes, memory, latency with its spread.

    Each block of runs is a fresh process; the files take turns, so that all see the same machine.
    """
    from edgeprune.measure.profile import here
    from edgeprune.measure.profile import profile as measure
    from edgeprune.measure.result import Conditions

    changes = {
        "blocks": blocks,
        "max_blocks": max_blocks,
        "block_seconds": block_seconds,
        "time_limit": time_limit,
    }
    sizes = opt.sizes(size)
    _fit(files, inputs, sizes)
    given = {name: value for name, value in changes.items() if value is not None}
    limits = Budgets(latency=max_latency, memory=max_memory)
    judged = None if target is None else find_target(target)
    at = reach.reached(device) if device is not None else here()
    real = None if inputs is None else inputs.absolute()
    found = measure(
        _named(files),
        parse(given, ProfileOptions, "command line"),
        Conditions(threads, seed, real, sizes, memory_limit),
        at,
        target=judged,
        meter=meter,
        progress=progress(),
    )
    verdicts = _judge(found, judged, limits)
    if json:
        _as_json(found, verdicts)
    else:
        _show(found, verdicts)
    raise typer.Exit(0 if passed(verdicts) else 1)


def _fit(files: Sequence[Path], inputs: Path | None, sizes: Mapping[str, int]) -> None:
    """Refuse sizes that no file leaves open, before anything is measured."""
    from edgeprune.artifact import read
    from edgeprune.artifact.open_sizes import check_names

    if sizes and inputs is not None:
        raise InputError("--size is about random inputs; those of --inputs have their sizes")
    if sizes:
        check_names([read(file) for file in files], sizes)


def _judge(found: Profile, target: Target | None, limits: Budgets) -> tuple[Verdict, ...]:
    """Latency and memory by the target's limits, and by those that were given over them."""
    own = Budgets() if target is None else target.budgets.model_copy(update=_NOT_HERE)
    device = found.figures if found.refused is None else None
    judged = target or find_target("host")
    return judge(merge(own, limits), found.figures, target=judged, device=device)


_NOT_HERE = {"size": None, "drop": None}
"""Limits that need no measuring."""


def _as_json(found: Profile, verdicts: Sequence[Verdict]) -> None:
    data = {
        name: {key: figure.model_dump(mode="json") for key, figure in figures.items()}
        for name, figures in found.figures.items()
    }
    remarks = {"not_measured": list(found.not_measured), "notes": list(found.notes)}
    answers = [verdict.model_dump(mode="json") for verdict in verdicts]
    show.as_json(
        {
            "machine": found.machine,
            "refused": found.refused,
            "files": data,
            "verdicts": answers,
            **remarks,
        }
    )


def _show(found: Profile, verdicts: Sequence[Verdict]) -> None:
    typer.echo(found.machine)
    sections = [verdict_section(verdicts)] if verdicts else []
    tables = (speed_table(found.figures), memory_table(found.figures))
    sections += [section for section in tables if section is not None]
    print_sections(sections, page())
    if not any(tables):
        sizes = [(name, text.show(figures["bytes"])) for name, figures in found.figures.items()]
        show.table(("file", "size"), sizes)
    refused = () if found.refused is None else (f"no evidence for a target: {found.refused}",)
    typer.echo()
    show.lines((*refused, *found.not_measured, *found.notes))


def _named(files: list[Path]) -> dict[str, Path]:
    """Each file by its name, or by its path where two have the same name."""
    names = Counter(path.name for path in files)
    return {path.name if names[path.name] == 1 else str(path): path.absolute() for path in files}
