# SPDX-License-Identifier: Apache-2.0
"""Early-bird tickets: the channels to keep settle early in training; from then on only they train.

You et al. 2020, Drawing Early-Bird Tickets, for channels with a batch norm, judged by its scale;
Chen et al. 2021, EarlyBERT, for attention heads and feed-forward neurons, judged by coefficients,
as are the layers of a convolutional network without batch norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.channels import Group, Groups, analyse, apply
from edgeprune.context import Context
from edgeprune.errors import InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import Network, Ticket, channel_mask, look
from edgeprune.model import Event, Model
from edgeprune.prune.criteria import batch_norm_weights
from edgeprune.tickets.early_bird_coefficients import Coefficients, readers, with_coefficients
from edgeprune.tickets.found import Found, Work, about
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.training import During, Training

__all__ = ["Judge", "Search", "find_early_bird", "judged_groups", "make_judge"]

Bools = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Judge:
    """What says which channels stay, decided before training."""

    groups: Groups
    scales: tuple[str, ...]
    """Batch norms' weights on the channels that they judge."""
    coefficients: Coefficients | None
    pools: tuple[tuple[Group, ...], ...]
    """Groups that are ranked together; those in none stay whole."""

    @property
    def judged(self) -> NDArray[np.int64]:
        """The channels that may go."""
        return np.concatenate([group.channels for pool in self.pools for group in pool])

    def penalty(self, module: nn.Module) -> Tensor:
        """The L1 norm of all that judges (Liu et al. 2017, Network Slimming)."""
        names = [*self.scales, *([self.coefficients.name] if self.coefficients else [])]
        return torch.stack([module.get_parameter(name).abs().sum() for name in names]).sum()

    def scores(self, weights: Mapping[str, Tensor]) -> Scores:
        """For each channel the summed |scale| of its batch norms, or its |coefficient|; NaN where
        nothing judges it.

        Channels that a residual addition ties have several norms and go from all their feature
        maps at once, so they count for all of them. By the mean they went first: a ResNet-20 on
        CIFAR-10 kept two channels of 16 in its first stage, one of 16 in its second.
        """
        total, judged = (np.zeros(self.groups.channels) for _ in range(2))
        for name in self.scales:
            label = self.groups.labels[name, 0]
            owned = label >= 0
            np.add.at(total, label[owned], weights[name].abs().double().numpy()[owned])
            judged[label[owned]] = 1
        if self.coefficients is not None:
            own = self.coefficients.channels
            total[own] = weights[self.coefficients.name].abs().double().numpy()
            judged[own] = 1
        return np.where(judged > 0, total, np.nan)

    def draw(self, weights: Mapping[str, Tensor], density: float) -> Bools:
        """Which channels stay: in each pool the best ``density`` of its channels, and of each group
        at least one, so that no layer is cut through."""
        scores = self.scores(weights)
        kept = ~self.groups.keep_all()
        for pool in self.pools:
            channels = np.concatenate([group.channels for group in pool])
            best = np.array([g.channels[np.argmax(scores[g.channels])] for g in pool])
            kept[channels] = False
            kept[best] = True
            rest = np.setdiff1d(channels, best)
            order = rest[np.argsort(-scores[rest], kind="stable")]
            kept[order[: max(round(density * channels.size) - best.size, 0)]] = True
        return kept


def make_judge(
    model: Model, network: Network, groups: Groups, options: TicketOptions
) -> tuple[Model, Judge, tuple[str, ...]]:
    """Decide what judges each group: batch norms where there are some, else coefficients.

    Without ``alloc`` all channels with batch norm are in one ranking (You et al. 2020), and
    coefficients are ranked layer by layer (one of the two ways of Chen et al. 2021; no layer loses
    all its heads). ``global`` is one ranking of all, ``uniform`` one a group.

    Returns:
        The network to train (with coefficients where there are any), the judge, and notes.

    Raises:
        InputError: No channel can be judged, or an option doesn't fit.
    """
    normed, plain, notes = judged_groups(model, network, groups, options)
    norms = batch_norm_weights(model)
    scales = tuple(sorted({n for g in normed for n, _ in g.members if n in norms}))
    coefficients = None
    if plain:
        model, coefficients = with_coefficients(model, network, groups, plain)
    pools = _pools(normed, plain, options.alloc)
    return model, Judge(groups, scales, coefficients, pools), notes


def judged_groups(
    model: Model, network: Network, groups: Groups, options: TicketOptions
) -> tuple[list[Group], list[Group], tuple[str, ...]]:
    """The groups that batch norms judge, those that take coefficients, and notes on the others.

    Raises:
        InputError: There are none, or an option doesn't fit.
    """
    _check(options)
    norms = batch_norm_weights(model)
    normed: list[Group] = []
    plain: list[Group] = []
    notes: list[str] = []
    for group in groups.groups:
        if any(fnmatchcase(name, p) for name, _ in group.members for p in options.exclude):
            notes.append(f"{group.name}: excluded, keeps all its {group.size} channels")
        elif any(name in norms for name, _ in group.members):
            normed.append(group)
        elif readers(network, groups, group):
            plain.append(group)
        else:
            notes.append(f"{group.name}: nothing judges its {group.size} channels: they all stay")
    if not normed and not plain:
        raise InputError(
            "early-bird: no channel of this model can be judged and go; "
            "`edgeprune inspect` says what is frozen, and why"
        )
    return normed, plain, tuple(notes)


def _check(options: TicketOptions) -> None:
    if options.alloc not in (None, "global", "uniform"):
        raise InputError(
            f"--alloc {options.alloc}: early-bird ranks channels, global or uniform in each group"
        )
    if options.pattern is not None:
        raise InputError(f"--pattern {options.pattern}: early-bird's masks are by whole channels")


def _pools(
    normed: list[Group], plain: list[Group], alloc: str | None
) -> tuple[tuple[Group, ...], ...]:
    if alloc == "global":
        return ((*normed, *plain),)
    alone = [*normed, *plain] if alloc == "uniform" else plain
    together = [tuple(normed)] if alloc is None and normed else []
    return (*together, *((group,) for group in alone))


@dataclass
class Search(During):
    """Draws a mask after each epoch and stops the training when they have settled.

    The distance is the share of judged channels on which two masks differ (You et al. 2020). The
    queue holds the last ``window`` masks; the ticket is found when it is full and the newest mask
    is nearer than ``threshold`` to every other one in it. That is what the authors' code does; in
    words they compare each mask with the one before, and want the last five of those distances to
    be small, which a steady drift passes.
    """

    judge: Judge
    options: TicketOptions
    queue: list[Bools] = field(default_factory=list)
    distances: list[list[float]] = field(default_factory=list)
    """After each epoch, from the newest mask to the older ones in the queue, oldest first."""
    found: bool = False

    def penalty(self, module: nn.Module) -> Tensor | None:
        """The L1 norm of what judges, weighted."""
        weight = self.options.early_bird.penalty
        return weight * self.judge.penalty(module) if weight else None

    def after_epoch(self, training: Training) -> bool:
        """Draw, compare, and say whether it is found."""
        kept = self.judge.draw(training.weights(), self.options.density)
        judged, settings = self.judge.judged, self.options.early_bird
        before = self.queue[-(settings.window - 1) :]
        apart = [float((kept ^ old)[judged].mean()) for old in before]
        self.queue = [*before, kept]
        self.distances.append(apart)
        full = len(self.queue) == settings.window
        self.found = full and max(apart) < settings.threshold
        return self.found

    def state(self) -> dict[str, Any]:
        """The queue, and what was seen so far."""
        queue = [torch.from_numpy(kept) for kept in self.queue]
        return {"queue": queue, "distances": self.distances, "found": self.found}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.queue = [kept.numpy() for kept in state["queue"]]
        self.distances, self.found = state["distances"], state["found"]


def find_early_bird(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Train until the channel masks have settled, cut the other channels out, train on to the end.

    The smaller network begins with the weights of the moment (inherited, not rewound: You et al.
    2020, section 4), takes the place of the larger one in the schedule of the learning rate and in
    the order of the data, and gets a fresh optimizer and no penalty (the authors' code keeps the
    penalty, to prune again; EarlyBERT goes back to the pretrained weights). The density is that of
    the judged channels, met as nearly as whole channels allow; widths aren't rounded to a target's
    multiple, since the ticket belongs to no target. A run that was killed goes on.

    Returns:
        ``ticket``: the mask by channels and the weights of the epoch that it was drawn in;
        ``trained``: the smaller network; ``details``: the epoch, the ``share`` of all steps that
        were spent on the search, and the distances after each epoch.

    Raises:
        InputError: No channel can be judged, an option doesn't fit, or the loss became NaN.
        DataError: There is no data, or it doesn't fit.
        KeyboardInterrupt: Ctrl-C, after the step under way and its checkpoint.
    """
    look(model, options.exclude)  # refuses patterns that fit nothing
    network, groups = look(model), analyse(model)
    trainee, judge, notes = make_judge(model, network, groups, options)
    ledger = Ledger(network)
    search = Search(judge, options)
    training = Training(
        trainee, options.train, context, ledger, during=search, title="early-bird: search"
    )
    training.run(checkpoint=work.path("search.pt"), key=f"{work.key}-search")
    kept = search.queue[-1] if search.queue else judge.draw(training.weights(), options.density)
    spent = {"search": ledger.sparse}
    drawn = _drawn(model, training, judge, options)
    small = apply(drawn, groups, ~kept, Event("prune", {}, {"channels": _widths(groups, kept)}))
    rest = _train_on(small, options, context, training, work)
    _add(ledger, rest.ledger)
    facts = {"epoch": training.epoch, "found": search.found}
    mask = channel_mask(groups, ~kept, about(model, options, context.seed, **facts))
    details = {
        **facts,
        "share": training.step / max(1, training.total),
        "distances": search.distances,
        "density": float(kept[judge.judged].mean()),
        "channels": _widths(groups, kept),
        "judged_by": _judged_by(judge),
        "epochs": [*training.history, *rest.history],
        "sparse_flops": {**spent, "after": rest.ledger.sparse},
    }
    trained = rest.trained(Event("ticket", options.model_dump(mode="json"), facts))
    return Found(
        Ticket(mask, read_state(drawn.module())),
        ledger,
        trained,
        details,
        (*training.plan.notes, *notes, *_notes(search, training)),
    )


def _drawn(model: Model, training: Training, judge: Judge, options: TicketOptions) -> Model:
    """The network as it was trained so far, without coefficients."""
    state: Mapping[str, Tensor] = read_state(training.module)
    if judge.coefficients is not None:
        state = judge.coefficients.folded(state)
    facts = {"steps": training.step}
    return with_state(model, state, Event("ticket", options.model_dump(mode="json"), facts))


def _train_on(
    small: Model, options: TicketOptions, context: Context, before: Training, work: Work
) -> Training:
    """Train the smaller network for the steps that are left."""
    title = "early-bird: train on"
    training = Training(small, options.train, context, Ledger(look(small)), title=title)
    training.rewind(replace(training.snapshot(), step=before.step))
    if training.step < training.total:
        training.run(checkpoint=work.path("train.pt"), key=f"{work.key}-train")
    return training


def _add(ledger: Ledger, other: Ledger) -> None:
    """Count the costs of ``other``, of a smaller network, too."""
    for name in ("dense", "sparse", "steps", "samples", "seconds"):
        setattr(ledger, name, getattr(ledger, name) + getattr(other, name))
    peaks = [p for p in (ledger.peak_bytes, other.peak_bytes) if p is not None]
    ledger.peak_bytes = max(peaks, default=None)


def _widths(groups: Groups, kept: Bools) -> dict[str, list[int]]:
    """Channels before and after, by group."""
    return {g.name: [g.size, int(kept[g.channels].sum())] for g in groups.groups}


def _judged_by(judge: Judge) -> dict[str, str]:
    own = judge.coefficients.channels if judge.coefficients else ()
    return {
        group.name: "coefficient" if group.channels[0] in own else "batch-norm scale"
        for pool in judge.pools
        for group in pool
    }


def _notes(search: Search, training: Training) -> tuple[str, ...]:
    window = search.options.early_bird.window
    if not search.found:
        why = f"epochs {training.epoch}, window {window}: " if training.epoch < window else ""
        return (
            f"the masks never settled ({why}no early-bird ticket): the last one was cut out after "
            "the whole training, and nothing was trained on",
        )
    share = training.step / training.total
    return (f"the ticket was drawn after epoch {training.epoch}, {share:.0%} of the training",)
