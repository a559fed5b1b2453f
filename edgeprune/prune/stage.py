# SPDX-License-Identifier: Apache-2.0
"""The pruning stage: analyse, score, decide, then cut."""

from __future__ import annotations

from dataclasses import asdict, replace
from math import prod
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgeprune.channels import Branch, Groups, Policy, analyse, apply, find_branches
from edgeprune.context import Context
from edgeprune.data import Batch, Data
from edgeprune.errors import InputError
from edgeprune.figure import counted
from edgeprune.model import Event, Model, runner
from edgeprune.prune.allocate import TOLERANCE, Goal
from edgeprune.prune.allocate.sensitivity import Curves, measurements, sensitivity
from edgeprune.prune.criteria import CRITERIA, Samples, Scores, Subject
from edgeprune.prune.depth import Depth
from edgeprune.prune.layers import find_layers
from edgeprune.prune.plan import PrunePlan, decide, goal_of, ladders, untouched
from edgeprune.prune.recover import Recovered, recover
from edgeprune.recipe import Importance, PruneOptions, Scope
from edgeprune.report.schema import StageReport
from edgeprune.tasks import Task, endings, read

__all__ = ["plan", "prune"]

_ELEMENTS = 1 << 20
"""Numbers in the inputs of one batch, at most (six images of 224x224): a backward pass holds all
that lies between."""
_BATCH = 32
"""Samples in one gradient of the Taylor score."""
_RECOVERY_BATCH = 64
"""Samples that recovery and sensitivity look at together."""
_GRAM_SAMPLES = 512
"""Samples that tell how a layer makes up for what it lacks, where sensitivity is measured."""
_WORK = 2e12
"""Multiply-accumulates that all measurements of sensitivity together may take: of large networks
fewer samples are judged."""
_FEWEST = 32


def prune(model: Model, options: PruneOptions, context: Context) -> tuple[Model, StageReport]:
    """Remove the least important channels of ``model`` for real, and whole residual branches where
    ``options.allow_depth`` says so.

    Raises:
        InputError: An option doesn't fit the model or the data.
    """
    start = perf_counter()
    groups = analyse(model, _policy(options))
    decision = _plan(model, groups, options, context)
    event = Event(
        "prune",
        options.model_dump(mode="json") | {"importance": decision.importance},
        _facts(decision),
    )
    pruned = apply(model, groups, decision.removed, event, decision.gone)
    pruned, recovery = _recover(model, pruned, groups, decision, options, context)
    report = StageReport(
        stage="prune",
        seconds=perf_counter() - start,
        figures={
            "channels_removed": counted(
                100 * decision.ratio, "%", "removed of all prunable channels, after rounding"
            )
        },
        notes=(*_notes(groups, decision, options), *recovery.notes),
        details=_details(groups, decision) | recovery.details,
    )
    return pruned, report


def plan(model: Model, options: PruneOptions, context: Context) -> PrunePlan:
    """What ``prune`` would do; nothing is edited."""
    return _plan(model, analyse(model, _policy(options)), options, context)


class _Recovery(NamedTuple):
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it


def _recover(
    dense: Model,
    pruned: Model,
    groups: Groups,
    decision: PrunePlan,
    options: PruneOptions,
    context: Context,
) -> tuple[Model, _Recovery]:
    """Fit the layers that are left, where anything went and there is data."""
    if not options.recover or not (decision.removed.any() or decision.gone):
        return pruned, _Recovery()
    if context.data is None:
        return pruned, _Recovery(("not recovered: without data the weights stay as they are cut",))
    batches = _batches(pruned, context, options.recover_samples)
    if len(batches) < 2:
        size = pruned.fixed_batch or _RECOVERY_BATCH
        text = f"not recovered: two batches of {size} training samples are needed"
        return pruned, _Recovery((text,))

    def left(name: str, dim: int) -> Tensor | None:
        rows = groups.left(decision.removed, name, dim)
        return None if rows is None else torch.from_numpy(rows)

    with context.progress.bar("prune: recovery", len(find_layers(pruned.module()))) as bar:
        found = recover(dense, pruned, left, batches, context.seed, bar.advance)
    return found.model, _told(found)


def _told(found: Recovered) -> _Recovery:
    fits = [asdict(fit) for fit in found.fits]
    details = {"before_db": found.before, "after_db": found.after, "layers": fits}
    change = f"{found.before:.1f} to {found.after:.1f} dB"
    if found.after <= found.before:
        text = f"recovery would have taken the outputs from {change} of the dense model's: left out"
        return _Recovery((text,), {"recovery": details})
    if not found.fits:
        return _Recovery()
    worst = min(found.fits, key=lambda fit: fit.after)
    text = (
        f"recovery: {len(fits)} layers fitted on {found.samples} samples took the outputs from "
        f"{change} of the dense model's; {worst.layer} lost most ({worst.after:.1f} dB)"
    )
    return _Recovery((text,), {"recovery": details})


def _policy(options: PruneOptions) -> Policy:
    return Policy(options.attention, options.grouped)


def _plan(model: Model, groups: Groups, options: PruneOptions, context: Context) -> PrunePlan:
    name = _criterion(model, options, context)
    goal = goal_of(options)
    if options.ratio == 0 and goal is None:
        return untouched(groups, name, options)
    scope = _scope(model, options, context)
    if options.allow_depth and (goal is not None or scope not in ("uniform", "global")):
        raise InputError("--allow-depth goes with --ratio, and --scope uniform or global")
    options = options.model_copy(update={"scope": scope})
    branches = find_branches(model, groups) if options.allow_depth else ()
    scores = _scores(name, model, groups, branches, options, context)
    depth = Depth(model, branches, scores[groups.channels :]) if options.allow_depth else None
    multiple = options.multiple or context.target.channel_multiple
    channels = scores[: groups.channels]
    curves = None
    if scope == "sensitivity":
        curves = _curves(model, groups, channels, options, multiple, context)
    return decide(groups, channels, name, options, multiple, depth, curves)


def _scope(model: Model, options: PruneOptions, context: Context) -> Scope:
    if options.scope != "auto":
        return options.scope
    if goal_of(options) is None or context.data is None or _few(model, options, context.data):
        return "uniform"
    return "sensitivity"


def _curves(
    model: Model,
    groups: Groups,
    scores: Scores,
    options: PruneOptions,
    multiple: int,
    context: Context,
) -> Curves:
    """What narrower groups lose, measured on training samples."""
    if context.data is None:
        raise InputError("--scope sensitivity needs --data; without data use uniform or global")
    widths = measurements(groups.groups, ladders(groups, multiple))
    count = sum(map(len, widths))
    work = max(groups.totals().macs * count, 1)
    judged = int(min(max(_WORK / work, _FEWEST), options.samples))
    size = model.fixed_batch or _RECOVERY_BATCH
    back = -(-judged // size)
    batches = _batches(model, context, size * (back + -(-_GRAM_SAMPLES // size)))
    if len(batches) < 2:
        raise InputError(f"--scope sensitivity needs two batches of {size} training samples")
    back = min(back, len(batches) // 2)
    task = _task(model, context)
    with context.progress.bar("prune: sensitivity", count) as bar:
        return sensitivity(
            model, groups, scores, widths, task.outputs, batches[back:], batches[:back], bar.advance
        )


def _batches(model: Model, context: Context, samples: int) -> list[Batch]:
    """Training samples, in batches that the model takes."""
    assert context.data is not None
    size = model.fixed_batch or _RECOVERY_BATCH
    found = context.data.sample_train(size, samples, context.seed)
    return [batch for batch in found if model.dynamic_batch or len(batch) == size]


def _task(model: Model, context: Context) -> Task:
    """What the outputs are."""
    assert context.data is not None
    dense = context.dense or model
    run = runner(dense, context.threads)
    return read(context.data, run, endings(dense), only_labels=context.dense is None)


def _criterion(model: Model, options: PruneOptions, context: Context) -> Importance:
    if options.importance != "auto":
        return options.importance
    return "l2" if context.data is None or _few(model, options, context.data) else "obs"


def _few(model: Model, options: PruneOptions, data: Data) -> bool:
    """Whether the samples don't fill one batch of the size that the model insists on."""
    samples = min(options.samples, data.sizes["train"])
    return samples < (model.fixed_batch or 0)


def _scores(
    name: Importance,
    model: Model,
    groups: Groups,
    branches: tuple[Branch, ...],
    options: PruneOptions,
    context: Context,
) -> Scores:
    """One for each channel, then one for each branch."""
    criterion = CRITERIA[name]
    subject = Subject(model, groups, branches, context.seed)
    if criterion.needs == "weights":
        return criterion.score(subject)
    if context.data is None:
        raise InputError(f"importance '{name}' needs --data; without data use l1, l2 or bn-scale")
    if _few(model, options, context.data):
        raise InputError(
            f"importance '{name}' needs {model.fixed_batch} training samples, the batch "
            "that the model fixes; use l1, l2 or bn-scale, or export it with a dynamic batch"
        )
    each = sum(prod(i.sample) for i in model.inputs if i.batch_axis is not None)
    batch = model.fixed_batch or min(_BATCH, max(1, _ELEMENTS // max(each, 1)))
    batches = context.data.sample_train(batch, options.samples, context.seed)
    if not model.dynamic_batch:
        batches = (b for b in batches if len(b) == batch)
    task = _task(model, context)
    total = min(options.samples, context.data.sizes["train"])
    with context.progress.bar("prune: importance", total) as bar:
        samples = Samples(batches, task.outputs, total, bar.advance)
        return criterion.score(replace(subject, samples=samples))


def _notes(groups: Groups, decision: PrunePlan, options: PruneOptions) -> tuple[str, ...]:
    notes = [f"{g.name}: {g.note}" for g in decision.groups if g.note and g.after]
    if not groups.groups:
        notes.append("no channel of this model can be pruned; `edgeprune inspect` says why")
    elif (
        options.ratio
        and not decision.removed.any()
        and not decision.gone
        and decision.goal is None
        and any(g.note != "excluded" for g in decision.groups)
    ):
        notes.append("the ratio is too small for the channel multiple: nothing was removed")
    if options.allow_depth:
        notes.append(_depth_note(decision))
    if decision.goal is not None:
        notes.append(_goal_note(decision, decision.goal))
    renormalised = [g.name for g in groups.groups if g.renormalises]
    if renormalised:
        notes.append(
            f"{len(renormalised)} groups pass a normalisation over channels "
            f"({renormalised[0]}, ...): there pruning isn't exactly masking"
        )
    return tuple(notes)


def _facts(decision: PrunePlan) -> dict[str, Any]:
    facts: dict[str, Any] = {"channels": {g.name: [g.before, g.after] for g in decision.groups}}
    if decision.gone:
        facts["branches"] = [plan.name for plan in decision.branches or () if plan.goes]
    return facts


def _goal_note(decision: PrunePlan, goal: Goal) -> str:
    """What is left of the goal, and why it isn't what was asked for where it isn't."""
    left = goal.left_of(decision.before, decision.after)
    text = f"{goal.name}: {left:.3f} of the dense model's are left, {goal.share:g} asked for"
    if abs(left - goal.share) <= TOLERANCE * goal.share:
        return text
    if left > goal.share:
        return f"{text}: no group can be narrower, or none without going far below"
    return f"{text}: the nearest that the channel multiple allows"


def _depth_note(decision: PrunePlan) -> str:
    plans = decision.branches
    if plans is None:
        return "--allow-depth: ratio 0 removes no residual branch"
    if not plans:
        return "--allow-depth: this model has no residual branch that could go whole"
    gone = [plan.name for plan in plans if plan.goes]
    if gone:
        return f"{len(gone)} of {len(plans)} residual branches go whole: {', '.join(gone)}"
    staying = {plan.note for plan in plans if plan.note}
    why = f" ({'; '.join(sorted(staying))})" if staying else ""
    return (
        f"--allow-depth: none of {len(plans)} residual branches goes: the ratio takes less from "
        f"each set of alike ones than one of them holds{why}"
    )


def _details(groups: Groups, decision: PrunePlan) -> dict[str, Any]:
    details: dict[str, Any] = {
        "importance": decision.importance,
        "scope": decision.scope,
        "groups": [
            {"name": p.name, "before": p.before, "after": p.after, "members": len(g.members)}
            for p, g in zip(decision.groups, groups.groups, strict=True)
        ],
        "frozen": [
            {"name": f.name, "dim": f.dim, "size": f.size, "cause": f.cause} for f in groups.frozen
        ],
    }
    if decision.branches is not None:
        details["branches"] = [asdict(plan) for plan in decision.branches]
    return details
