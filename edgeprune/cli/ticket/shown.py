# SPDX-License-Identifier: Apache-2.0
"""Tickets, their reports and plans on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgeprune.cli import show
from edgeprune.figure import Figure
from edgeprune.report.text import ABSENT, count, plain
from edgeprune.report.text import show as text

if TYPE_CHECKING:
    from edgeprune.tickets.plan import FindPlan
    from edgeprune.tickets.report import LayerReport, TicketReport

__all__ = ["layers", "number", "percent", "plan", "report", "shape"]

_COLUMNS = ("layer", "shape", "density", "kept")


def report(found: TicketReport, folder: Path) -> None:
    """Print what finding or training a ticket gave."""
    layers(found.layers)
    typer.echo()
    if found.command == "find" and found.method == "early-bird":
        show.lines((f"asked for: {percent(found.options['density'])} of the channels",))
    show.lines(_lines(found.figures))
    show.lines(map(plain, found.notes))
    typer.echo()
    for name in found.files.values():
        typer.echo(f"{_place(folder, name)}")


def layers(found: Iterable[LayerReport]) -> None:
    """Print the share of each layer that lives."""
    rows = [
        (plain(one.name), shape(one.shape), percent(one.density), f"{one.kept:,} of {one.size:,}")
        for one in found
    ]
    show.table(_COLUMNS, rows)


def plan(found: FindPlan, *, as_json: bool) -> None:
    """Print what will be done."""
    if as_json:
        show.as_json(found.as_data())
        return
    task = found.task
    typer.echo(
        f"{plain(task.source.path.name)}, {task.options.method}: the plan; nothing is written\n"
    )
    densities = found.densities or {}
    rows = [
        (
            plain(layer.name),
            shape(layer.shape),
            count(layer.macs),
            percent(densities[layer.name]) if layer.name in densities else ABSENT,
        )
        for layer in found.network.layers
    ]
    show.table(("layer", "shape", "MACs", "density"), rows)
    if found.densities is None:
        typer.echo(f"{ABSENT}: a ranking decides; {percent(task.options.density)} in all")
    typer.echo()
    steps = [
        (phase.text, f"{phase.steps:,}", ABSENT if phase.cost is None else f"{phase.cost:.3g} x")
        for phase in found.phases
    ]
    show.table(("what is done", "steps", "dense trainings"), steps)
    if found.cost is not None and len(steps) > 1:
        typer.echo(
            f"in all {found.cost:.2f} times the FLOPs of one dense training, zeros counted; looks "
            "at the held-out data come on top"
        )


def percent(share: float) -> str:
    """``12.5 %``: three digits, however small."""
    return f"{100 * share:.3g} %"


def shape(sizes: Iterable[int]) -> str:
    """``16x3x3x3``."""
    return "x".join(map(str, sizes))


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return ABSENT if value is None else f"{value:.3g}"


def _place(folder: Path, name: str) -> Path:
    """A file of a report that lies in ``folder``, as a user would name it."""
    if ".." not in Path(name).parts:
        return folder / name
    found, here = (folder / name).resolve(), Path.cwd()
    inside = not folder.is_absolute() and found.is_relative_to(here)
    return found.relative_to(here) if inside else found


def _lines(figures: Mapping[str, Figure]) -> Iterable[str]:
    def of(name: str) -> str:
        return text(figures[name])

    yield f"density {of('density')}: {figures['kept'].value:,.0f} weights live"
    if "score" in figures:
        drop = figures["drop"].value
        side = "above" if drop < 0 else "under"
        lost = f"{abs(drop):.2f} points {side} the model as given"
        yield f"evaluation data: {_interval(figures['score'])}, {lost}"
    if "holdout_score" in figures:
        yield f"held-out training data: {_interval(figures['holdout_score'])}"
    if not figures["flops"].value:
        yield "nothing was trained or scored"
        return
    yield f"FLOPs: {_flops(figures['flops'])}; without zeros {_flops(figures['flops_sparse'])}"
    if "cost" in figures:
        how = figures["cost"].origin.how.partition(" of ")[2]
        sparse = _times(figures["cost_sparse"])
        yield f"that is {_times(figures['cost'])} {how}; without zeros {sparse}"
    yield f"steps: {figures['steps'].value:,.0f}" + "".join(
        f", {name} {of(key)}"
        for key, name in (("seconds", "wall time"), ("memory", "peak memory"))
        if key in figures
    )


def _interval(figure: Figure) -> str:
    return f"{text(figure)} ({figure.low:.2f} to {figure.high:.2f})"


def _times(figure: Figure) -> str:
    return f"{figure.value:.3g} times"


def _flops(figure: Figure) -> str:
    return f"{figure.value:.3g}"
