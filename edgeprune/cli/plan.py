# SPDX-License-Identifier: Apache-2.0
"""The plan of a dry run, printed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from edgeprune.cli import show
from edgeprune.report.text import count
from edgeprune.units import format_bytes

if TYPE_CHECKING:
    from edgeprune.preview import Preview
    from edgeprune.prune import PrunePlan
    from edgeprune.tickets.use import TicketInUse

__all__ = ["as_data", "render"]


def as_data(plan: Preview) -> dict[str, Any]:
    """The plan as JSON-able data."""
    return {
        "model": plan.job.source.path.name,
        "target": plan.job.target.name,
        "samples": plan.samples,
        "recipe": plan.job.recipe.model_dump(mode="json"),
        "budgets": plan.job.target.budgets.model_dump(mode="json"),
        **_cut(plan),
        "numerics": plan.numerics._asdict(),
        "formats": list(_formats(plan)),
        "result": str(plan.job.out / plan.job.target.name),
    }


def render(plan: Preview) -> None:
    """Print the plan: what each stage will do, group by group where channels go."""
    job = plan.job
    typer.echo(f"{job.source.path.name} for {job.target.name}: the plan; nothing is written\n")
    for name, text in _stages(plan):
        typer.echo(f"{name:<9} {text}")
    typer.echo()
    if plan.prune is not None and plan.prune.groups:
        rows = [(g.name, str(g.before), str(g.after), g.note) for g in plan.prune.groups]
        show.table(("channel group", "now", "then", "why not more"), rows)
    if plan.prune is not None:
        _render_branches(plan.prune)
    before, after = plan.before, plan.after
    costs = [
        ("parameters", count(before.parameters), count(after.parameters)),
        ("MACs", count(before.macs), count(after.macs)),
        ("bytes of the float weights", format_bytes(before.bytes), format_bytes(after.bytes)),
    ]
    show.table(("predicted from shapes", "now", "pruned"), costs)


def _cut(plan: Preview) -> dict[str, Any]:
    costs = {"before": asdict(plan.before), "after": asdict(plan.after)}
    if plan.ticket is not None:
        return {"ticket": {**plan.ticket.facts(), **costs}}
    cut = plan.prune
    assert cut is not None
    groups = [asdict(group) for group in cut.groups]
    return {"prune": {"importance": cut.importance, "groups": groups, **_branches(cut), **costs}}


def _branches(cut: PrunePlan) -> dict[str, Any]:
    if cut.branches is None:
        return {}
    return {"branches": [asdict(branch) for branch in cut.branches]}


def _render_branches(cut: PrunePlan) -> None:
    """The residual branches that go, in the order of the graph, and of how many they are."""
    if cut.branches is None:
        return
    going = [branch for branch in cut.branches if branch.goes]
    if going:
        typer.echo()
        rows = [
            (
                b.name,
                count(b.macs),
                count(b.parameters),
                format_bytes(b.bytes),
                _score(b.importance),
            )
            for b in going
        ]
        columns = ("residual branch that goes", "MACs", "parameters", "bytes", cut.importance)
        show.table(columns, rows)
    typer.echo(f"\n{len(going)} of {len(cut.branches)} residual branches go whole\n")


def _score(importance: float | None) -> str:
    return "none" if importance is None else f"{importance:.3g}"


def _stages(plan: Preview) -> list[tuple[str, str]]:
    recipe, target = plan.job.recipe, plan.job.target
    formats = " and ".join(_formats(plan))
    return [
        ("load", _data(plan)),
        ("dense", f"export as it is to {formats}: the yardstick"),
        ("prune", _prune(plan)) if plan.ticket is None else ("ticket", _ticket(plan.ticket)),
        ("finetune", _finetune(plan)),
        ("quantize", f"{plan.numerics.numerics}: {plan.numerics.reason}"),
        ("export", f"{formats}, ONNX opset {target.opset}, batch {recipe.export.batch}"),
        ("profile", _profile(plan)),
        ("judge", _budgets(plan)),
    ]


def _formats(plan: Preview) -> tuple[str, ...]:
    return plan.job.recipe.export.formats or plan.job.target.formats


def _data(plan: Preview) -> str:
    if plan.samples is None:
        return "no data: no accuracy, no fine-tuning, importance by weights alone"
    parts = ", ".join(f"{count} for {part}" for part, count in plan.samples.items())
    return f"samples: {parts}"


def _prune(plan: Preview) -> str:
    options, cut = plan.job.recipe.prune, plan.prune
    if cut is None or (options.ratio == 0 and cut.goal is None):
        return "ratio 0: nothing is removed"
    multiple = options.multiple or plan.job.target.channel_multiple
    how = f"{cut.scope}, by {cut.importance}, in multiples of {multiple}"
    if cut.goal is not None:
        left = 100 * cut.goal.left_of(cut.before, cut.after)
        return f"to {left:.1f} % of the {cut.goal.name} (asked: {100 * cut.goal.share:g} %, {how})"
    share, asked = 100 * cut.ratio, 100 * options.ratio
    return f"{share:.1f} % of the prunable channels (asked: {asked:g} %, {how})"


def _ticket(used: TicketInUse) -> str:
    mask, whose = (
        used.ticket.mask,
        "the ticket's own" if used.options.weights == "ticket" else "its",
    )
    if used.held is None:
        return f"{used.name}: the channels that it leaves out go, with {whose} weights"
    return (
        f"{used.name}: {100 * mask.density:.2f} % of {count(mask.size)} weights live, with {whose} "
        "values; the others are zero from here on"
    )


def _finetune(plan: Preview) -> str:
    options = plan.job.recipe.finetune
    if plan.samples is None or options.epochs == 0:
        return "not fine-tuned" + (": no data" if plan.samples is None else ": 0 epochs")
    return f"{options.epochs} epochs of {options.optimizer}, batches of {options.batch_size}"


def _profile(plan: Preview) -> str:
    if not plan.job.profile:
        return "latency and memory are not measured (--no-profile)"
    options = plan.job.recipe.profile
    return f"on this machine, {options.blocks} interleaved processes a file"


def _budgets(plan: Preview) -> str:
    limits = plan.job.target.budgets.model_dump(mode="json", exclude_none=True)
    texts = {
        "size": lambda value: f"size {format_bytes(value)}",
        "latency": lambda value: f"latency {1e3 * value:g} ms",
        "memory": lambda value: f"memory {format_bytes(value)}",
        "drop": lambda value: f"drop {value:g} points",
    }
    return ", ".join(texts[name](value) for name, value in limits.items()) or "no budget"
