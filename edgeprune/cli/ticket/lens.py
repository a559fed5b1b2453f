# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket ntk``: the tangent kernel of a network and of its tickets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import progress
from edgeprune.cli.ticket import shown
from edgeprune.errors import DataError, InputError, naming
from edgeprune.report.text import ABSENT, plain
from edgeprune.writing import check_place, save

if TYPE_CHECKING:
    from edgeprune.mask import Ticket
    from edgeprune.model import Model
    from edgeprune.tickets.lens.ntk import Row

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune ticket ntk model.pt2 imp.safetensors random.safetensors --data photos/

  edgeprune ticket ntk model.pt2 imp.safetensors --data photos/ --start --svg spectra.svg

  edgeprune ticket ntk model.pt2 imp.safetensors --data photos/ --probes 64 --samples 256
"""

Tickets = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="TICKET", show_default=False, help="Tickets to set beside the dense network."
    ),
]
Samples = Annotated[int, typer.Option("--samples", min=2, help="Training samples to look at.")]
Outputs = Annotated[
    Literal["sum", "all"],
    typer.Option("--outputs", help="A row a sample, its outputs summed; or a row an output."),
]
Probes = Annotated[
    int | None,
    typer.Option(
        "--probes",
        min=1,
        metavar="N",
        help="Estimate it with so many random directions, in little memory.",
        show_default="exact",
    ),
]
Start = Annotated[
    bool,
    typer.Option("--start", help="At the weights that the tickets start from, not at MODEL's."),
]
Svg = Annotated[
    Path | None,
    typer.Option("--svg", metavar="FILE", help="Draw the spectra into an SVG file."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(ntk)


def ntk(
    model: opt.ModelArgument,
    tickets: Tickets = None,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    samples: Samples = 64,
    outputs: Outputs = "sum",
    probes: Probes = None,
    start: Start = False,
    svg: Svg = None,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Look at the tangent kernel: how fast and how evenly a network, or a part of it, can learn.

    Spectrum, condition number, trace, alignment with the labels, and how far each mask's kernel is
    from the dense one.
    """
    if svg is not None:
        check_place(svg, (".svg",), overwrite=overwrite, rule="the drawing is an SVG file")
    found_data = asked.data_source(data, limit)
    if found_data is None:
        raise DataError("ticket ntk looks at samples: name them with --data")
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    asked.use_threads(threads)
    from edgeprune.inputs import open_inputs
    from edgeprune.mask import read_ticket
    from edgeprune.tickets.lens.ntk import Sampling, compare

    paths = list(tickets or ())
    given = {path.stem if _once(path, paths) else str(path): read_ticket(path) for path in paths}
    shows = progress()
    shows.say("> load")
    opened, opened_data = open_inputs(source, found_data, seed or 0, shows)
    assert opened_data is not None
    rows = compare(
        _at_start(opened.model, given) if start else opened.model,
        {name: ticket.mask for name, ticket in given.items()},
        opened_data,
        Sampling(samples, seed or 0, outputs, probes),
        shows,
    )
    if svg is not None:
        from edgeprune.tickets.lens.spectra import spectra_svg

        save(svg, spectra_svg(rows, plain(model.name)))
    if json:
        show.as_json([asdict(row) for row in rows])
        return
    _print(rows)
    if svg is not None:
        typer.echo(f"{svg}")


def _once(path: Path, paths: Sequence[Path]) -> bool:
    return [other.stem for other in paths].count(path.stem) == 1


def _at_start(model: Model, tickets: Mapping[str, Ticket]) -> Model:
    """The model with the weights that all tickets start from.

    Raises:
        InputError: There are none, or several.
    """
    import torch

    from edgeprune.tickets.start import check_start, started

    if not tickets:
        raise InputError("--start: no ticket is named whose weights could be taken")
    first, *rest = tickets
    own = tickets[first].start
    for name, ticket in tickets.items():
        if ticket.start is None:
            raise InputError(f"--start: {name} has no weights of its own; leave --start out")
    for name in rest:
        other = tickets[name].start
        if own is None or other is None or own.keys() != other.keys():
            raise InputError(f"--start: {first} and {name} start from different networks")
        if not all(torch.equal(value, other[key]) for key, value in own.items()):
            raise InputError(f"--start: {first} and {name} start from different weights")
    with naming(first):
        check_start(tickets[first], model)
    return started(model, tickets[first])


def _print(rows: Sequence[Row]) -> None:
    table = [
        (
            plain(row.name),
            shown.percent(row.density),
            shown.number(row.lens.trace),
            shown.number(row.lens.spectrum[0]),
            shown.number(row.lens.condition),
            shown.number(row.lens.effective_rank),
            shown.number(row.lens.alignment),
            shown.number(row.lens.distance),
        )
        for row in rows
    ]
    show.table(
        ("network", "density", "trace", "largest", "cond.", "rank", "labels", "off dense"),
        table,
    )
    lens = rows[0].lens
    show.lines(
        (
            f"{lens.samples} training samples, {lens.parameters:,} parameters; {lens.how}",
            f"outputs: {'a row an output' if lens.outputs == 'all' else 'summed, a row a sample'}",
            "largest: eigenvalue; cond.: it by the smallest; rank: effective, of the spectrum",
            "labels: alignment with them, 1 at best",
            "off dense: distance from the dense kernel, relative to it",
        )
    )
    if any(row.lens.condition is None for row in rows):
        show.lines((f"{ABSENT} in cond.: the smallest eigenvalue is zero, or not in an estimate",))
