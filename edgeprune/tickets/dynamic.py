# SPDX-License-Identifier: Apache-2.0
"""Dynamic sparse training: SET and RigL. The mask moves while its density stays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from edgeprune.context import Context
from edgeprune.errors import InputError
from edgeprune.mask import Ticket, look
from edgeprune.model import Model
from edgeprune.tickets.found import Found, Work, about, event
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import DynamicOptions, TicketOptions
from edgeprune.tickets.scores import random
from edgeprune.tickets.select import Ranking, best, check_scores, emptied, select
from edgeprune.tickets.streams import generator
from edgeprune.tickets.training import During, Training, need_data

__all__ = [
    "Dynamic",
    "Exchange",
    "check_dynamic",
    "exchange",
    "find_rigl",
    "find_set",
    "fraction_at",
]

Growth = Literal["random", "gradient"]


def find_set(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Sparse Evolutionary Training (Mocanu et al. 2018): the smallest weights go, others begin at
    random places.

    This is the variant that Evci et al. 2020 compare with: it drops by magnitude, every so many
    steps, a share that decays, and new weights begin at zero. The paper drops the same share of the
    positive and of the negative weights after each epoch, and draws new ones.

    Errors as ``find_rigl``.
    """
    return _find(model, options, context, work, "random")


def find_rigl(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """RigL (Evci et al. 2020, section 3 and algorithm 1): the smallest weights go, others begin
    where the gradient is largest.

    The paper leaves out the update of the weights in the step in which the mask changes; here it is
    done first, with the same gradient. The paper's first change is at step 0, here it comes after
    ``every`` steps.

    Raises:
        InputError: The density or the allocation doesn't fit the network, there is nothing to
            train, or a pattern is asked for.
        DataError: There is no data.
    """
    return _find(model, options, context, work, "gradient")


def check_dynamic(options: TicketOptions, context: Context) -> None:
    """Refuse what can't be done, whatever the network.

    Raises:
        InputError: There is nothing to train, or a pattern is asked for.
        DataError: There is no data.
    """
    need_data(context, options.method)
    if options.train.epochs == 0:
        raise InputError(f"{options.method} moves weights in training: it takes 1 epoch or more")
    if options.pattern is not None:
        raise InputError(
            f"{options.method}: weights move without regard to a pattern; leave {options.pattern} "
            "out, or use gradual, imp or one-shot"
        )


def _find(
    model: Model, options: TicketOptions, context: Context, work: Work, growth: Growth
) -> Found:
    check_dynamic(options, context)
    network, seed = look(model, options.exclude), context.seed
    origin = about(model, options, seed)
    scores, ranking = random(network, seed), Ranking.of(options, seed)
    mask = select(network, scores, options.density, ranking, origin)
    during, ledger = Dynamic(options.dynamic, growth, seed), Ledger(network)
    training = Training(
        model, options.train, context, ledger, mask=mask, during=during, title=options.method
    )
    training.run(checkpoint=work.path(f"{options.method}.pt"), key=work.key)
    assert training.mask is not None
    last = replace(training.mask, about=origin)
    details = {
        "changes": during.changes,
        "history": training.history,
        "moved": last.hamming(mask) / (2 * mask.density),
    }
    notes = (*training.plan.notes, *emptied(last))
    if not during.changes:
        every = options.dynamic.every
        notes = (f"the mask never changed: {training.total} steps, every {every}", *notes)
    return Found(Ticket(last), ledger, training.trained(event(options, last)), details, notes)


class Dynamic(During):
    """Exchanges weights of each layer every so many steps, and as many as go begin."""

    def __init__(self, options: DynamicOptions, growth: Growth, seed: int) -> None:
        self.options, self.growth, self.seed = options, growth, seed
        self.end = 0
        self.changes: list[dict[str, Any]] = []
        """Of each change: ``step``; ``fraction``; by layer how many weights were ``dropped`` and
        ``grown``, and how many of those were dropped a moment before (``back``)."""

    def begin(self, training: Training) -> None:
        """Find out when it ends."""
        self.end = round(self.options.end * training.total)

    def due(self, step: int) -> bool:
        """Whether the mask changes after ``step`` steps."""
        return 0 < step < self.end and step % self.options.every == 0

    def before_step(self, training: Training) -> None:
        """Ask for the gradients of all weights in the steps that need them, and count them."""
        assert training.held is not None
        training.held.watch = self.growth == "gradient" and self.due(training.step + 1)

    def after_step(self, training: Training) -> None:
        """Exchange weights, where it is time."""
        if not self.due(training.step):
            return
        assert training.held is not None
        share = fraction_at(training.step, self.end, self.options.fraction)
        weights, mask = training.weights(), training.held.mask
        done: dict[str, Exchange] = {}
        for name, kept in mask.keep.items():
            drawn = generator(self.seed, "exchange", training.step, name)
            if self.growth == "gradient":
                if name not in training.held.gradients:  # the loss doesn't depend on it
                    none = torch.zeros_like(kept)
                    done[name] = Exchange(kept, none, none)
                    continue
                wanted = training.held.gradients[name].abs()
                check_scores(training.ledger.network[name], {name: wanted})
            else:
                wanted = torch.rand(kept.shape, dtype=torch.float64, generator=drawn)
            done[name] = exchange(weights[name], kept, wanted, share, drawn)
        training.hold(replace(mask, keep={name: change.kept for name, change in done.items()}))
        self.changes.append(
            {
                "step": training.step,
                "fraction": share,
                "dropped": {name: int(change.dropped.sum()) for name, change in done.items()},
                "grown": {name: int(change.grown.sum()) for name, change in done.items()},
                "back": {
                    name: int((change.dropped & change.grown).sum())
                    for name, change in done.items()
                },
            }
        )

    def state(self) -> dict[str, Any]:
        """The changes so far."""
        return {"changes": self.changes}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from them."""
        self.changes = state["changes"]


@dataclass(frozen=True)
class Exchange:
    """What happened to one layer, as masks of its shape."""

    kept: Tensor
    """The new mask."""
    dropped: Tensor
    grown: Tensor
    """May overlap ``dropped``."""


def fraction_at(step: int, end: int, fraction: float) -> float:
    """The share of a layer's living weights that is exchanged after ``step`` steps:
    ``fraction / 2 * (1 + cos(pi * t / T_end))`` (Evci et al. 2020, section 3, update schedule)."""
    return fraction / 2 * (1 + math.cos(math.pi * step / end))


def exchange(
    weight: Tensor, kept: Tensor, wanted: Tensor, fraction: float, drawn: torch.Generator
) -> Exchange:
    """Drop the share ``fraction`` (rounded down) of the living weights with the smallest
    magnitude, and let as many begin where ``wanted`` is highest among all others.

    The others are the dead and those just dropped, as in both papers' algorithms. One that is
    dropped and grown at once simply lives on with its value, as in the authors' code of RigL; so a
    dense layer stays as it is. Those that begin are zero, since the dead are.
    """
    alive = int(kept.sum())
    count = int(fraction * alive)
    staying = best(weight.abs(), alive - count, kept, drawn)
    grown = best(wanted, count, ~staying, drawn)
    return Exchange(staying | grown, kept & ~staying, grown)
