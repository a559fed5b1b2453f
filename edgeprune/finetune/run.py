# SPDX-License-Identifier: Apache-2.0
"""A run under way: epochs, held-out figures, checkpoints."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice

from edgeprune.context import Context
from edgeprune.data import Batch, Data
from edgeprune.errors import InputError
from edgeprune.finetune import checkpoint as checkpoints
from edgeprune.finetune.checkpoint import Best, Checkpoint, deferred_interrupt
from edgeprune.finetune.loop import Step, Totals, evaluate, train
from edgeprune.finetune.loss import bind
from edgeprune.finetune.optimise import cosine_with_warmup, make_optimizer
from edgeprune.finetune.plan import Plan
from edgeprune.mask import Held
from edgeprune.model import Model, set_training
from edgeprune.model.state import read_state, write_state
from edgeprune.progress import Bar
from edgeprune.recipe import FinetuneOptions
from edgeprune.tasks import logits

__all__ = ["CHECKPOINT_SECONDS", "Run"]

CHECKPOINT_SECONDS = 30.0
"""A checkpoint is written after so long within an epoch, and at each epoch's end."""


class Run:
    """A module, its optimizer, and how far they have come.

    ``done.history`` has an entry per closed epoch; entry 0 is the model as it was given. Where to
    go on after a kill follows from it and ``done.step`` alone.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        options: FinetuneOptions,
        context: Context,
        data: Data,
        key: str,
    ) -> None:
        self.plan, self.options, self.key = plan, options, key
        self.context, self.data = context, data
        self.path = context.folder / "checkpoint.pt"
        self.module = logits(model)
        self.optimizer = make_optimizer(self.module, options)
        if context.mask is not None:
            Held(self.module, self.optimizer, context.mask)
        self.start = read_state(self.module)
        """The weights before any step."""
        teacher = None
        if plan.objective.distill and context.dense:
            teacher = logits(context.dense).requires_grad_(False)
        self.loss = bind(plan.objective, teacher, plan.fixed, options.precision)
        self.schedule = cosine_with_warmup(plan.rate, options.epochs * plan.steps, options.warmup)
        self.done = Checkpoint(state={}, optimizer={})
        self.started = self.saved = time.monotonic()

    def resume(self) -> tuple[str, ...]:
        """Take up the checkpoint in the stage's folder if it is this run's.

        That is shown, and isn't in the report, which is the same as that of an undisturbed run; a
        note says why another one is left aside.
        """
        found, why_not = checkpoints.load(self.path, self.key)
        if found is None:
            return (why_not,) if why_not else ()
        write_state(self.module, found.state)
        self.optimizer.load_state_dict(found.optimizer)
        self.done = found
        self.started -= found.seconds
        self.context.progress.say(f"went on from the checkpoint of step {found.step}")
        return ()

    def train(self) -> None:
        """Train to the end, or until patience runs out.

        Raises:
            InputError: The loss became NaN or infinite.
            KeyboardInterrupt: Ctrl-C, after the step under way and its checkpoint.
        """
        total = self.options.epochs * self.plan.steps
        progress = self.context.progress.bar("fine-tune", total)
        with deferred_interrupt() as interrupted, progress as bar:
            bar.advance(self.done.step)
            while not self._finished():
                set_training(self.module, self.plan.training_mode)
                train(
                    self.module,
                    self._batches(),
                    self.loss,
                    self.optimizer,
                    self.schedule,
                    lambda step: self._after_step(step, bar, interrupted),
                    self.context.seed,
                )
                set_training(self.module, False)
                self._close_epoch(interrupted)
                self._save()

    def _finished(self) -> bool:
        epoch = len(self.done.history) - 1
        best, patience = self.done.best, self.options.patience
        waited = patience is not None and best is not None and epoch - best.epoch >= patience
        return waited or epoch >= self.options.epochs

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """The rest of the epoch under way; none where its steps are done, or before epoch 1."""
        epoch = len(self.done.history) - 1
        first = self.done.step - epoch * self.plan.steps
        if epoch < 0 or first == self.plan.steps:
            return iter(())
        batches = self.data.train(
            self.plan.batch_size,
            seed=self.context.seed,
            epoch=epoch,
            first_step=first,
            augment=self.options.augment,
        )
        return enumerate(islice(batches, self.plan.steps - first), self.done.step)

    def _after_step(self, step: Step, bar: Bar, interrupted: Callable[[], bool]) -> None:
        self.done.step = step.done
        self.done.sums.add(step.score)
        sums, metric = self.done.sums, self.plan.objective.metric
        figures = {"loss": sums.mean_loss}
        if metric is not None and sums.percent is not None:
            figures[metric.split()[0]] = sums.percent
        bar.advance(1, **figures)
        self._stop_if(interrupted)
        if time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self._save()

    def _close_epoch(self, interrupted: Callable[[], bool]) -> None:
        """Measure the held-out part and add the epoch to the history."""
        epoch = len(self.done.history)
        entry: dict[str, float] = {"epoch": epoch}
        if epoch:
            entry["learning_rate"] = self.schedule(self.done.step - 1)
            entry |= _figures("train", self.done.sums)
        if self.plan.held_out:
            batches = self.data.holdout(self.plan.batch_size)
            held = evaluate(self.module, batches, self.loss, lambda: self._stop_if(interrupted))
            if not math.isfinite(held.mean_loss):
                raise InputError(
                    f"fine-tuning diverged: the held-out loss is {held.mean_loss} after epoch "
                    f"{epoch}; set a lower learning_rate or a longer warmup"
                )
            entry |= _figures("holdout", held)
            self._keep_best(epoch, held.mean_loss)
        self.done.history.append(entry)
        self.done.sums = Totals()

    def _keep_best(self, epoch: int, loss: float) -> None:
        best = self.done.best
        if self.options.patience is not None and epoch and (best is None or loss < best.loss):
            self.done.best = Best(epoch, loss, read_state(self.module))

    def _stop_if(self, interrupted: Callable[[], bool]) -> None:
        if interrupted():
            self._save()
            raise KeyboardInterrupt

    def _save(self) -> None:
        self.done.state = read_state(self.module)
        self.done.optimizer = self.optimizer.state_dict()
        self.saved = time.monotonic()
        self.done.seconds = self.saved - self.started
        checkpoints.save(self.path, self.done, self.key)


def _figures(part: str, totals: Totals) -> dict[str, float]:
    figures = {"loss": totals.mean_loss, "samples": totals.samples}
    if totals.percent is not None:
        figures["score"] = totals.percent
    return {f"{part}_{name}": value for name, value in figures.items()}
