# SPDX-License-Identifier: Apache-2.0
"""Iterative magnitude pruning: train, prune a share of what lives, go back, and again.

Frankle and Carbin 2019, The Lottery Ticket Hypothesis (iterative pruning with resetting, appendix
B); Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis (algorithm 2),
for going back to a step after the first; Renda et al. 2020, Comparing Rewinding and Fine-tuning,
for going back with the learning rate alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.context import Context
from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.finetune.checkpoint import fetch, store
from edgeprune.mask import Mask, Ticket, look
from edgeprune.model import Model
from edgeprune.tickets.found import Found, Work, about, event
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import magnitude
from edgeprune.tickets.select import Ranking, emptied, goal, select
from edgeprune.tickets.training import Snapshot, Training

__all__ = ["find_imp", "levels"]

_EXACT = 1e-9
"""Logarithms of floats: so little more than a whole number of levels is that number."""
_MOST = 1000
"""Trainings that nobody waits for; a rate near zero asks for any number of them."""
_COSTS = {
    "dense": "dense_flops", "sparse": "sparse_flops", "steps": "steps", "samples": "samples",
    "seconds": "seconds",
}  # fmt: skip
"""What a level says of the ledger's sums."""


def levels(density: float, rate: float) -> tuple[float, ...]:
    """The density after each pruning: ``(1 - rate)^i``, and at the last ``density`` itself, where
    less than ``rate`` may go. None for density 1.

    Raises:
        InputError: A share is out of range, or there are more than 1000 levels.
    """
    if not 0 < density <= 1 or not 0 < rate < 1:
        raise InputError(
            f"imp: density {density:g} with rate {rate:g}: takes a density above 0 and up to 1, "
            "and a rate between 0 and 1"
        )
    if density == 1:
        return ()
    exact = math.log(density) / math.log1p(-rate)
    if exact > _MOST:
        raise InputError(
            f"imp: rate {rate:g} takes {exact:.3g} trainings to density {density:g}; at most "
            f"{_MOST} are done: take a higher rate"
        )
    count = max(1, math.ceil(exact - _EXACT))
    return (*((1 - rate) ** number for number in range(1, count)), density)


def find_imp(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Find a ticket level by level, and train it.

    Every level is a whole training with the mask so far: from step k (``options.imp.rewind`` of all
    steps) with the weights and the optimizer of that step, to the end; then ``options.imp.rate`` of
    the living weights go, those of least magnitude: in all layers together unless ``alloc`` says
    otherwise (as Frankle and Carbin 2019, section 4, do in deep networks), in the last one too. In
    mode ``learning-rate`` the weights stay as they are, and only schedule, order of the data and
    optimizer go back. After the last pruning the ticket is trained once more.

    A finished level is kept in ``work.folder`` (``level-N.pt``; the state of step k in
    ``rewind.pt``), and so is the training under way: killed anywhere, the same call goes on and
    gives the same mask and the same weights, bit for bit.

    Returns:
        ``ticket``: the mask, and the weights that its own training begins with; ``trained``;
        ``details["levels"]``: an entry a training, with its density, its losses and scores
        (``holdout_...``: on the held-out part of the training data) and what it cost.

    Raises:
        InputError: An option doesn't fit, or the loss became NaN.
        DataError: There is no data, or it doesn't fit.
        OutputError: A level can't be written.
        KeyboardInterrupt: Ctrl-C, after the step under way and its checkpoint.
    """
    run = _Run(model, options, context, work)
    context.progress.say(run.plan_text)
    run.begin()
    first = run.resume()
    for number in range(first, len(run.plan)):
        run.train(number)
        run.prune(number)
    run.train(len(run.plan))
    trained = run.training.trained(event(options, run.mask, rewind_step=run.snapshot.step))
    details = {
        "mode": options.imp.mode,
        "rewind_step": run.snapshot.step,
        "steps": run.training.total,
        "levels": run.entries,
    }
    ticket = Ticket(run.mask, run.start.state)
    return Found(
        ticket, run.ledger, trained, details, (*run.training.plan.notes, *emptied(run.mask))
    )


class _Run:
    """The levels under way."""

    def __init__(self, model: Model, options: TicketOptions, context: Context, work: Work) -> None:
        self.options, self.work, self.progress = options, work, context.progress
        self.network = look(model, options.exclude)
        self.plan = levels(options.density, options.imp.rate)
        self.ledger = Ledger(self.network)
        self.ranking = Ranking.of(options, context.seed)
        goal(self.network, options.density, self.ranking)
        self.training = Training(model, options.train, context, self.ledger, title="imp")
        step = round(options.imp.rewind * self.training.total)
        shapes = {layer.name: layer.shape for layer in self.network.layers}
        self.mask = Mask.full(shapes, about(model, options, context.seed, rewind_step=step))
        self.snapshot = Snapshot(step, {}, {})
        self.start = self.snapshot
        """What the next level begins with."""
        self.entries: list[dict[str, Any]] = []
        self._counted: Mapping[str, Any] = self.ledger.state()

    @property
    def plan_text(self) -> str:
        """What will be done."""
        count, total = len(self.plan) + 1, self.training.total
        densities = ", ".join(f"{density:.4g}" for density in (1.0, *self.plan))
        back = f" from step {self.snapshot.step}" if self.snapshot.step else ""
        trainings = "1 training" if count == 1 else f"{count} trainings"
        return f"imp: {trainings} of {total} steps{back}, at density {densities}"

    def begin(self) -> None:
        """Train to step k, or take up what was there."""
        step, path = self.snapshot.step, self.work.path("rewind.pt")
        found = self._fetch("rewind.pt")
        if found is None:
            checkpoint = self.work.path("rewind-training.pt")
            if step:
                self.training.title = f"imp: to step {step}"
                self.training.run(step, checkpoint, f"{self.work.key}-rewind")
            content = {**vars(self.training.snapshot()), "history": self.training.history}
            found = {**content, "ledger": self.ledger.state()}
            store(path, found, self.work.key)
            checkpoint.unlink(missing_ok=True)
        self.snapshot = Snapshot(found["step"], found["state"], found["optimizer"])
        self.start = self.snapshot
        self.training.history = list(found["history"])
        self.ledger.load(found["ledger"])

    def resume(self) -> int:
        """Take up the last level that is finished; gives the number of the next."""
        for number in reversed(range(len(self.plan))):
            found = self._fetch(f"level-{number}.pt")
            if found is not None:
                self.mask = replace(self.mask, keep=found["keep"])
                self.entries = found["entries"]
                self.start = replace(self.snapshot, state=found["start"] or self.snapshot.state)
                self.ledger.load(found["ledger"])
                self._counted = found["ledger"]
                self.progress.say(f"> imp: went on after level {number}")
                return number + 1
        return 0

    def train(self, number: int) -> None:
        """A whole training with the mask so far."""
        self.training.rewind(self.start)
        self.training.hold(self.mask)
        density = f"density {self.mask.density:.4g}"
        self.training.title = f"imp: level {number} of {len(self.plan)}, {density}"
        self.training.run(None, self._checkpoint(number), f"{self.work.key}-level-{number}")
        now = self.ledger.state()
        cost = {said: now[name] - self._counted[name] for name, said in _COSTS.items()}
        last = self.training.history[-1] if self.training.history else {}
        figures = {name: value for name, value in last.items() if name != "epoch"}
        self.entries.append({"level": number, "density": self.mask.density, **figures, **cost})
        self._counted = now

    def prune(self, number: int) -> None:
        """Prune to the level's density and keep what the next one needs."""
        density = self.plan[number]
        scores = magnitude({n: self.training.weights()[n] for n in self.mask.keep})
        last = number == len(self.plan) - 1
        ranking = replace(self.ranking, densities=self._by_hand(density), final=last)
        self.mask = select(self.network, scores, density, ranking, self.mask.about, among=self.mask)
        stays = self.options.imp.mode == "learning-rate"
        if stays:
            self.start = replace(self.start, state=read_state(self.training.module))
        content = {
            "keep": dict(self.mask.keep),
            "entries": self.entries,
            "start": self.start.state if stays else None,
            "ledger": self.ledger.state(),
        }
        store(self.work.path(f"level-{number}.pt"), content, self.work.key)
        self._checkpoint(number).unlink(missing_ok=True)

    def _by_hand(self, density: float) -> dict[str, float]:
        """Densities by hand are those of the end: on the way there each layer has come as far as
        the whole, so that totals fit."""
        done = (1 - density) / (1 - self.options.density)
        return {p: 1 - done * (1 - share) for p, share in self.options.densities.items()}

    def _checkpoint(self, number: int) -> Path:
        return self.work.path(f"level-{number}-training.pt")

    def _fetch(self, name: str) -> dict[str, Any] | None:
        found, why_not = fetch(self.work.path(name), self.work.key)
        if why_not:
            self.progress.say(f"> {why_not}")
        return found
