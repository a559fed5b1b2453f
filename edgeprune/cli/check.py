# SPDX-License-Identifier: Apache-2.0
"""``edgeprune check``: whether models still fit their devices, for CI and for people."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import reach
from edgeprune.cli.console import page, progress
from edgeprune.errors import InputError, OutputError
from edgeprune.report.check import Form
from edgeprune.writing import check_place, save

if TYPE_CHECKING:
    from edgeprune.check.measuring import Measuring
    from edgeprune.gate.judged import CheckReport
    from edgeprune.measure.profile import Reached
    from edgeprune.target import Budgets, Target

__all__ = ["add_to", "measuring"]

_MEASURING = "Measuring"

_EXAMPLES = """Examples:

  edgeprune check

  edgeprune check out/rpi4 --format github

  edgeprune check vendor/detector.tflite --target stm32h7 --max-size 200kB

  edgeprune check --measure --device ssh://pi@board -f junit -o report.xml

Exit codes: 0 nothing failed; 1 a limit is broken, a runtime doesn't take a file, a manifest doesn't
fit its files, a baseline is gone, or a budget could not be measured; 2 bad usage, or a file that
can't be read.
"""

Paths = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER|FILE",
        show_default=False,
        help="Results of compress, folders of them, .onnx and .tflite files. None: all that the "
        "project file (edgeprune.toml, or \\[tool.edgeprune]) names.",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        show_default=False,
        help="Judge for this device only: a name (`edgeprune targets list`) or a .toml file; may "
        "be repeated.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="What is inconclusive, or asked for and not judged, fails."),
]
AllowUnmeasured = Annotated[
    bool,
    typer.Option(
        "--allow-unmeasured",
        help="Latency and memory that no device measured are a warning only.",
        rich_help_panel=opt.BUDGETS,
    ),
]
FormOption = Annotated[
    Form,
    typer.Option(
        "--format",
        "-f",
        metavar="FORM",
        help=f"For people or for a service: {', '.join(get_args(Form))}; markdown also goes to "
        "$GITHUB_STEP_SUMMARY.",
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure",
        help="Measure latency and memory anew, here or on --device; what stays open is measured "
        "again, longer each time.",
        rich_help_panel=_MEASURING,
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        min=1,
        max=86_400,
        metavar="SECONDS",
        help="For measuring the files of one target, all repetitions together.",
        show_default="120",
        rich_help_panel=_MEASURING,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(check)


def check(
    paths: Paths = None,
    target: Targets = None,
    max_size: opt.MaxSizeOption = None,
    max_latency: opt.MaxLatencyOption = None,
    max_memory: opt.MaxMemoryOption = None,
    max_drop: opt.MaxDropOption = None,
    size: opt.SizeOption = None,
    allow_unmeasured: AllowUnmeasured = False,
    strict: Strict = False,
    format: FormOption = "terminal",
    output: Annotated[
        Path | None, opt.file_option("Write the report there, and show the table here.")
    ] = None,
    overwrite: opt.OverwriteOption = False,
    measure: Measure = False,
    device: reach.DeviceOption = None,
    time_limit: TimeLimit = None,
) -> None:
    """Judge artifacts by their manifests, their budgets and the committed baseline.

    Without torch and without running anything, unless --measure is given.
    """
    from edgeprune.check import Request, Rules, gather
    from edgeprune.check import check as judge
    from edgeprune.gate.lock import read_lock
    from edgeprune.project import find_project

    if output is not None:
        check_place(output, overwrite=overwrite)
    here = Path.cwd()
    how = measuring(measure, device, time_limit)
    request = Request(
        tuple(paths or ()),
        tuple(dict.fromkeys(target or ())),
        budgets=_budgets(max_size, max_latency, max_memory, max_drop),
        sizes=opt.sizes(size),
    )
    project = find_project(here)
    lock = None if project is None else read_lock(project.lock)
    with _seldom_collecting():
        cases = gather(request, here, project, lock)
        report = judge(cases, here, Rules(strict, allow_unmeasured), how, request.sizes)
    _put_out(report, format, output)
    raise typer.Exit(1 if report.failed else 0)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Look for cycles less often: manifests are many objects, all of them kept, and the looking
    takes a third of the time of a check of 200."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _budgets(
    size: int | None, latency: float | None, memory: int | None, drop: float | None
) -> Budgets:
    from edgeprune.target import Budgets
    from edgeprune.toml import parse

    given = {"size": size, "latency": latency, "memory": memory, "drop": drop}
    limits = {name: value for name, value in given.items() if value is not None}
    return parse(limits, Budgets, "command line")


def measuring(
    measure: bool,
    device: str | None,
    time_limit: float | None,
) -> Measuring | None:
    """How to measure, if that was asked for; naming a device asks for it.

    Raises:
        InputError: A time limit for nothing.
    """
    if not measure and device is None:
        if time_limit is not None:
            raise InputError("--time-limit is about measuring; add --measure")
        return None
    from edgeprune.check.measuring import Measuring
    from edgeprune.recipe import ProfileOptions

    options = ProfileOptions()
    if time_limit is not None:
        options = options.model_copy(update={"time_limit": time_limit})
    return Measuring(lambda target: _at(device, target), progress(), options)


def _at(device: str | None, target: Target | None) -> Reached:
    """The device that the user named, else the target's own if it is at hand, else this machine."""
    from edgeprune.measure.profile import here

    if device is not None:
        return reach.reached(device)
    return (None if target is None else reach.of_target(None, target)) or here()


def _put_out(report: CheckReport, form: Form, output: Path | None) -> None:
    from edgeprune.report.check import print_report, render

    if output is not None:
        save(output, render(report, form))
    if form == "terminal" or output is not None:
        print_report(report, page())
    else:
        typer.echo(render(report, form), nl=False)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if form == "markdown" and summary:
        _append(Path(summary), render(report, form))


def _at_once(path: str, flags: int) -> int:
    """A pipe that nobody reads isn't waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def _append(path: Path, text: str) -> None:
    try:
        with open(path, "a", encoding="utf-8", opener=_at_once) as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path}: the job's summary can't be written: {error.strerror}") from None
