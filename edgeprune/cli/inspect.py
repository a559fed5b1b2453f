# SPDX-License-Identifier: Apache-2.0
"""``edgeprune inspect``: what a model is made of, and which channels can go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import page, progress
from edgeprune.report.drawing import svg as draw
from edgeprune.report.text import count, plain
from edgeprune.units import format_bytes
from edgeprune.writing import check_place, save

if TYPE_CHECKING:
    from edgeprune.anatomy import Anatomy
    from edgeprune.channels import Frozen, Group
    from edgeprune.model import Model

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune inspect model.pt2

  edgeprune inspect model.pt2 --groups

  edgeprune inspect model.pt2 --svg model.svg

  edgeprune inspect weights.pt --arch mynet.models:resnet20 --input-shape 1x3x32x32 --json
"""

_SHORT = 16
"""Groups that the short table lists; of more, those with the most MACs."""
_NARROWEST = 60

GroupsOption = Annotated[
    bool,
    typer.Option(
        "--groups",
        help="Print every channel group with the slices that it owns, such as conv1.weight[0], and "
        "every frozen one with its cause. --json has all of this without being asked, a slice as "
        "a pair of name and dimension.",
    ),
]
SvgOption = Annotated[
    Path | None,
    typer.Option(
        "--svg",
        metavar="FILE",
        help="Draw the network into an SVG file, coloured by channel group, in place of the "
        "tables.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(inspect)


def inspect(
    model: opt.ModelArgument,
    groups: GroupsOption = False,
    svg: SvgOption = None,
    overwrite: opt.OverwriteOption = False,
    data: opt.DataOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    json: opt.JsonOption = False,
) -> None:
    """Show what a model is made of, which of its channels can go, and why others can't.

    Layers with shapes, MACs and bytes; channel groups; what is frozen and why. Only --svg writes.
    """
    if svg is not None:
        check_place(svg, (".svg",), overwrite=overwrite, rule="the drawing is an SVG file")
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    asked.use_threads(None)
    from edgeprune.anatomy import dissect
    from edgeprune.inputs import open_inputs

    opened, _ = open_inputs(source, asked.data_source(data, None), 0, progress())
    for note in opened.notes:
        typer.echo(f"note: {note}", err=True)
    loaded = opened.model
    found = dissect(loaded)
    if svg is not None:
        _draw(loaded, found, model.name, svg, quiet=json)
    if json:
        show.as_json(_as_data(loaded, found))
    elif groups:
        _print_groups(found)
    elif svg is None:
        _print(loaded, found)


def _draw(model: Model, found: Anatomy, name: str, path: Path, *, quiet: bool) -> None:
    from edgeprune.sketch import sketch

    total = found.totals
    title = (
        f"{name}: {count(total.parameters)} parameters, {count(total.macs)} MACs, "
        f"channel groups: {len(found.groups)}"
    )
    drawn = sketch(model, found.analysis, title)
    save(path, draw(drawn))
    if not quiet:
        typer.echo(f"{path}: boxes: {len(drawn.boxes)}, channel groups: {len(found.groups)}")


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
        "frozen": [{**asdict(frozen), "of": found.length(frozen)} for frozen in found.frozen],
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
    _table(("layer", "op", "output", "parameters", "MACs", "bytes"), layers, left=3)
    _print_short_groups(found)
    _print_causes(found)


def _print_short_groups(found: Anatomy) -> None:
    if not found.groups:
        typer.echo("\nNo channel can be pruned")
        return
    typer.echo("\nChannel groups: what can be pruned, and what each owns")
    numbers = _largest(found.groups)
    rows = [
        (
            str(i + 1),
            group.name,
            str(group.size),
            str(len(group.members)),
            count(group.parameters),
            count(group.macs),
            "normalised over" if group.renormalises else "",
        )
        for i, group in enumerate(found.groups)
        if i in numbers
    ]
    _table(("", "group", "channels", "slices of", "parameters", "MACs", ""), rows, left=2)
    if len(rows) < len(found.groups):
        rest = len(found.groups) - len(rows)
        typer.echo(f"and {rest} more with fewer MACs; --groups lists all, with their slices")


def _largest(groups: Sequence[Group]) -> set[int]:
    """The places of those that a short table lists."""
    order = sorted(range(len(groups)), key=lambda i: (-groups[i].macs, i))
    return set(order[:_SHORT])


def _print_causes(found: Anatomy) -> None:
    if not found.frozen:
        return
    typer.echo("\nFrozen: what can't be pruned, and why; --groups lists each")
    by_cause: dict[str, list[Frozen]] = {}
    for frozen in found.frozen:
        by_cause.setdefault(frozen.cause, []).append(frozen)
    rows = [
        (cause, _slice(those[0].name, those[0].dim), str(len(those)))
        for cause, those in sorted(by_cause.items(), key=lambda entry: -len(entry[1]))
    ]
    _table(("cause", "such as", "parameter dimensions"), rows, left=2)


def _print_groups(found: Anatomy) -> None:
    """Every group, its slices below it, then every frozen dimension; no name is ever cut."""
    typer.echo("Channel groups: what can be pruned, and what each owns")
    head = ("", "group", "channels", "parameters", "MACs", "bytes")
    rows = [
        (
            str(i),
            group.name,
            str(group.size),
            count(group.parameters),
            count(group.macs),
            format_bytes(group.bytes),
        )
        for i, group in enumerate(found.groups, 1)
    ]
    lines = _aligned((head, *rows), left=2)
    typer.echo(lines[0])
    for line, group in zip(lines[1:], found.groups, strict=True):
        typer.echo(line)
        _list("slices", (_slice(name, dim) for name, dim in group.members))
        _list("renormalises", group.renormalises)
    if not found.groups:
        typer.echo("none: no channel can be pruned")
    typer.echo("\nFrozen: what can't be pruned, and why")
    frozen = [
        (_slice(f.name, f.dim), f.cause, f.node, f"{f.size} of {found.length(f)}")
        for f in found.frozen
    ]
    _table(("parameter[dimension]", "cause", "node", "channels"), frozen, left=3)


def _slice(name: str, dim: int) -> str:
    return f"{name}[{dim}]"


def _list(title: str, words: Iterable[str]) -> None:
    """A titled, indented list in lines as wide as the page; a longer word stays whole."""
    text = ", ".join(map(plain, words))
    if text:
        first, rest = f"     {title}: ", " " * 7
        room = max(page().width, _NARROWEST)
        for line in wrap(
            text,
            room,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            typer.echo(line)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> None:
    for line in _aligned((columns, *rows), left):
        typer.echo(line)


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as lines with their columns below each other, the first ``left`` to the left, the first
    row underlined. Each row is one line however long, so that names can be searched for."""
    cells = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "   ".join(
            f"{cell:<{width}}" if place < left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    rule = "\u2500" * (sum(widths) + 3 * (len(widths) - 1))
    return [f"{lines[0]}\n{rule}", *lines[1:]]


def _inputs(model: Model) -> list[str]:
    texts = []
    for entry in model.inputs:
        sizes = [
            "batch" if entry.dynamic_batch and axis == entry.batch_axis else str(size)
            for axis, size in enumerate(entry.shape)
        ]
        shape = "x".join(sizes) or "scalar"
        texts.append(f"{entry.name} {shape} {str(entry.dtype).removeprefix('torch.')}")
    return texts
