# SPDX-License-Identifier: Apache-2.0
"""The fine-tuning stage: plan, train epoch by epoch with checkpoints, put the weights back."""

import time
from datetime import UTC, datetime

from edgeprune.context import Context
from edgeprune.evaluate import wilson_interval
from edgeprune.figure import Figure, measured
from edgeprune.finetune.checkpoint import run_key
from edgeprune.finetune.plan import make_plan, nothing_to_do
from edgeprune.finetune.run import Run
from edgeprune.model import Event, Model
from edgeprune.model.state import State, read_state, with_state
from edgeprune.profiler.machine import describe
from edgeprune.recipe import FinetuneOptions
from edgeprune.report.schema import StageReport

__all__ = ["finetune"]


def finetune(model: Model, options: FinetuneOptions, context: Context) -> tuple[Model, StageReport]:
    """Train the model on labels, the dense model's outputs, or both.

    The loss, as decided by the outputs and the data (``tasks``), is named in the report's notes.
    After each epoch the held-out part of the training data is measured; evaluation data is never
    touched. What ``context.mask`` masks is zero throughout. With ``patience`` the weights of the
    epoch with the lowest held-out loss are kept, otherwise the last; those from before where the
    held-out loss was lower then. A run that was killed goes on
    from ``checkpoint.pt`` in ``context.folder`` and ends with the same weights, bit for bit, on the
    same machine with as many threads.

    Args:
        model: Float, on the CPU. It isn't changed.
        options: Of the training loop.
        context: ``data`` and ``dense`` (the teacher) are used, ``folder`` for the checkpoint;
            ``threads`` only names the run, the caller sets it.

    Returns:
        The model with its trained weights, and the report: ``details["epochs"]`` has one entry an
        epoch (losses are means over samples, scores in percent; epoch 0 is the model as given).

    Raises:
        InputError: A quantized model, nothing to learn from, or the loss became NaN or infinite.
        DataError: The data doesn't fit the model.
        OutputError: The checkpoint can't be written.
        KeyboardInterrupt: Ctrl-C, after the step under way and its checkpoint.
    """
    started = time.monotonic()
    data = context.data
    reason = nothing_to_do(options, data)
    if reason is not None or data is None:
        seconds = time.monotonic() - started
        return model, StageReport(stage="finetune", seconds=seconds, notes=(str(reason),))
    plan = make_plan(model, options, context, data)
    run = Run(model, plan, options, context, data, _key(model, options, context, data.fingerprint))
    note = run.resume()
    run.train()
    kept, state = _kept(run)
    facts = {"loss": plan.objective.text, "epochs": len(run.done.history) - 1, "kept_epoch": kept}
    event = Event("finetune", options.model_dump(mode="json"), {**facts, "seed": context.seed})
    trained = with_state(model, state, event)
    return trained, _report(run, kept, (*plan.notes, *_held(context), *note))


def _kept(run: Run) -> tuple[int, State]:
    """The epoch whose weights are kept, 0 for those at the start, and the weights."""
    best, history = run.done.best, run.done.history
    kept = best.epoch if best else run.options.epochs
    if _loss(history[kept]) > _loss(history[0]):
        return 0, run.start
    return kept, best.state if best else read_state(run.module)


def _loss(entry: dict[str, float]) -> float:
    """On the held-out part; 0 without one, which tells nothing."""
    return entry.get("holdout_loss", 0.0)


def _key(model: Model, options: FinetuneOptions, context: Context, data: str) -> str:
    """What decides every bit of the result; a checkpoint of anything else is not ours."""
    return run_key(
        model=model.fingerprint(),
        teacher=context.dense and context.dense.fingerprint(),
        options=options.model_dump(mode="json"),
        data=data,
        seed=context.seed,
        threads=context.threads,
        mask=None if context.mask is None else context.mask.digest(),
    )


def _held(context: Context) -> tuple[str, ...]:
    mask = context.mask
    return () if mask is None else (f"{mask.size - mask.kept} masked weights stayed zero",)


def _report(run: Run, kept: int, notes: tuple[str, ...]) -> StageReport:
    history, plan = run.done.history, run.plan
    trained = len(history) - 1
    if trained < run.options.epochs:
        text = f"stopped after epoch {trained} of {run.options.epochs}: no better held-out loss"
        notes = (*notes, text)
    last = run.done.best.epoch if run.done.best else trained
    if kept < last:
        text = (
            f"kept the weights from before: the held-out loss was {_loss(history[0]):.4g}, and "
            f"{_loss(history[last]):.4g} after epoch {last}; a lower learning rate may do better"
        )
        notes = (*notes, text)
    elif run.options.patience is not None:
        notes = (*notes, f"kept the weights of epoch {kept}, the best held-out loss")
    return StageReport(
        stage="finetune",
        seconds=run.done.seconds,
        figures=_figures(history[kept], plan.objective.metric),
        notes=notes,
        details={
            "loss": plan.objective.text,
            "metric": plan.objective.metric,
            "batch_size": plan.batch_size,
            "steps": run.done.step,
            "learning_rate": plan.rate,
            "kept_epoch": kept,
            "epochs": history,
        },
    )


def _figures(entry: dict[str, float], metric: str | None) -> dict[str, Figure]:
    """The kept epoch's figures; those of all epochs stand in ``details``."""
    where, when = describe(), datetime.now(UTC).isoformat(timespec="seconds")
    how = {
        "train_loss": "mean over the training samples of the epoch, each batch before its own step",
        "holdout_loss": "mean over the held-out part of the training data, in eval mode",
        "holdout_score": f"{metric} on the held-out part of the training data",
    }
    figures = {}
    for name in sorted(how.keys() & entry.keys()):
        value, samples = entry[name], int(entry[f"{name.split('_')[0]}_samples"])
        low = high = None
        if name == "holdout_score":
            low, high = (100 * bound for bound in wilson_interval(value / 100, samples))
        figures[name] = measured(
            value,
            "%" if name == "holdout_score" else "loss",
            how[name],
            where=where,
            when=when,
            runs=samples,
            low=low,
            high=high,
        )
    return figures
