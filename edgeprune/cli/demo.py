# SPDX-License-Identifier: Apache-2.0
"""``edgeprune demo``: from nothing to two devices, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import asked
from edgeprune.cli import options as opt
from edgeprune.cli.console import page, progress

__all__ = ["add_to"]

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where all of it is written.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(demo)


def demo(
    out: Out = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    threads: opt.ThreadsOption = None,
) -> None:
    """Train a small network on digits, compress it for two devices, print what came of it.

    The devices are a Raspberry Pi 4 and an STM32H7. Ends with 0 if every budget that can be
    measured here is met.
    """
    count = asked.use_threads(threads)
    from edgeprune.demo import run
    from edgeprune.gate import passed
    from edgeprune.report import render_terminal

    good = True
    for report in run(out, count, progress(), seed=seed):
        render_terminal(report, page())
        typer.echo(f"\n{out / report.target}\n")
        good = good and passed(report.verdicts, allow_unmeasured=True)
    raise typer.Exit(0 if good else 1)
