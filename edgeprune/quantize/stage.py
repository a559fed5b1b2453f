# SPDX-License-Identifier: Apache-2.0
"""The quantization stage: decide, calibrate or round, measure what each layer lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from edgeprune.context import Context
from edgeprune.data import Data
from edgeprune.errors import InputError
from edgeprune.figure import Figure, measured
from edgeprune.model import Event, Model, recapture
from edgeprune.profiler.machine import describe
from edgeprune.quantize.choose import Choice, decide, has_attention
from edgeprune.quantize.graphs import twin
from edgeprune.quantize.half import require_halves
from edgeprune.quantize.noise import LayerNoise, layer_noise
from edgeprune.quantize.simplify import plain
from edgeprune.quantize.weights import round_weights
from edgeprune.recipe import Numerics, QuantizeOptions
from edgeprune.report.schema import StageReport

__all__ = ["check_halves", "quantize"]

_BATCH = 16
"""Samples that are calibrated at once, and on which the layers' noise is measured."""


def quantize(
    model: Model, options: QuantizeOptions, context: Context, *, choice: Choice | None = None
) -> tuple[Model, StageReport]:
    """Give ``model`` the numerics that ``options`` and the target call for.

    ``int8`` models come back with quantize/dequantize nodes. The other reduced numerics come back
    as float graphs whose weights are rounded to the grid that the exporters store (batch norms
    folded before, so that they stay on it).

    Args:
        model: Float.
        options: ``numerics``, and ``samples`` to calibrate with.
        context: The target, and data whose calibration part is used.
        choice: What was decided of the numerics already; ``None``: it is decided here.

    Returns:
        The model, and a report: ``details["layers"]`` has a row a layer, the one that itself lost
        most first; ``details["int8_ops"]`` and ``details["float_ops"]`` count operators.

    Raises:
        InputError: The numerics don't suit the target, the data or (halves) the weights; the model
            is quantized already.
        InputError: The model makes values that aren't finite of the calibration data.
        ModelError: The model can't be brought to the form that static int8 needs.
    """
    start = perf_counter()
    if model.numerics != "fp32":
        raise InputError(f"quantize: the model is in {model.numerics} already; give the float one")
    choice = choice or decide(model, options, context.target, calibrated=context.data is not None)
    settings = options.model_dump(mode="json")
    if choice.numerics == "fp32":
        done = model.evolve(model.program, Event("quantize", settings, {"numerics": "fp32"}))
        return done, _report(start, choice, (), {})
    if choice.numerics == "int8":
        return _static(model, options, context, choice, start)
    return _rounded(model, options, context, choice, start)


def _static(
    model: Model, options: QuantizeOptions, context: Context, choice: Choice, start: float
) -> tuple[Model, StageReport]:
    from edgeprune.quantize.static import quantize_static  # takes a second to import

    assert context.data is not None  # or static int8 had not been chosen
    attention = has_attention(model.program.graph)
    size = model.fixed_batch or _BATCH
    batches = list(_batches(context.data, size, options.samples, model.dynamic_batch))
    if not batches:
        raise InputError(f"quantize: {context.data.name} gives no calibration samples")
    with context.progress.bar("calibrate", len(batches)) as bar:
        found = quantize_static(model, batches, float_adds=attention, bar=bar)
    facts = {"numerics": "int8", "samples": found.samples, "data": context.data.fingerprint}
    event = Event("quantize", options.model_dump(mode="json"), facts)
    result = recapture(model, found.module, event, "int8")
    details = {
        "int8_ops": found.int8_ops,
        "float_ops": found.float_ops,
        **_table(found.rows, min(size, found.samples)),
    }
    notes = (*_float_notes(found.float_ops, attention), *_slow_notes(found.int8_ops))
    figures = _figures(found.output_db, min(size, found.samples))
    return result, _report(start, choice, (*notes, *_worst(found.rows)), details, figures)


def _rounded(
    model: Model, options: QuantizeOptions, context: Context, choice: Choice, start: float
) -> tuple[Model, StageReport]:
    if choice.numerics == "fp16":
        check_halves(model, context.data)
    gm = model.module()
    plain(gm)
    reference = twin(gm)
    layers = round_weights(gm, choice.numerics)
    event = Event("quantize", options.model_dump(mode="json"), {"numerics": choice.numerics})
    result = recapture(model, gm, event, choice.numerics)
    details: dict[str, Any] = {"rounded_weights": len(layers)}
    notes = _weight_notes(choice.numerics, len(layers))
    if context.data is None:
        notes = (*notes, "no data: what each layer lost was not measured")
        return result, _report(start, choice, notes, details)
    size, batch = _first(model, context.data)
    with context.progress.bar("compare layers", 1) as bar:
        rows, output = layer_noise(reference, gm, layers, batch)
        bar.advance()
    details |= _table(rows, size)
    return result, _report(start, choice, (*notes, *_worst(rows)), details, _figures(output, size))


def check_halves(model: Model, data: Data | None) -> None:
    """Refuse a float model that half precision can't hold: see ``require_halves``.

    Raises:
        InputError: A weight is too large, or weights that matter are too small.
    """
    require_halves(model, None if data is None else _first(model, data)[1])


def _first(model: Model, data: Data) -> tuple[int, tuple[Tensor, ...]]:
    """How many samples one batch has, and the first batch of calibration."""
    size = model.fixed_batch or _BATCH
    return size, next(_batches(data, size, size, model.dynamic_batch))


def _batches(data: Data, size: int, samples: int, dynamic: bool) -> Iterator[tuple[Tensor, ...]]:
    """Calibration inputs; where the model's batch is fixed, repeats fill up the last one."""
    for batch in data.calibration(size, samples):
        count = len(batch)
        if dynamic or count == size:
            yield batch.inputs
        else:
            yield batch.take(torch.arange(size) % count).inputs


def _table(rows: tuple[LayerNoise, ...], samples: int) -> dict[str, Any]:
    how = f"signal to quantization noise on {samples} calibration samples, in dB"
    return {"layers": [row.row() for row in rows], "layers_how": how}


def _figures(output_db: float | None, samples: int) -> dict[str, Figure]:
    if output_db is None:
        return {}
    how = "signal to noise of the worst output against the float model, calibration samples"
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"sqnr": measured(output_db, "dB", how, where=describe(), when=when, runs=samples)}


def _report(
    start: float,
    choice: Choice,
    notes: tuple[str, ...],
    details: dict[str, Any],
    figures: dict[str, Figure] | None = None,
) -> StageReport:
    return StageReport(
        stage="quantize",
        seconds=perf_counter() - start,
        figures=figures or {},
        notes=(f"{choice.numerics}: {choice.reason}", *notes),
        details={"numerics": choice.numerics, "reason": choice.reason, **details},
    )


def _worst(rows: tuple[LayerNoise, ...]) -> tuple[str, ...]:
    if not rows or rows[0].own_db is None:
        return ()
    return (f"{rows[0].layer} loses most: {rows[0].own_db:.1f} dB of signal to noise by itself",)


def _float_notes(float_ops: dict[str, int], attention: bool) -> tuple[str, ...]:
    """Which operators stay float, and why."""
    rest = dict(float_ops)
    notes = []
    if attention and (adds := rest.pop("add", 0) + rest.pop("sub", 0)):
        notes.append(f"{adds} additions stay float: in a transformer they cost 4 to 6 dB in int8")
    up = [name for name in rest if name.startswith("conv_transpose")]
    if up:
        count = sum(rest.pop(name) for name in up)
        notes.append(f"{count} transposed convolutions run in float; their weights are int8")
    if rest:
        listing = ", ".join(f"{count} {name}" for name, count in sorted(rest.items()))
        notes.append(f"stay float, for want of an int8 kernel or an int8 input: {listing}")
    return tuple(notes)


def _slow_notes(int8_ops: dict[str, int]) -> tuple[str, ...]:
    count = int8_ops.get("hardswish", 0)
    if not count:
        return ()
    return (
        f"{count} hard-swish operators: on x86, int8 networks with them were slower than float "
        "ones; compare with --numerics fp32, or train the model with ReLU6 in their place",
    )


def _weight_notes(numerics: Numerics, count: int) -> tuple[str, ...]:
    if numerics == "int8-dynamic":
        return (
            f"{count} weights in int8; the rounding of activations, which the runtime does, shows "
            "in the artifacts' figures only",
        )
    if numerics == "fp16":
        return ("parameters in half precision; a runtime that computes in it rounds more",)
    return (f"{count} weights in int8, computed with in float",)
