# SPDX-License-Identifier: Apache-2.0
"""The classical pipeline: train, prune, retrain; at one stroke or little by little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from edgeprune.context import Context
from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.mask import About, Mask, Network, Ticket, look
from edgeprune.model import Model, set_training
from edgeprune.tickets.allocate import Shares
from edgeprune.tickets.found import Found, Work, about, event
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import DATA_DRIVEN, GradualOptions, TicketOptions
from edgeprune.tickets.scores import Probe, Scores, movement, score
from edgeprune.tickets.select import Ranking, compete, emptied, goal, pick, select
from edgeprune.tickets.training import During, Training, need_data

__all__ = [
    "Gradual",
    "Scoring",
    "check_gradual",
    "check_one_shot",
    "count_changes",
    "find_gradual",
    "find_one_shot",
    "progress",
    "window",
]


def find_one_shot(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Train to the end, prune once, and train what is left (Han et al. 2015).

    Each of the two trainings has the epochs and the schedule of ``options.train``, so the second
    begins at the first's highest rate (Renda et al. 2020 find that better than a low one); both
    count. The ticket starts from the weights at the end of the first. Without data, or with 0
    epochs, the model is pruned as it is and nothing is trained.

    Raises:
        InputError: The density, the allocation or the pattern doesn't fit the network, or the
            criterion needs training.
        DataError: The criterion needs data and there is none.
    """
    network = look(model, options.exclude)
    ranking = Ranking.of(options, context.seed)
    origin = about(model, options, context.seed)
    check_one_shot(options, context)
    goal(network, options.density, ranking)  # What can't be met is refused before any training.
    ledger = Ledger(network)
    if context.data is None or options.train.epochs == 0:
        scores = _untrained_scores(model, options, context, ledger)
        mask = select(network, scores, options.density, ranking, origin)
        why = "no data" if context.data is None else "0 epochs"
        return Found(Ticket(mask), ledger, notes=(f"{why}: not trained", *emptied(mask)))
    scoring = Scoring(options, network)
    dense = Training(model, options.train, context, ledger, during=scoring, title="train dense")
    dense.run(checkpoint=work.path("dense.pt"), key=work.key)
    scores = scoring.scores(dense)
    mask = select(network, scores, options.density, ranking, origin)
    start = read_state(dense.module)
    sparse = Training(model, options.train, context, ledger, mask=mask, title="retrain")
    sparse.rewind(replace(sparse.snapshot(), state=start))
    sparse.run(checkpoint=work.path("retrain.pt"), key=work.key)
    return Found(
        Ticket(mask, start),
        ledger,
        sparse.trained(event(options, mask)),
        {"dense": dense.history, "retrain": sparse.history},
        (*dense.plan.notes, *emptied(mask)),
    )


def find_gradual(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Prune while training: gradual magnitude pruning, or by another criterion
    (Zhu and Gupta 2017).

    Raises:
        InputError: The density, the allocation or the pattern doesn't fit the network, or there is
            nothing to train.
        DataError: There is no data.
    """
    check_gradual(options, context)
    network = look(model, options.exclude)
    origin = about(model, options, context.seed)
    during = Gradual(options, network, context.seed, origin)
    full = Mask.full({layer.name: layer.shape for layer in network.layers}, origin)
    ledger = Ledger(network)
    training = Training(
        model, options.train, context, ledger, mask=full, during=during, title=options.method
    )
    training.run(checkpoint=work.path("gradual.pt"), key=work.key)
    assert training.mask is not None
    mask = replace(training.mask, about=origin)
    return Found(
        Ticket(mask),
        ledger,
        training.trained(event(options, mask)),
        {"changes": during.changes, "history": training.history},
        (*training.plan.notes, *emptied(mask)),
    )


def check_one_shot(options: TicketOptions, context: Context) -> None:
    """Refuse a criterion that can't be had.

    Raises:
        InputError: It needs training, and there is none.
        DataError: It needs data, and there is none.
    """
    if context.data is not None and options.train.epochs:
        return
    if options.criterion == "movement":
        raise InputError("criterion 'movement' is summed up in training: it takes data and epochs")
    if options.criterion in DATA_DRIVEN:
        need_data(context, options.method)


def check_gradual(options: TicketOptions, context: Context) -> None:
    """Refuse a schedule that no training has room for.

    Raises:
        InputError: There is nothing to train, or the schedule ends before it begins.
        DataError: There is no data.
    """
    need_data(context, options.method)
    limits = options.gradual
    if options.train.epochs == 0:
        raise InputError(f"{options.method} prunes while it trains: it takes 1 epoch or more")
    if limits.begin >= limits.end:
        raise InputError(f"gradual: begin {limits.begin:g} takes a share below end {limits.end:g}")


def window(table: GradualOptions, total: int) -> tuple[int, int]:
    """The first and the last step of the schedule in a training of ``total`` steps."""
    return round(table.begin * total), max(1, round(table.end * total))


def count_changes(table: GradualOptions, total: int) -> int:
    """How often the mask changes in a training of ``total`` steps."""
    first, last = window(table, total)
    return max(0, last - first - 1) // table.every + 1


def progress(step: int, first: int, last: int, schedule: Literal["cubic", "linear"]) -> float:
    """The share of the final sparsity that is reached after ``step`` steps.

    ``cubic`` is Zhu and Gupta 2017, eq. 1, with an initial sparsity of 0:
    ``s_t / s_f = 1 - (1 - (t - t_0) / (n * dt))^3``, where ``t_0`` is ``first`` and
    ``t_0 + n * dt`` is ``last``.
    """
    way = min(1.0, max(0.0, (step - first) / (last - first))) if last > first else 1.0
    return 1 - (1 - way) ** 3 if schedule == "cubic" else way


class Scoring(During):
    """Scores weights by the criterion of the options; for movement it watches the training."""

    def __init__(self, options: TicketOptions, network: Network) -> None:
        self.options, self.network = options, network
        self.moved: dict[str, Tensor] = {}
        if options.criterion == "movement":
            self.moved = {layer.name: torch.zeros(layer.shape) for layer in network.layers}
        self._hook: RemovableHandle | None = None

    def begin(self, training: Training) -> None:
        """Watch the steps, where the criterion asks for it."""
        if self._hook is not None:
            self._hook.remove()
        if self.moved:
            # A hook, since a step sees weights and gradients together, before either changes.
            self._hook = training.optimizer.register_step_pre_hook(lambda *_: self._add(training))

    def state(self) -> dict[str, Any]:
        """The sums of movement so far."""
        return {"moved": self.moved}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from such sums."""
        self.moved = state["moved"]

    def scores(self, training: Training) -> Scores:
        """Of the network as it is now; it must be in eval mode."""
        if self.moved:
            return self.moved
        probe = Probe.on(training, self.options.at_init.samples)
        kind, weights, seed = self.options.criterion, training.weights(), training.context.seed
        return score(kind, weights, self.network, seed, lambda: probe, training.mask)

    def _add(self, training: Training) -> None:
        weights = dict(training.module.named_parameters(remove_duplicate=False))
        gradients = {name: grad for name in self.moved if (grad := weights[name].grad) is not None}
        self.moved |= movement(self.moved, weights, gradients)


class Gradual(Scoring):
    """Takes more weights away every so many steps.

    Each layer with a density of its own follows the schedule to it, and all others together do: so
    no layer is pruned before its time and none has to come back. A weight that is gone stays gone,
    by movement too (Sanh et al. 2020 go on scoring the pruned ones and let them return). The last
    change always falls on the step where the schedule ends.
    """

    def __init__(self, options: TicketOptions, network: Network, seed: int, origin: About) -> None:
        super().__init__(options, network)
        self.ranking = Ranking.of(options, seed)
        self.origin = origin
        self.goal = goal(network, options.density, self.ranking)
        self.first = self.last = 0
        self.changes: list[dict[str, float]] = []
        """Of each change: after how many steps, and the density since."""

    def begin(self, training: Training) -> None:
        """Lay the schedule over the training's steps."""
        super().begin(training)
        self.first, self.last = window(self.options.gradual, training.total)

    def due(self, step: int) -> bool:
        """Whether the mask changes after ``step`` steps."""
        between = self.first < step < self.last
        return step == self.last or (
            between and (step - self.first) % self.options.gradual.every == 0
        )

    def after_step(self, training: Training) -> None:
        """Prune, where it is time."""
        if not self.due(training.step):
            return
        set_training(training.module, False)
        scores = self.scores(training)
        set_training(training.module, training.plan.training_mode)
        ranking = replace(self.ranking, final=training.step == self.last)
        competing = compete(self.network, scores, ranking, training.mask)
        mask = pick(scores, self.shares(training.step), competing, ranking.seed, self.origin)
        training.hold(mask)
        self.changes.append({"step": float(training.step), "density": mask.density})

    def shares(self, step: int) -> Shares:
        """How many weights live after ``step`` steps."""
        done = progress(step, self.first, self.last, self.options.gradual.schedule)
        sizes = {layer.name: layer.size for layer in self.network.layers}
        others = sum(size for name, size in sizes.items() if name not in self.goal.own)
        own = {n: sizes[n] - round(done * (sizes[n] - end)) for n, end in self.goal.own.items()}
        return Shares(own, others - round(done * (others - self.goal.common)))

    def state(self) -> dict[str, Any]:
        """What was done so far."""
        return {**super().state(), "changes": self.changes}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        super().load(state)
        self.changes = state["changes"]


def _untrained_scores(
    model: Model, options: TicketOptions, context: Context, ledger: Ledger
) -> Scores:
    def probe() -> Probe:
        return Probe.of(model, options, context, ledger)

    weights, seed = model.program.state_dict, context.seed
    return score(options.criterion, weights, ledger.network, seed, probe)
