# SPDX-License-Identifier: Apache-2.0
"""From what the user named to what a run works on: model, data, judge."""

from __future__ import annotations

from collections.abc import Iterator

from edgeprune.context import Context
from edgeprune.data import Data, open_data
from edgeprune.errors import CheckFailed, EdgepruneError, ModelError
from edgeprune.evaluate import Judge, Runner
from edgeprune.job import DataSource, Job, Source
from edgeprune.model import Loaded, Model, Wanted, load, runner, watched
from edgeprune.model.archive import Opened, open_archive
from edgeprune.model.foreign import wanted_inputs
from edgeprune.model.kinds import Kind, recognise
from edgeprune.model.run import Arrays
from edgeprune.model.shapes import said_inputs
from edgeprune.model.store import described_inputs
from edgeprune.profiler.machine import describe
from edgeprune.progress import Progress
from edgeprune.quantize import Choice, candidates, check_halves
from edgeprune.tasks import endings

__all__ = ["choose_numerics", "load_model", "make_judge", "open_inputs", "require_float", "watch"]

_BATCH = 64


def open_inputs(
    source: Source, data: DataSource | None, seed: int, progress: Progress
) -> tuple[Loaded, Data | None]:
    """Open the data and load the model; each tells the other the shape of the inputs where it can.

    Raises:
        ModelError: The model can't be read or captured, or doesn't take the data's samples.
        DataError: The data can't be used.
    """
    recognise(source.path)  # before any data is read
    if data is None:
        return load_model(source, None), None
    program = _program(source)
    opened = open_data(
        data.name, seed=seed, limit=data.limit, wanted=_wanted(source, program), progress=progress
    )
    return load_model(source, opened, program), opened


def load_model(source: Source, data: Data | None, program: Opened | None = None) -> Loaded:
    """Load and capture a model; the data's samples tell its input shapes where nothing else does.

    ``program`` is what its file holds, where that was opened before.

    Raises:
        ModelError: It can't be read or captured, or doesn't take the data's samples.
    """
    return load(
        source.path,
        arch=source.arch,
        input_shapes=source.input_shapes,
        example=None if data is None else data.example(),
        axes=None if data is None else data.axes,
        trust_pickle=source.trust_pickle,
        state_key=source.state_key,
        allow_surplus=source.allow_surplus,
        opened=program,
    )


def require_float(model: Model, source: Source) -> None:
    """Refuse a model that was quantized before: its rounded numbers can't be worked on.

    Raises:
        ModelError: It is one.
    """
    if model.numerics != "fp32":
        raise ModelError(
            f"{source.path}: is quantized already ({model.numerics}); give the float model it was "
            "made from (`edgeprune export` and `inspect` take this one)"
        )


def choose_numerics(job: Job, dense: Model, data: Data | None) -> tuple[Choice, ...]:
    """What the model's numbers may be and why, best first.

    Raises:
        InputError: What was asked for isn't accepted by the target, can't be calibrated, or
            can't hold the model's weights.
        ConfigError: The target has no runtime for a format, or none that suits all formats.
    """
    found = candidates(
        dense,
        job.recipe.quantize,
        job.target,
        calibrated=data is not None,
        formats=job.recipe.export.formats,
    )
    if {choice.numerics for choice in found} == {"fp16"}:
        check_halves(dense, data)
    return found


def make_judge(dense: Model, context: Context, *, only_labels: bool = False) -> Judge | None:
    """What holds models against ``dense`` on the evaluation data; ``None`` without data.

    ``only_labels``: ``dense`` isn't trained, so the labels are all that is known of its outputs.

    It raises ModelError where ``dense`` answers NaN or infinity.
    """
    if context.data is None:
        return None
    run = watch(runner(dense, context.threads), dense, context.data, "the dense model", ModelError)
    return Judge(
        context.data,
        run,
        endings=endings(dense),
        only_labels=only_labels,
        where=describe(),
        progress=context.progress,
    )


def watch(
    run: Runner, model: Model, data: Data, subject: str, error: type[EdgepruneError] = CheckFailed
) -> Runner:
    """``run``, refusing answers to the evaluation data that aren't finite.

    Args:
        run: Runs ``model``, or an artifact of it, on a batch.
        model: Its outputs' names are told.
        data: What it will be run on.
        subject: What a message begins with.
        error: What is raised; it tells how many samples give NaN or infinity, in which output.
    """

    def samples() -> Iterator[Arrays]:
        for batch in data.evaluation(_BATCH):
            yield tuple(part.numpy() for part in batch.inputs)

    return watched(run, [o.name for o in model.outputs], samples, subject, error)


def _program(source: Source) -> Opened | None:
    """What a file holds that tells what its model takes, where the user doesn't."""
    if source.input_shapes is not None or recognise(source.path) is not Kind.PROGRAM:
        return None
    return open_archive(source.path, trusted=source.trust_pickle)


def _wanted(source: Source, opened: Opened | None) -> tuple[Wanted, ...]:
    """What the model takes, as far as the user or a program tells."""
    if source.input_shapes is not None:
        return said_inputs(source.input_shapes)
    if opened is None:
        return ()
    program, about = opened
    return described_inputs(about, source.path) if about else wanted_inputs(program)
