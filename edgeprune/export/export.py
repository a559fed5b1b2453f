# SPDX-License-Identifier: Apache-2.0
"""The stage: write each artifact, run it at once, let it stand only if it does its model's job."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from edgeprune.context import Context
from edgeprune.errors import CheckFailed, InputError, MissingExtra, OutputError
from edgeprune.export.check import Expected, check, expect, worse
from edgeprune.export.compat import OLDEST_RUNTIME, oldest_runtime_blockers
from edgeprune.export.counts import Counts
from edgeprune.export.feed import evaluation_batches, random_batches
from edgeprune.export.locate import Refused, Unlike, locate
from edgeprune.export.names import is_image
from edgeprune.export.onnx import write_onnx
from edgeprune.export.refusals import refuse
from edgeprune.export.tflite import write_tflite
from edgeprune.model import Model
from edgeprune.profiler.runtime import Session, TensorSpec, open_session
from edgeprune.recipe import ExportOptions, Format
from edgeprune.report.schema import Artifact, Check, Missing, StageReport, TensorInfo
from edgeprune.target import Runtime

__all__ = ["export"]

_Source = Literal["evaluation data", "random"]


def export(
    model: Model, options: ExportOptions, context: Context, reference: Model | None = None
) -> tuple[Model, StageReport]:
    """Write ``model.onnx`` and ``model.tflite`` into ``context.folder``, as far as asked for.

    Each is written under another name, run in onnxruntime or ai-edge-litert on evaluation data
    (made-up inputs where there is none), held against ``model``, and only then renamed.

    Args:
        model: Any numerics.
        options: Formats, batch and samples.
        context: The target, the folder, the data, and the dense model where there is one.
        reference: The float model that a quantized ``model`` was made from: its files are held
            against it too.

    Returns:
        The model, as it is, and a report with one artifact a file; a file that its converter
        refused, that doesn't do what ``model`` does, or that is far worse than the other one, is in
        ``missing`` while another passes.

    Raises:
        CheckFailed: No artifact does what ``model`` and ``reference`` do; their files are removed.
        ModelError: The float model gives NaN or infinity.
        InputError: The converters refuse the model.
        ConfigError: The target has no runtime for a format that was asked for.
    """
    start = time.monotonic()
    formats = options.formats or context.target.formats
    runtimes = {form: context.target.runtime(form) for form in formats}
    source: _Source = "random" if context.data is None else "evaluation data"
    batches = (
        random_batches(model, options.samples, context.seed)
        if context.data is None
        else evaluation_batches(context.data, options.samples)
    )
    expected = expect(
        model,
        batches,
        source,
        reference=reference,
        dense=context.dense,
        threads=context.threads,
    )
    job = _Job(model, options, context, expected)
    made, missing = _artifacts(job, runtimes)
    report = StageReport(
        stage="export",
        seconds=time.monotonic() - start,
        details={artifact.file: _details(counts) for artifact, counts in made},
        artifacts=tuple(artifact for artifact, _ in made),
        missing=missing,
    )
    return model, report


@dataclass(frozen=True)
class _Job:
    model: Model
    options: ExportOptions
    context: Context
    expected: Expected


def _artifacts(
    job: _Job, runtimes: dict[Format, Runtime]
) -> tuple[list[tuple[Artifact, Counts]], tuple[Missing, ...]]:
    """The artifacts that pass, and why the others don't.

    Raises:
        CheckFailed, InputError: None passes.
    """
    made: list[tuple[Artifact, Counts]] = []
    errors: dict[Format, CheckFailed | InputError] = {}
    for form, runtime in runtimes.items():
        try:
            made.append(_artifact(job, form, runtime))
        except (OutputError, MissingExtra):  # of this machine, not of the model
            raise
        except (CheckFailed, InputError) as error:
            errors[form] = _located(job, form, runtimes, error)
    found = worse({artifact.file: artifact.check for artifact, _ in made}, job.model.numerics)
    if found is not None:
        (artifact,) = (artifact for artifact, _ in made if artifact.file == found[0])
        made = [pair for pair in made if pair[0] is not artifact]
        errors[artifact.format] = _located(job, artifact.format, runtimes, found[1])
        (job.context.folder / artifact.file).unlink()
    if errors and not made:
        first, *others = errors.values()
        first.args = ("; ".join(map(str, (first, *others))),)
        raise first
    return made, tuple(_missing(job, form, error) for form, error in errors.items())


def _located(
    job: _Job, form: Format, runtimes: dict[Format, Runtime], error: CheckFailed | InputError
) -> CheckFailed | InputError:
    """``error``, saying at which operator it begins, where that can be found."""
    if isinstance(error, Refused | Unlike):
        job.context.progress.say(f"export: looking for the operator that model.{form} fails at")
        write = partial(_WRITE[form], job, runtimes[form])
        where = locate(job.model, form, write, error, job.expected.batches[0])
        if where is not None:
            error.args = (f"{error}; it begins at {where}",)
    return error


def _missing(job: _Job, form: Format, error: Exception) -> Missing:
    file = f"model.{form}"
    reason = str(error).removeprefix(f"{file}: ")
    return Missing(format=form, file=file, numerics=job.model.numerics, reason=reason)


def _artifact(job: _Job, form: Format, runtime: Runtime) -> tuple[Artifact, Counts]:
    final = job.context.folder / f"model.{form}"
    unchecked = job.context.folder / f"unchecked.{form}"
    say = job.context.progress.say
    refuse(job.model, form)
    try:
        say(f"export: writing {final.name}")
        notes = _WRITE[form](job, runtime, job.model, unchecked)
        say(f"export: holding {final.name} against its model")
        figures, counts = check(
            unchecked,
            job.model,
            job.expected,
            name=final.name,
            threads=job.context.threads,
        )
        session = open_session(unchecked, job.context.threads)
        notes = (*notes, *_notes(job, session, counts, runtime))
        artifact = _describe(job, unchecked, final.name, session, runtime, figures, notes)
        unchecked.replace(final)
    finally:
        unchecked.unlink(missing_ok=True)
    return artifact, counts


def _write_onnx(job: _Job, runtime: Runtime, model: Model, path: Path) -> tuple[str, ...]:
    target = job.context.target
    write_onnx(
        model,
        path,
        opset=target.opset,
        batch=job.options.batch,
        activations=target.onnx_activations,
    )
    return ()


def _write_tflite(job: _Job, runtime: Runtime, model: Model, path: Path) -> tuple[str, ...]:
    batch = 1 if job.options.batch == "dynamic" else job.options.batch
    old = runtime.name == OLDEST_RUNTIME
    notes = write_tflite(model, path, batch=batch, per_channel=not old)
    if old and model.numerics == "int8-dynamic":
        notes = (*notes, "linear weights have one scale a tensor, as tflite-runtime 2.14 needs")
    return (*notes, *oldest_runtime_blockers(path))


_WRITE = {"onnx": _write_onnx, "tflite": _write_tflite}


def _notes(job: _Job, session: Session, counts: Counts, runtime: Runtime) -> tuple[str, ...]:
    notes = [f"checked with {session.runtime}"]
    numerics = job.model.numerics
    if numerics != "fp32" and "float" not in job.expected.outputs:
        notes.append("held against its own model only, not against the float one before it")
    if numerics not in runtime.numerics:
        allowed = ", ".join(runtime.numerics)
        notes.append(f"{numerics}, though {runtime.name} on this target takes {allowed}")
    own = job.model.fixed_batch
    if own is not None and job.options.batch != own:
        notes.append(f"takes batches of {own}, which its model fixes, not of {job.options.batch}")
    for entry, info in zip(job.model.inputs, _inputs(job, session), strict=True):
        if info.layout == "NHWC":
            notes.append(f"input {info.name} is NHWC; the model's own is NCHW")
        wanted = str(entry.dtype).removeprefix("torch.")
        if info.dtype != wanted:
            notes.append(f"input {info.name} is {info.dtype}; the model's own is {wanted}")
    floats = counts.float_products()
    if numerics == "int8" and floats:
        notes.append(f"compute in float: {', '.join(floats)}")
    return tuple(notes)


def _describe(
    job: _Job,
    path: Path,
    file: str,
    session: Session,
    runtime: Runtime,
    figures: Check,
    notes: tuple[str, ...],
) -> Artifact:
    content = path.read_bytes()
    return Artifact(
        format="onnx" if session.format == "onnx" else "tflite",
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        numerics=job.model.numerics,
        runtime=f"{runtime.name} {runtime.version}",
        inputs=_inputs(job, session),
        outputs=tuple(
            _info(spec, "NCHW" if _is_map(spec) else "other") for spec in session.outputs
        ),
        check=figures,
        notes=notes,
    )


def _inputs(job: _Job, session: Session) -> tuple[TensorInfo, ...]:
    image: Literal["NCHW", "NHWC"] = "NHWC" if session.format == "tflite" else "NCHW"
    return tuple(
        _info(spec, image if is_image(entry) else "other")
        for spec, entry in zip(session.inputs, job.model.inputs, strict=True)
    )


def _is_map(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.dtype.startswith("float")


def _info(spec: TensorSpec, layout: Literal["NCHW", "NHWC", "other"]) -> TensorInfo:
    return TensorInfo(name=spec.name, shape=spec.shape, dtype=spec.dtype, layout=layout)


def _details(counts: Counts) -> dict[str, object]:
    return {
        "int8": counts.int8,
        "dynamic": counts.dynamic,
        "float": counts.floating,
        "products": len(counts.products),
        "products in float": list(counts.float_products()),
    }
