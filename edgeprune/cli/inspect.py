# SPDX-License-Identifier: Apache-2.0
"""``edgeprune inspect``: what a model is made of, and which channels can go."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import progress
from edgeprune.report.text import count
from edgeprune.units import format_bytes

if TYPE_CHECKING:
    from edgeprune.anatomy import Anatomy
    from edgeprune.model import Model

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune inspect model.pt2

  edgeprune inspect weights.pt --arch mynet.models:resnet20 --input-shape 1x3x32x32 --json
"""


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(inspect)


def inspect(
    model: opt.ModelArgument,
    data: opt.DataOption = None,
    arch: opt.ArchOption = None,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Show what a model is made of, which of its channels can go, and why others can't.

    Layers with shapes, MACs and bytes; channel groups; what is frozen and why. Writes nothing.
    """
    source = asked.source(model, arch, input_shape, trust_pickle)
    asked.use_threads(None)
    from edgeprune.anatomy import dissect
    from edgeprune.inputs import open_inputs

    opened, _ = open_inputs(source, asked.data_source(data, None), 0, progress())
    loaded = opened.model
    if json:
        show.as_json(_as_data(loaded, dissect(loaded)))
    else:
        _print(loaded, dissect(loaded))


def _as_data(model: Model, found: Anatomy) -> dict[str, Any]:
    return {
        "inputs": _inputs(model),
        "numerics": model.numerics,
        "history": [asdict(event) for event in model.history],
        "totals": asdict(found.totals),
        "layers": [asdict(layer) for layer in found.layers],
        "groups": [
            {
                "name": group.name,
                "channels": group.size,
                "members": [list(member) for member in group.members],
                "parameters": group.parameters,
                "macs": group.macs,
                "bytes": group.bytes,
                "renormalises": list(group.renormalises),
            }
            for group in found.groups
        ],
        "frozen": [asdict(frozen) for frozen in found.frozen],
    }


def _print(model: Model, found: Anatomy) -> None:
    typer.echo(f"inputs: {'; '.join(_inputs(model))}")
    typer.echo(f"history: {', '.join(event.stage for event in model.history)}; {model.numerics}\n")
    layers = [
        (
            layer.name,
            layer.op,
            "x".join(layer.shape),
            count(layer.parameters),
            count(layer.macs),
            format_bytes(layer.bytes),
        )
        for layer in found.layers
    ]
    total = found.totals
    layers.append(
        ("all", "", "", count(total.parameters), count(total.macs), format_bytes(total.bytes))
    )
    show.table(("layer", "op", "output", "parameters", "MACs", "bytes"), layers, left=3)
    typer.echo("\nChannel groups: what can be pruned, and what each owns")
    groups = [
        (g.name, str(g.size), str(len(g.members)), count(g.parameters), count(g.macs), _marks(g))
        for g in found.groups
    ]
    show.table(("group", "channels", "slices of", "parameters", "MACs", ""), groups)
    typer.echo("\nFrozen: what can't be pruned, and why")
    frozen = [(f.name, f.cause, f.node, str(f.dim), str(f.size)) for f in found.frozen]
    show.table(("parameter", "cause", "node", "dimension", "channels"), frozen, left=3)


def _marks(group: Any) -> str:
    return "normalised over" if group.renormalises else ""


def _inputs(model: Model) -> list[str]:
    texts = []
    for entry in model.inputs:
        first = "batch" if entry.dynamic_batch else str(entry.shape[0])
        shape = "x".join((first, *map(str, entry.shape[1:])))
        texts.append(f"{entry.name} {shape} {str(entry.dtype).removeprefix('torch.')}")
    return texts
