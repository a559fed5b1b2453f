# SPDX-License-Identifier: Apache-2.0
"""Which of the test set's networks edgeprune and Torch-Pruning prune."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rival import SETTINGS, Setting, attentions, prune
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.channels import Groups, analyse, apply, masked
from edgeprune.model import Event, capture
from tests.architectures import ARCHITECTURES, Architecture

__all__ = ["SEED", "coverage", "final_layers", "half"]

SHARE = 0.6
"""Of the multiply-accumulates: what may be left."""
LIMIT = 120
"""Seconds for one network with one tool."""
SEED = 0
PRUNE = Event("prune")


@dataclass(frozen=True)
class Outcome:
    """What became of one network: ``status`` is pruned, wrong, crashed or over time."""

    status: str
    detail: str
    macs: float | None = None
    error: float | None = None
    """Of the pruned network against the masked dense one, relative to its largest output."""


def half(groups: Groups, exact: bool = False) -> NDArray[np.bool_]:
    """Half of the channels of each group, drawn at random; with ``exact`` only of those groups
    over which nothing normalises."""
    random, removed = np.random.default_rng(SEED), groups.keep_all()
    for group in groups.groups:
        chosen = random.choice(group.channels, group.size // 2, replace=False)
        removed[chosen] = not (exact and group.renormalises)
    return removed


def outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors that ``module`` gives."""
    with torch.no_grad():
        return [o for o in pytree.tree_leaves(module(*inputs)) if isinstance(o, Tensor)]


def macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """What torch counts. Fused attention is taken apart: torch has no formula for it on a CPU."""
    torch.backends.mha.set_fastpath_enabled(False)
    with (
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
        FlopCounterMode(display=False) as counter,
    ):
        module(*inputs)
    return counter.get_total_flops() // 2


def judge(dense: nn.Module, pruned: nn.Module, inputs: tuple[Tensor, ...]) -> Outcome:
    """Whether ``pruned`` does what both tools promise."""
    before, after = outputs(dense, inputs), outputs(pruned, inputs)
    share = macs(pruned, inputs) / macs(dense, inputs)
    shapes = [[tuple(o.shape) for o in side] for side in (before, after)]
    if shapes[0] != shapes[1]:
        return Outcome("wrong", f"gives {shapes[1]} in place of {shapes[0]}", share)
    if not all(bool(torch.isfinite(o).all()) for o in after):
        return Outcome("wrong", "outputs that aren't finite", share)
    if share > SHARE:
        return Outcome("wrong", f"{share:.0%} of the MACs are left", share)
    return Outcome("pruned", "", share)


def with_ours(entry: Architecture) -> Outcome:
    """Half of each group's channels, by edgeprune."""
    module, inputs = entry.build()
    model, _ = capture(module, inputs, event=Event("capture"))
    groups = analyse(model)
    outcome = judge(module, apply(model, groups, half(groups), PRUNE).module(), inputs)
    exact = half(groups, exact=True)
    if outcome.status != "pruned" or not exact.any():
        return outcome
    wanted = outputs(masked(model, groups, exact), inputs)
    got = outputs(apply(model, groups, exact, PRUNE).module(), inputs)
    error = max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for a, b in zip(got, wanted, strict=True)
    )
    if error > 1e-3:
        return Outcome("wrong", "it isn't the masked network", outcome.macs, error)
    return Outcome("pruned", "", outcome.macs, error)


def with_theirs(entry: Architecture, setting: Setting) -> Outcome:
    """Half of the channels, by Torch-Pruning."""
    module, inputs = entry.build()
    dense, _ = entry.build()
    prune(module, inputs, final_layers(module, inputs), setting)
    return judge(dense, module, inputs)


def final_layers(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[nn.Module]:
    """The layers whose outputs are the network's, which Torch-Pruning has to be told: those that
    our analysis finds, and those that give an output tensor as it is."""
    groups = analyse(capture(module, inputs, event=Event("capture"))[0])
    names = {f.name for f in groups.frozen if f.cause == "output" and f.dim == 0}
    last = {id(p) for name, p in module.named_parameters() if name in names}
    gave: list[tuple[nn.Module, Any]] = []
    hooks = [
        part.register_forward_hook(lambda part, _, result: gave.append((part, result)))
        for part in module.modules()
        if not any(part.children())
    ]
    results = outputs(module, inputs)
    for hook in hooks:
        hook.remove()
    direct = {id(part) for part, result in gave if any(result is o for o in results)}
    return [
        part
        for part in module.modules()
        if id(part) in direct or any(id(p) in last for p in part.parameters(recurse=False))
    ]


def guarded(task: Callable[[], Outcome], limit: float = LIMIT) -> Outcome:
    """Run ``task`` in a process of its own: what it raises, a crash and a hang are outcomes."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, task))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit):
            return Outcome("over time", f"not done after {limit:.0f} s")
        outcome: Outcome = receiver.recv()
        return outcome
    except EOFError:
        process.join()
        return Outcome("crashed", f"the process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _report(sender: Connection, task: Callable[[], Outcome]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        outcome = task()
    except Exception as error:  # whatever a tool raises is what the table is about
        where = traceback.extract_tb(error.__traceback__)[-1].name
        text = _line(error) or f"in {where}"
        outcome = Outcome("crashed", f"{type(error).__name__}: {text}")
    sender.send(outcome)


def _line(error: Exception, limit: int = 90) -> str:
    text = " ".join(str(error).split()).replace("|", "/")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def best_of_theirs(entry: Architecture) -> Outcome:
    """The first setting that works, or what became of the first one."""
    tried: list[Outcome] = []
    same = not any(attentions(entry.build()[0]))  # nothing to tell: they are one
    for setting in SETTINGS[:1] if same else SETTINGS:
        outcome = guarded(lambda setting=setting: with_theirs(entry, setting))
        if outcome.status == "pruned":
            return Outcome("pruned", setting.name if tried else "", outcome.macs)
        tried.append(outcome)
    return tried[0]


def coverage(names: Sequence[str]) -> list[str]:
    """The first section: each network with each tool."""
    rows, counts, exact = [], [0, 0], 0
    for name in names:
        entry = ARCHITECTURES[name]
        both = guarded(lambda entry=entry: with_ours(entry)), best_of_theirs(entry)
        counts = [n + (o.status == "pruned") for n, o in zip(counts, both, strict=True)]
        exact += both[0].error is not None and both[0].status == "pruned"
        cells = [_cell(outcome) for outcome in both]
        error = "-" if both[0].error is None else f"{both[0].error:.0e}"
        rows.append(f"| {name} | {entry.family} | {cells[0]} | {error} | {cells[1]} |")
        print(rows[-1], flush=True)
    total = len(names)
    return [
        "## How many each prunes",
        "",
        f"**edgeprune {counts[0]} of {total}, Torch-Pruning {counts[1]} of {total}.** Pruned: half "
        f"of the channels go, at most {SHARE:.0%} of the multiply-accumulates are left (as torch "
        "counts them), and the outputs are finite and of the right shape.",
        "",
        "| network | family | edgeprune, MACs left | error | Torch-Pruning, MACs left |",
        "| --- | --- | --- | ---: | --- |",
        *rows,
        "",
        f"- error: of the pruned network against the dense one with the same channels masked to "
        f"zero, relative to its largest output, over the {exact} networks that have channels over "
        "which nothing normalises, with only those removed. -: "
        "there are none, or it wasn't pruned.",
        "- edgeprune: half of each group, drawn at random.",
        "- Torch-Pruning: its README's `BasePruner` with `GroupMagnitudeImportance(p=2)` and "
        "`pruning_ratio=0.5`. `ignored_layers` are all layers that reach an output, which our "
        "analysis looks up for it; `num_heads` of q, k and v come from the attention modules, "
        "whose sizes are set afterwards. It has a try with each of "
        + ", ".join(f"'{s.name}'" for s in SETTINGS)
        + ", and the first that works counts; where none does, the first one's result is shown.",
        "",
    ]


def _cell(outcome: Outcome) -> str:
    if outcome.status == "pruned":
        note = f" ({outcome.detail})" if outcome.detail else ""
        return f"{outcome.macs:.0%}{note}"
    return f"**{outcome.status}**: {outcome.detail}"
