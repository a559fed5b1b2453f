# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket apply`` and ``stretch``: a ticket for another network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import progress
from edgeprune.cli.ticket import options as own
from edgeprune.cli.ticket import shown
from edgeprune.errors import OutputError
from edgeprune.report.text import plain
from edgeprune.writing import check_place

if TYPE_CHECKING:
    from edgeprune.mask import Mask, Ticket
    from edgeprune.model import Model

__all__ = ["add_to"]

_APPLY = """Examples:

  edgeprune ticket apply other.pt2 t.safetensors -o for-other.safetensors

  edgeprune ticket apply model.pt2 t.safetensors --masked sparse.pt2

  edgeprune ticket apply other.pt2 t.safetensors --by order
"""

_STRETCH = """Examples:

  edgeprune ticket stretch resnet32.pt2 t.safetensors --from resnet20.pt2 -o t32.safetensors

  edgeprune ticket stretch resnet20.pt2 t32.safetensors --order interpolate
"""

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the ticket for MODEL."),
]
Masked = Annotated[
    Path | None,
    typer.Option(
        "--masked", metavar="FILE.pt2", help="Write MODEL with zeros where no weight lives."
    ),
]
By = Annotated[
    Literal["auto", "name", "order"],
    typer.Option(
        "--by",
        help="What pairs the weights: names, or their order in the graph; auto: names where all "
        "are known.",
    ),
]
Head = Annotated[
    Literal["auto", "exclude", "include"],
    typer.Option(
        "--head",
        help="Whether the last layer before the outputs stays dense; auto: it does, but not in the "
        "very model that the ticket was found on.",
    ),
]
Weights = Annotated[
    bool,
    typer.Option("--weights", help="Carry over the weights that the ticket starts from, too."),
]


From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="The network that the ticket was found on.",
        show_default="told by the ticket's own names and shapes",
    ),
]
Order = Annotated[
    Literal["append", "interpolate"],
    typer.Option(
        "--order",
        help="Blocks 1 2 become 1 2 1 2 by append, 1 1 2 2 by interpolate.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=_APPLY)(apply)
    app.command(epilog=_STRETCH)(stretch)


def apply(
    model: opt.ModelArgument,
    ticket: own.TicketArgument,
    output: Output = None,
    masked: Masked = None,
    by: By = "auto",
    head: Head = "auto",
    weights: Weights = False,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Fit a ticket to another model of the same architecture; say what of it is covered.

    Other data and another number of classes are fine: the head is left out. Without -o and
    --masked nothing is written.
    """
    _check(model, output, masked, overwrite)
    asked.use_threads(None)
    from edgeprune.inputs import load_model
    from edgeprune.mask import read_ticket
    from edgeprune.tickets.carry.transfer import transfer

    given = read_ticket(ticket)
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    progress().say("> load")
    loaded = load_model(source, None).model
    found = transfer(given, loaded, by=by, head=_head(head, given, loaded), weights=weights)
    _write(loaded, found.ticket, output, masked)
    if json:
        show.as_json(
            {
                "coverage": found.coverage,
                "density": found.ticket.mask.density,
                "pairs": [list(pair) for pair in found.pairs],
                "left": [list(entry) for entry in found.left],
                "notes": list(found.notes),
            }
        )
        return
    _print_pairs(found.pairs, found.ticket.mask, found.left)
    typer.echo(
        f"\nthe mask covers {shown.percent(found.coverage)} of the weights; of those "
        f"{shown.percent(found.ticket.mask.density)} live"
    )
    show.lines(map(plain, found.notes))
    _print_written(output, masked)


def stretch(
    model: opt.ModelArgument,
    ticket: own.TicketArgument,
    source: From = None,
    output: Output = None,
    masked: Masked = None,
    order: Order = "append",
    head: Head = "auto",
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Fit a ticket to a deeper or shallower MODEL: later blocks of each stage are repeated or go.

    Weights to start from are carried along where the ticket has some. Without -o and --masked
    nothing is written.
    """
    _check(model, output, masked, overwrite)
    asked.use_threads(None)
    from edgeprune.inputs import load_model
    from edgeprune.mask import read_ticket
    from edgeprune.tickets.carry.elastic import stretch as fit

    given = read_ticket(ticket)
    progress().say("> load")
    loaded = load_model(
        asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle), None
    ).model
    before = None
    if source is not None:
        before = load_model(
            asked.source(source, arch, state_key, allow_surplus, input_shape, trust_pickle), None
        ).model
    found = fit(given, before, loaded, order=order, head=_head(head, given, loaded))
    _write(loaded, found.ticket, output, masked)
    if json:
        show.as_json(
            {
                "density": found.ticket.mask.density,
                "depths": [list(depth) for depth in found.depths],
                "blocks": [asdict(origin) for origin in found.origins],
                "left": [list(entry) for entry in found.left],
                "notes": list(found.notes),
            }
        )
        return
    rows = [
        (plain(one.block), plain(one.source), str(len(one.layers)))
        for one in found.origins
        if one.layers
    ]
    show.table(("block", "from", "weights"), rows, left=2)
    typer.echo()
    show.lines(f"stage: {old} blocks, now {new}" for old, new in found.depths)
    show.lines(plain(f"{name}: dense, {why}") for name, why in found.left)
    show.lines((f"density {shown.percent(found.ticket.mask.density)}",))
    if found.ticket.start is not None:
        show.lines(("the weights that the ticket starts from are carried along",))
    show.lines(map(plain, found.notes))
    _print_written(output, masked)


def _head(
    asked_for: Literal["auto", "exclude", "include"], ticket: Ticket, model: Model
) -> Literal["exclude", "include"]:
    if asked_for != "auto":
        return asked_for
    about = ticket.mask.about
    same = model.fingerprint() in (about.model, about.facts.get("source"))
    return "include" if same else "exclude"


def _check(model: Path, output: Path | None, masked: Path | None, overwrite: bool) -> None:
    if output is not None:
        check_place(output, (".safetensors",), overwrite=overwrite)
    if masked is not None:
        check_place(masked, (".pt2",), overwrite=overwrite)
        if masked.exists() and model.exists() and masked.samefile(model):
            raise OutputError(f"{masked}: is the model itself; choose another --masked")


def _write(model: Model, ticket: Ticket, output: Path | None, masked: Path | None) -> None:
    from edgeprune.finetune import read_state, with_state
    from edgeprune.mask import write_ticket
    from edgeprune.model import Event, save

    if output is not None:
        write_ticket(output, ticket)
    if masked is not None:
        about = ticket.mask.about
        facts: dict[str, Any] = {"method": about.method, "density": ticket.mask.density}
        state = dict(ticket.start) if ticket.start else read_state(model.module())
        save(with_state(model, ticket.mask.masked(state), Event("ticket", {}, facts)), masked)


def _print_pairs(
    pairs: Sequence[tuple[str, str]], mask: Mask, left: Sequence[tuple[str, str]]
) -> None:
    rows = [
        (plain(mine), "" if theirs == mine else plain(theirs), shown.percent(mask.densities[mine]))
        for theirs, mine in pairs
    ]
    rows += [(plain(name), why, shown.percent(1.0)) for name, why in left]
    show.table(("weight", "from", "density"), rows, left=2)


def _print_written(*paths: Path | None) -> None:
    written = [path for path in paths if path is not None]
    if written:
        typer.echo()
    for path in written:
        typer.echo(f"{path}")
