# SPDX-License-Identifier: Apache-2.0
"""``edgeprune profile``: bytes, memory and latency of artifacts on this machine."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import show
from edgeprune.cli.console import progress
from edgeprune.recipe import ProfileOptions
from edgeprune.report import text
from edgeprune.toml import parse

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune profile out/rpi4/model.onnx

  edgeprune profile dense.onnx model.onnx model.tflite --threads 4 --json

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
BlockSeconds = Annotated[
    float | None,
    typer.Option("--block-seconds", help="Seconds of runs in each.", show_default="0.5"),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", help="Seconds after which no more is begun.", show_default="120"),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(profile)


def profile(
    files: Files,
    inputs: Inputs = None,
    blocks: Blocks = None,
    block_seconds: BlockSeconds = None,
    time_limit: TimeLimit = None,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", min=1, max=opt.MOST_THREADS, help="Compute threads of the runtimes."
        ),
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of order and random inputs.")] = 0,
    json: opt.JsonOption = False,
) -> None:
    """Measure artifacts on this machine: bytes, memory, latency with its spread.

    Each block of runs is a fresh process; the files take turns, so that all see the same machine.
    """
    from edgeprune.measure.profile import profile as measure

    changes = {"blocks": blocks, "block_seconds": block_seconds, "time_limit": time_limit}
    given = {name: value for name, value in changes.items() if value is not None}
    found = measure(
        _named(files),
        parse(given, ProfileOptions, "command line"),
        threads=threads,
        seed=seed,
        inputs=None if inputs is None else inputs.absolute(),
        progress=progress(),
    )
    if json:
        data = {
            name: {key: figure.model_dump(mode="json") for key, figure in figures.items()}
            for name, figures in found.figures.items()
        }
        remarks = {"not_measured": list(found.not_measured), "notes": list(found.notes)}
        show.as_json({"machine": found.machine, "files": data, **remarks})
        return
    typer.echo(found.machine)
    keys = ("bytes", "memory_peak", "memory_model", "load")
    latencies = tuple(f"latency_{share}" for share in ("p50", "p90", "p99"))
    rows = [
        (
            name,
            *(text.show(figures.get(key)) for key in keys),
            text.spread(figures.get(latencies[0])),
            *(text.show(figures.get(key)) for key in latencies[1:]),
            text.ratio(figures.get("latency_ratio")),
        )
        for name, figures in found.figures.items()
    ]
    columns = ("bytes", "peak memory", "of the model", "load", "p50", "p90", "p99", "over dense")
    show.table(("file", *columns), rows)
    show.lines((*found.not_measured, *found.notes))


def _named(files: list[Path]) -> dict[str, Path]:
    """Each file by its name, or by its path where two have the same name."""
    names = Counter(path.name for path in files)
    return {path.name if names[path.name] == 1 else str(path): path.absolute() for path in files}
