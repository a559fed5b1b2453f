# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket show`` and ``compare``: what is in tickets; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import page
from edgeprune.cli.ticket import options as own
from edgeprune.cli.ticket import shown
from edgeprune.errors import InputError
from edgeprune.report.text import ABSENT, plain

if TYPE_CHECKING:
    from edgeprune.mask import Mask, Ticket
    from edgeprune.model import Model

__all__ = ["add_to"]

_SHOW = """Examples:

  edgeprune ticket show t.safetensors

  edgeprune ticket show t.safetensors --model model.pt2 --json
"""
_COMPARE = """Examples:

  edgeprune ticket compare imp.safetensors snip.safetensors

  edgeprune ticket compare seed0.safetensors seed1.safetensors seed2.safetensors --json
"""

ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model", metavar="MODEL", help="Hold it against this model, and count its MACs."
    ),
]
Tickets = Annotated[
    list[Path],
    typer.Argument(metavar="TICKET", show_default=False, help="Two or more tickets."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("show", epilog=_SHOW)(show_)
    app.command(epilog=_COMPARE)(compare)


def show_(
    ticket: own.TicketArgument,
    model: ModelOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Show where a ticket comes from and what of each layer lives."""
    asked.use_threads(1)
    from edgeprune.mask import read_ticket

    found = read_ticket(ticket)
    held: dict[str, Any] = {}
    if model is not None:
        from edgeprune.inputs import load_model

        source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
        held = _held_against(load_model(source, None).model, found)
    if json:
        show.as_json({**_header(found), "layers": _layers(found.mask), **held})
        return
    for name, value in _lines(found):
        deep, width = " " * 11, page().width
        typer.echo(fill(value, width, initial_indent=f"{name:<10} ", subsequent_indent=deep))
    typer.echo()
    rows = [
        (plain(one["name"]), shown.shape(one["shape"]), shown.percent(one["density"]), _of(one))
        for one in _layers(found.mask)
    ]
    show.table(("layer", "shape", "density", "kept"), rows)
    if held:
        typer.echo()
        show.lines(_about_model(held))


def compare(
    tickets: Tickets,
    json: opt.JsonOption = False,
) -> None:
    """Set masks beside one another: where they differ and what they have in common."""
    if len(tickets) < 2:
        raise InputError("ticket compare takes two tickets or more")
    names = _names(tickets)
    asked.use_threads(1)
    from edgeprune.mask import read_ticket

    found = {name: read_ticket(path) for name, path in zip(names, tickets, strict=True)}
    masks = {name: ticket.mask for name, ticket in found.items()}
    pairs: list[dict[str, Any]] = [
        {
            "tickets": [one, other],
            "hamming": masks[one].hamming(masks[other]),
            "overlap": masks[one].overlap(masks[other]),
            "by_chance": _by_chance(masks[one], masks[other]),
        }
        for one, other in combinations(names, 2)
    ]
    if json:
        headers = {name: _header(ticket) for name, ticket in found.items()}
        layers = {name: mask.densities for name, mask in masks.items()}
        show.as_json({"tickets": headers, "densities": layers, "pairs": pairs})
        return
    _print_densities(masks)
    typer.echo()
    rows = [
        (
            f"{one} / {other}",
            shown.percent(pair["hamming"]),
            shown.percent(pair["overlap"]),
            shown.percent(pair["by_chance"]),
        )
        for pair in pairs
        for one, other in [pair["tickets"]]
    ]
    show.table(("pair", "differ", "overlap", "by chance"), rows)
    show.lines(
        (
            "differ: share of all weights (Hamming)",
            "overlap: of the weights in either, those in both (Jaccard)",
            "by chance: the overlap of independent masks with these densities",
        )
    )


def _names(tickets: Sequence[Path]) -> list[str]:
    """File names where they tell the tickets apart, else the paths."""
    names = [path.stem for path in tickets]
    names = names if len(set(names)) == len(names) else [str(path) for path in tickets]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice}: is named twice")
    return names


def _by_chance(one: Mask, other: Mask) -> float:
    """The expected overlap: weights in both, by those in either."""
    both = sum(
        one.densities[name] * other.densities[name] * kept.numel()
        for name, kept in one.keep.items()
    )
    either = one.kept + other.kept - both
    return both / either if either else 1.0


def _print_densities(masks: Mapping[str, Mask]) -> None:
    layers = next(iter(masks.values())).keep
    rows = [
        (plain(layer), *(shown.percent(mask.densities[layer]) for mask in masks.values()))
        for layer in layers
    ]
    rows.append(("all", *(shown.percent(mask.density) for mask in masks.values())))
    show.table(("density", *masks), rows)


def _header(ticket: Ticket) -> dict[str, Any]:
    about, mask = ticket.mask.about, ticket.mask
    return {
        "method": about.method,
        "structure": about.structure,
        "seed": about.seed,
        "model": about.model,
        "density": mask.density,
        "kept": mask.kept,
        "size": mask.size,
        "start": ticket.start is not None,
        "facts": dict(about.facts),
    }


def _layers(mask: Mask) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": list(kept.shape),
            "size": kept.numel(),
            "kept": int(kept.sum()),
            "density": mask.densities[name],
        }
        for name, kept in mask.keep.items()
    ]


def _of(layer: Mapping[str, Any]) -> str:
    return f"{layer['kept']:,} of {layer['size']:,}"


def _lines(ticket: Ticket) -> list[tuple[str, str]]:
    about, mask = ticket.mask.about, ticket.mask
    options = about.facts.get("options", {})
    asked_for = {name: value for name, value in options.items() if not isinstance(value, dict)}
    told = ", ".join(
        f"{name} {value}"
        for name, value in asked_for.items()
        if value is not None and value is not False and value != []
    )
    return [
        ("method", f"{plain(about.method)}, {about.structure}, seed {about.seed}"),
        ("density", f"{shown.percent(mask.density)}: {mask.kept:,} of {mask.size:,} weights"),
        ("found on", f"the model with fingerprint {about.model[:16] or ABSENT}"),
        ("starts", "from its own weights" if ticket.start else "from the weights of the model"),
        ("options", plain(told) or ABSENT),
    ]


def _held_against(model: Model, ticket: Ticket) -> dict[str, Any]:
    from edgeprune.mask import look
    from edgeprune.tickets.ledger import Ledger

    ticket.mask.check(model)
    ledger = Ledger(look(model))
    fingerprint = model.fingerprint()
    known = (ticket.mask.about.model, ticket.mask.about.facts.get("source"))
    return {
        "same_model": fingerprint in known,
        "macs": ledger.network.macs,
        "kept_macs": ledger.kept_macs(ticket.mask),
    }


def _about_model(held: Mapping[str, Any]) -> list[str]:
    same = "it is the very model that it was found on"
    other = "it fits, but was found on another model (other weights, or another graph)"
    share = held["kept_macs"] / held["macs"]
    return [
        same if held["same_model"] else other,
        f"{shown.percent(share)} of its multiply-accumulates have a weight that lives; few "
        "runtimes are any faster for it",
    ]
