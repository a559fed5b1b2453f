# SPDX-License-Identifier: Apache-2.0
"""One training loop for all methods: dense or masked, with costs, checkpoints and a method's say.

A method that changes the mask, watches it or stops early is a ``During``; a method that only
chooses a mask beforehand needs none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.data import Batch, Data
from edgeprune.errors import DataError, InputError
from edgeprune.finetune import (
    Step,
    cosine_with_warmup,
    make_optimizer,
    read_state,
    with_state,
    write_state,
)
from edgeprune.finetune import train as run_steps
from edgeprune.finetune.checkpoint import deferred_interrupt, fetch, store
from edgeprune.finetune.loop import Score, Totals, evaluate
from edgeprune.finetune.loss import bind
from edgeprune.finetune.plan import Plan, make_plan
from edgeprune.mask import Held, Mask
from edgeprune.model import Event, Model, set_training
from edgeprune.model.state import State
from edgeprune.progress import Bar
from edgeprune.recipe import FinetuneOptions
from edgeprune.tasks import logits
from edgeprune.tickets.ledger import Ledger

__all__ = ["During", "Snapshot", "Training", "default_rate", "need_data"]

_CHECKPOINT_SECONDS = 30.0


class During:
    """What a method does while the network is trained; this one does nothing."""

    def begin(self, training: Training) -> None:
        """Before the first step, and again when a killed run goes on (after ``load``)."""

    def before_step(self, training: Training) -> None:
        """Before step number ``training.step``; ``training.held.watch`` may be set here."""

    def after_step(self, training: Training) -> None:
        """After it; ``training.step`` counts it already."""

    def after_epoch(self, training: Training) -> bool:
        """After each epoch, in eval mode; True stops the training here."""
        return False

    def penalty(self, module: nn.Module) -> Tensor | None:
        """Something to add to the loss."""
        return None

    def state(self) -> dict[str, Any]:
        """What ``load`` needs to go on: tensors, numbers, texts and containers of them."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""


@dataclass(frozen=True)
class Snapshot:
    """Weights and optimizer after ``step`` steps."""

    step: int
    state: State
    optimizer: dict[str, Any]


def default_rate(options: FinetuneOptions) -> FinetuneOptions:
    """``options`` with the rate for training from the start: 0.1 for SGD (He et al. 2016), 0.001
    for AdamW. Fine-tuning's own defaults are lower."""
    if options.learning_rate is not None:
        return options
    rate = 0.1 if options.optimizer == "sgd" else 0.001
    return options.model_copy(update={"learning_rate": rate})


def need_data(context: Context, method: str) -> Data:
    """The data of a run.

    Raises:
        DataError: There is none.
    """
    if context.data is None:
        raise DataError(f"{method} needs --data")
    return context.data


class Training:
    """A network under training: ``run()`` goes on to the end, ``run(until)`` to a step.

    ``step`` counts the updates of the weights; the learning rate, the order of the data, the
    augmentation and dropout depend on it and the seed alone. Setting it back rewinds the schedule.
    """

    def __init__(
        self,
        model: Model,
        options: FinetuneOptions,
        context: Context,
        ledger: Ledger,
        *,
        mask: Mask | None = None,
        during: During | None = None,
        title: str = "train",
    ) -> None:
        """Get ready; nothing is trained yet. A method that changes the mask begins with a full one.

        Raises:
            InputError: There is nothing to learn from, or the mask is for another network.
            DataError: There is no data, or it doesn't fit the model.
        """
        self.model, self.options, self.context = model, default_rate(options), context
        self.data = need_data(context, title)
        self.plan: Plan = make_plan(model, self.options, replace(context, dense=None), self.data)
        self.ledger, self.during, self.title = ledger, during or During(), title
        self.module = logits(model)
        self.optimizer = make_optimizer(self.module, self.options)
        self.schedule = cosine_with_warmup(self.plan.rate, max(1, self.total), self.options.warmup)
        self.held = None if mask is None else Held(self.module, self.optimizer, mask)
        self.step = 0
        self.stopped = False
        self.history: list[dict[str, float]] = []
        """An entry an epoch: mean training loss, its score in percent, the same of the held-out
        part of the training data (``holdout_...``) where there is one."""
        self._sums = Totals()
        loss = bind(self.plan.objective, None, self.plan.fixed, self.options.precision)
        self._loss = self._with_penalty(loss)

    @property
    def total(self) -> int:
        """Steps of a whole training."""
        return self.options.epochs * self.plan.steps

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self.plan.steps

    @property
    def mask(self) -> Mask | None:
        """The mask in force."""
        return None if self.held is None else self.held.mask

    def hold(self, mask: Mask) -> None:
        """Put a mask in force, in place of any other."""
        if self.held is not None and self.held.mask.shapes == mask.shapes:
            self.held.change(mask)
            return
        if self.held is not None:
            self.held.release()
        self.held = Held(self.module, self.optimizer, mask)

    def weights(self) -> dict[str, Tensor]:
        """The parameters by name: the very tensors, detached."""
        return {n: p.detach() for n, p in self.module.named_parameters(remove_duplicate=False)}

    def snapshot(self) -> Snapshot:
        """Copies of weights and optimizer as they are now."""
        optimizer = _copied(self.optimizer.state_dict())
        return Snapshot(self.step, read_state(self.module), optimizer)

    def rewind(self, snapshot: Snapshot) -> None:
        """Put weights, optimizer and schedule back; the mask stays in force."""
        write_state(self.module, snapshot.state)
        self.optimizer.load_state_dict(_copied(snapshot.optimizer))
        self.step, self.stopped, self._sums = snapshot.step, False, Totals()
        del self.history[snapshot.step // self.plan.steps :]
        if self.held is not None:
            self.held.enforce()

    def trained(self, event: Event) -> Model:
        """The model with the weights as they are now."""
        return with_state(self.model, read_state(self.module), event)

    def run(self, until: int | None = None, checkpoint: Path | None = None, key: str = "") -> None:
        """Train on, to step ``until`` (the end) or where the method stops.

        Args:
            until: Steps in all.
            checkpoint: Where to keep what a killed run needs to go on; taken up if it is there
                and ``key`` is the one it was written under.
            key: Of the run (``finetune.checkpoint.run_key``).

        Raises:
            InputError: The loss or a weight became NaN or infinite.
            OutputError: The checkpoint can't be written.
            KeyboardInterrupt: Ctrl-C, after the step under way and its checkpoint.
        """
        until = self.total if until is None else until
        if checkpoint is not None:
            self._take_up(checkpoint, key)
        self.during.begin(self)
        first = self.step
        bar = self.context.progress.bar(self.title, max(0, until))
        with deferred_interrupt() as interrupted, bar as shown, self.ledger.clock():
            shown.advance(first)
            guard = _Guard(self, shown, interrupted, checkpoint, key)
            if self._sums.samples and self.step % self.plan.steps == 0:
                self._close_epoch()  # killed between its last step and its end
            while self.step < until and not self.stopped:
                self._run_epoch(until, guard)
        set_training(self.module, False)
        if not all(bool(value.isfinite().all()) for value in self.weights().values()):
            raise self._diverged("a weight is no finite number")

    def _run_epoch(self, until: int, guard: _Guard) -> None:
        epoch, first = divmod(self.step, self.plan.steps)
        last = min(self.plan.steps, first + until - self.step)
        set_training(self.module, self.plan.training_mode)
        batches = self.data.train(
            self.plan.batch_size,
            seed=self.context.seed,
            epoch=epoch,
            first_step=first,
            augment=self.options.augment,
        )
        run_steps(
            self.module,
            self._numbered(islice(batches, last - first)),
            self._loss,
            self.optimizer,
            self.schedule,
            lambda step: self._after_step(step, guard),
            self.context.seed,
        )
        set_training(self.module, False)
        if self.step == (epoch + 1) * self.plan.steps:
            self._close_epoch()
            guard.save()

    def _numbered(self, batches: Iterator[Batch]) -> Iterator[tuple[int, Batch]]:
        for batch in batches:
            if self.stopped:
                return
            self.during.before_step(self)
            yield self.step, batch

    def _after_step(self, step: Step, guard: _Guard) -> None:
        self.step = step.done
        self._sums.add(step.score)
        grows = self.held is not None and self.held.watch
        self.ledger.step(step.score.samples, self.mask, dense_weights=grows)
        self.during.after_step(self)
        guard.after_step(self._sums)

    def _close_epoch(self) -> None:
        entry = {"epoch": float(self.epoch), **_figures("train", self._sums)}
        if self.plan.held_out:
            held = evaluate(
                self.module, self.data.holdout(self.plan.batch_size), self._loss, lambda: None
            )
            if not math.isfinite(held.mean_loss):
                raise self._diverged(f"the held-out loss is {held.mean_loss}")
            self.ledger.forward(held.samples, self.mask)
            entry |= _figures("holdout", held)
        self.history.append(entry)
        self._sums = Totals()
        self.stopped = self.during.after_epoch(self) or self.stopped

    def _diverged(self, what: str) -> InputError:
        return InputError(
            f"{self.title}: diverged: {what} after step {self.step}; set a lower learning rate, or "
            "a longer warmup"
        )

    def _with_penalty(self, loss: Callable[[nn.Module, Batch], Score]) -> Callable[..., Score]:
        def whole(module: nn.Module, batch: Batch) -> Score:
            score = loss(module, batch)
            extra = self.during.penalty(module) if torch.is_grad_enabled() else None
            return score if extra is None else replace(score, loss=score.loss + extra)

        return whole

    def _take_up(self, path: Path, key: str) -> None:
        found, why_not = fetch(path, key)
        if why_not:
            self.context.progress.say(f"> {why_not}")
        if found is None:
            return
        mask = found["mask"]
        if mask is not None and self.held is not None:
            self.hold(replace(self.held.mask, keep=mask))
        self.rewind(Snapshot(found["step"], found["state"], found["optimizer"]))
        self.history, self._sums = found["history"], Totals(**found["sums"])
        self.stopped = found["stopped"]
        self.ledger.load(found["ledger"])
        self.during.load(found["during"])
        self.context.progress.say(f"> {self.title}: taken up at step {self.step}")

    def content(self) -> dict[str, Any]:
        """All that a killed run needs to go on."""
        return {
            "step": self.step,
            "state": read_state(self.module),
            "optimizer": self.optimizer.state_dict(),
            "mask": None if self.mask is None else dict(self.mask.keep),
            "history": self.history,
            "sums": vars(self._sums),
            "stopped": self.stopped,
            "ledger": self.ledger.state(),
            "during": self.during.state(),
        }


@dataclass
class _Guard:
    """Progress, Ctrl-C and checkpoints of a run under way."""

    training: Training
    bar: Bar
    interrupted: Callable[[], bool]
    path: Path | None
    key: str
    saved: float = 0.0

    def __post_init__(self) -> None:
        self.saved = time.monotonic()

    def after_step(self, sums: Totals) -> None:
        figures = {} if math.isnan(sums.mean_loss) else {"loss": sums.mean_loss}
        if self.training.mask is not None:
            figures["density"] = self.training.mask.density
        self.bar.advance(1, **figures)
        if self.interrupted():
            self.save()
            raise KeyboardInterrupt
        if time.monotonic() - self.saved >= _CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        self.saved = time.monotonic()
        if self.path is not None:
            store(self.path, self.training.content(), self.key)


def _figures(part: str, totals: Totals) -> dict[str, float]:
    figures = {"loss": totals.mean_loss}
    if totals.percent is not None:
        figures["score"] = totals.percent
    return {f"{part}_{name}": value for name, value in figures.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
