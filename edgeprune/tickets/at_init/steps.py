# SPDX-License-Identifier: Apache-2.0
"""What the methods at initialisation share: where they start, how they go down, what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.context import Context
from edgeprune.data import Batch
from edgeprune.errors import InputError
from edgeprune.mask import Mask, Network, Ticket, look
from edgeprune.model import Model
from edgeprune.tickets.allocate import share_out
from edgeprune.tickets.at_init.collapse import collapse_notes, collapsed, effective
from edgeprune.tickets.found import Found, about
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import Probe, Scores
from edgeprune.tickets.select import Ranking, goal, select

__all__ = [
    "Start",
    "batches",
    "begin",
    "check_scores",
    "descend",
    "find_on_data",
    "finish",
    "normalise_by_batch",
    "probe_at",
    "put",
    "seen",
    "weights_of",
]

Score = Callable[[Mask, int], Scores]
"""From the mask so far and the number of the step (from 0)."""


@dataclass(frozen=True)
class Start:
    """A network before its first step."""

    model: Model
    network: Network
    ledger: Ledger


def begin(model: Model, options: TicketOptions) -> Start:
    """Get ready: look at the network.

    Raises:
        InputError: A pattern of ``exclude`` fits nothing, or no weight is left.
    """
    network = look(model, options.exclude)
    return Start(model, network, Ledger(network))


def probe_at(start: Start, options: TicketOptions, context: Context) -> Probe:
    """The objective of training on training samples, with batch norms as in training.

    Raises:
        DataError: There is no data, or it doesn't fit the model.
        InputError: There is nothing to learn from.
    """
    probe = Probe.of(start.model, options, context, start.ledger)
    if probe.batch_size > 1:  # statistics over one sample would be none
        normalise_by_batch(probe.module)
    return probe


def descend(
    start: Start,
    options: TicketOptions,
    context: Context,
    score: Score,
    steps: int,
) -> tuple[Mask, int]:
    """Score and prune in ``steps`` steps, so that after step k of n each layer (each ranking, where
    layers are ranked together) has its final density to the power k/n (Tanaka et al. 2020).
    What went doesn't come back. With a pattern N:M there is one step, as weights that went one by
    one would leave blocks with fewer than N.

    Returns:
        The mask, and how many steps were taken.

    Raises:
        InputError: The density can't be met, the pattern doesn't fit, or the scores aren't finite.
    """
    # What can't be met is refused before anything is scored.
    goal(start.network, options.density, Ranking.of(options, context.seed))
    steps = 1 if options.pattern else steps
    told = about(start.model, options, context.seed, iterations=steps)
    mask = Mask.full({layer.name: layer.shape for layer in start.network.layers}, told)
    with context.progress.bar(options.method, steps) as bar:
        for step in range(steps):
            scores = score(mask, step)
            density, ranking = _target(start.network, options, context.seed, step + 1, steps)
            mask = select(start.network, scores, density, ranking, told, among=mask)
            bar.advance(density=mask.density)
    return mask, steps


def finish(
    start: Start, mask: Mask, details: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> Found:
    """The result, with what is dead in it."""
    alive = effective(start.model, mask)
    facts = {"effective_density": alive.density, "collapsed": list(collapsed(mask)), **details}
    if mask.about.structure == "n:m" and "iterations" in details:
        notes = (*notes, "scored once: with a pattern N:M all weights go in one step")
    notes = (*notes, *collapse_notes(start.model, mask, alive))
    return Found(Ticket(mask), start.ledger, details=facts, notes=notes)


def find_on_data(
    model: Model,
    options: TicketOptions,
    context: Context,
    score: Callable[[Probe, Mask], Scores],
    **details: Any,
) -> Found:
    """A whole search by a score that looks at training samples: once, or again after each of
    ``options.at_init.iterations`` steps in the network as it is then.

    Raises:
        InputError: Nothing to learn from, a density that can't be met, or all scores are zero.
        DataError: There is no data, or it doesn't fit the model.
    """
    start = begin(model, options)
    probe = probe_at(start, options, context)
    weights = weights_of(probe.module)

    def score_masked(mask: Mask, step: int) -> Scores:
        put(probe.module, weights, mask)
        return score(probe, mask)

    mask, steps = descend(start, options, context, score_masked, options.at_init.iterations or 1)
    facts = {"iterations": steps, "samples": seen(probe), **details}
    notes = ("iterative: scored again after each step",) if steps > 1 else ()
    return finish(start, mask, facts, notes)


def check_scores(scores: Scores, method: str) -> float:
    """The sum of all absolute scores.

    Raises:
        InputError: All are zero, so there is nothing to rank.
    """
    total = float(sum(value.double().abs().sum() for value in scores.values()))
    if total == 0:
        raise InputError(
            f"{method}: all scores are zero, so nothing can be ranked: nothing flows from the "
            "input to the output; take a higher density or more iterations"
        )
    return total


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters, by every name that they have."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter.detach().clone() for name, parameter in named}


@torch.no_grad()
def put(module: nn.Module, values: Mapping[str, Tensor], mask: Mask) -> list[nn.Parameter]:
    """Write the weights that a mask covers into a module, zero where the mask is.

    Returns:
        The module's own parameters, in the mask's order.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    for name, kept in mask.keep.items():
        named[name].copy_(values[name] * kept)
    return [named[name] for name in mask.keep]


def normalise_by_batch(module: nn.Module, momentum: float | None = None) -> None:
    """Let batch norms use the statistics of the batch, as in training; all else stays in eval mode.

    Args:
        module: A captured graph, edited in place.
        momentum: Of the running statistics; ``None``: theirs. 1: they become those of the batch.
    """
    assert isinstance(module, GraphModule)
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and node.args[3] is not None:
            node.update_arg(5, True)
            if momentum is not None:
                node.update_arg(6, momentum)
    module.recompile()


def batches(probe: Probe) -> Iterator[Batch]:
    """The samples of a probe; a last batch of one sample, which has no statistics, is left out
    as in training."""
    for place, batch in enumerate(probe.batches()):
        if place == 0 or len(batch) > 1 or probe.batch_size == 1:
            yield batch


def seen(probe: Probe) -> int:
    """How many samples ``batches`` gives."""
    count = min(probe.samples, probe.data.sizes["train"])
    size = probe.batch_size
    return count - 1 if count > size > 1 and count % size == 1 else count


def _target(
    network: Network,
    options: TicketOptions,
    seed: int,
    step: int,
    steps: int,
) -> tuple[float, Ranking]:
    """Density and ranking of a step: counts to the power step/steps, layer by layer."""
    final = Ranking.of(options, seed)
    if step == steps:
        return options.density, final
    power = step / steps
    shares = share_out(network, options.density, final.rule, final.densities)
    own = {name: (count / network[name].size) ** power for name, count in shares.own.items()}
    rest = sum(layer.size for layer in network.layers if layer.name not in own)
    living = [max(1, round(d * network[n].size)) if d else 0 for n, d in own.items()]
    total = sum(living) + (rest * (shares.common / rest) ** power if rest else 0.0)
    return total / network.size, Ranking("by-hand" if not rest else "global", own, None, seed)
