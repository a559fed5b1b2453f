# SPDX-License-Identifier: Apache-2.0
"""Hold an artifact against the model that it was made from.

Both are run on the same batches. The figures are over all samples and outputs; the limits are kept
by each output on its own, so that a large one can't hide a small one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune.errors import CheckFailed
from edgeprune.export.counts import Counts, op_counts
from edgeprune.export.feed import artifact_runner
from edgeprune.model import Model, runner
from edgeprune.recipe import Numerics
from edgeprune.report.schema import Check

__all__ = ["LIMITS", "Limit", "check", "compare", "judge_integers"]

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Limit:
    """What an output must keep."""

    sqnr_db: float
    """Float outputs: signal to noise."""
    agreement: float
    """Integer outputs: share of equal elements."""
    max_relative_error: float | None = None
    """Float outputs: largest error over the largest magnitude."""


# Figures of CNNs of 5 and 12 layers, ResNet-8, a trained ResNet-20, a ViT and a BERT, in both
# runtimes.
LIMITS: dict[Numerics, Limit] = {
    # Only the order of sums differs: 125 to 142 dB, 1e-6 of the largest magnitude.
    "fp32": Limit(60.0, 0.99, 1e-3),
    # The model has rounded weights already: above 125 dB where activations are float, 66 to 94
    # where they are halves too.
    "fp16": Limit(40.0, 0.98),
    # Runtimes round half steps otherwise than torch, and each flip runs on through the network: 31
    # to 60 dB for CNNs and BERT; 20 for an untrained ViT in XNNPACK, whose class token is one step
    # large, while LiteRT's own kernels give 27. Garbage gives below 10.
    "int8": Limit(15.0, 0.90),
    # The model has rounded weights and float activations, so this is the whole loss of rounding
    # activations at run time: 38 to 56 dB, with one scale a tensor 37 to 50. Garbage: 0 to 2.
    "int8-dynamic": Limit(25.0, 0.90),
    # Weights lie on the stored grid: above 125 dB; 42 to 50 where onnxruntime itself stores float
    # scales in blocks, 45 where a weight was not rounded before.
    "int8-weights": Limit(35.0, 0.95),
}
_MOVES = 0.05
"""Share of an output's magnitude by which it must vary over samples to be asked to vary at all."""
_STANDS_STILL = 0.01
"""Share of the model's variation below which an artifact's output counts as constant."""


def check(
    path: Path,
    model: Model,
    batches: Sequence[Arrays],
    *,
    inputs: Literal["evaluation data", "random"],
    name: str,
    threads: int = 1,
) -> tuple[Check, Counts]:
    """Run the artifact at ``path`` and its model on ``batches`` and compare them.

    Args:
        path: The file.
        model: What it was written from; its numerics choose the limits.
        batches: The model's inputs, samples at index 0.
        inputs: Where they come from.
        name: What messages call the file.
        threads: For both.

    Raises:
        CheckFailed: It differs by more than ``LIMITS`` allow, gives NaN or infinity where the
            model doesn't, or the same for all samples; or most of an int8 model computes in float.
        InputError: The runtime refuses the file.
    """
    counts = op_counts(path, threads)
    if model.numerics == "int8":
        judge_integers(counts, name)
    figures = compare(
        runner(model, threads),
        artifact_runner(path, model, threads),
        batches,
        LIMITS[model.numerics],
        name,
    )
    return (
        Check(
            inputs=inputs,
            int8_ops=counts.int8,
            float_ops=counts.floating,
            op_counts=counts.kinds,
            **figures,
        ),
        counts,
    )


def judge_integers(counts: Counts, name: str) -> None:
    """Refuse an int8 artifact most of whose convolutions and products compute in float.

    Raises:
        CheckFailed: It is one; the first of them are named.
    """
    floats = counts.float_products()
    if 2 * len(floats) > len(counts.products):
        raise CheckFailed(
            f"{name}: {len(floats)} of {len(counts.products)} convolutions and matrix products "
            f"compute in float, though the model is int8: {', '.join(floats[:3])} ...; "
            "choose other --numerics that the target takes (`edgeprune targets show`)"
        )


def compare(
    model: Run, artifact: Run, batches: Sequence[Arrays], limit: Limit, name: str
) -> dict[str, Any]:
    """The figures of :class:`Check` that are measured.

    Raises:
        CheckFailed: A limit is not kept; the message has the output, the figure and the limit.
    """
    wanted = _run(model, batches)
    got = _run(artifact, batches)
    if len(wanted) != len(got):
        raise CheckFailed(f"{name}: {len(got)} outputs where its model has {len(wanted)}")
    outputs = [
        _output(w, g, f"{name}, output {place}" if len(wanted) > 1 else name)
        for place, (w, g) in enumerate(zip(wanted, got, strict=True))
    ]
    for output in outputs:
        _judge(output, limit)
    ratios = [output.sqnr_db for output in outputs if output.sqnr_db is not None]
    elements = sum(output.error.size for output in outputs)
    return {
        "samples": sum(len(batch[0]) for batch in batches),
        "max_abs_error": max(float(o.error.max(initial=0.0)) for o in outputs),
        "mean_abs_error": sum(float(o.error.sum()) for o in outputs) / max(elements, 1),
        "sqnr_db": min(ratios) if ratios else None,
        "top1_agreement": _top1(wanted, got),
    }


@dataclass(frozen=True)
class _Output:
    label: str
    wanted: Array
    got: Array
    error: Array
    floating: bool
    sqnr_db: float | None


def _run(run: Run, batches: Sequence[Arrays]) -> list[Array]:
    columns = zip(*(run(batch) for batch in batches), strict=True)
    return [np.concatenate([np.atleast_1d(part) for part in column]) for column in columns]


def _output(wanted: Array, got: Array, label: str) -> _Output:
    if wanted.shape != got.shape:
        raise CheckFailed(f"{label}: shape {got.shape} where its model gives {wanted.shape}")
    floating = bool(np.issubdtype(wanted.dtype, np.floating))
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(got)):
        count = int((finite & ~np.isfinite(got)).sum())
        raise CheckFailed(f"{label}: {count} values are NaN or infinite; the model's are not")
    error = np.abs(np.subtract(got, wanted, out=np.zeros_like(wanted), where=finite))
    signal, noise = float((wanted[finite] ** 2).sum()), float((error**2).sum())
    ratio = 10 * math.log10(signal / noise) if floating and noise > 0 and signal > 0 else None
    return _Output(label, wanted, got, error, floating, ratio)


def _judge(output: _Output, limit: Limit) -> None:
    if not output.floating:
        share = float((output.error == 0).mean()) if output.error.size else 1.0
        if share < limit.agreement:
            raise CheckFailed(
                f"{output.label}: {share:.1%} of its integers equal the model's; "
                f"at least {limit.agreement:.0%} must"
            )
        return
    _judge_variation(output)
    if output.sqnr_db is None and output.error.any():  # the model gives zeros only
        raise CheckFailed(f"{output.label}: not zero, as its model is")
    if output.sqnr_db is not None and output.sqnr_db < limit.sqnr_db:
        raise CheckFailed(
            f"{output.label}: {output.sqnr_db:.1f} dB signal to noise against its model; "
            f"at least {limit.sqnr_db:.0f} dB are needed"
        )
    if limit.max_relative_error is not None and output.error.any():
        scale = float(np.abs(output.wanted[np.isfinite(output.wanted)]).max())
        relative = float(output.error.max()) / scale
        if relative > limit.max_relative_error:
            raise CheckFailed(
                f"{output.label}: off by up to {relative:.2g} of the output's largest magnitude; "
                f"at most {limit.max_relative_error:.2g} is allowed"
            )


def _judge_variation(output: _Output) -> None:
    if len(output.wanted) < 2 or not output.wanted.size:
        return
    finite = np.isfinite(output.wanted).all(axis=0)
    if not finite.any():
        return
    wanted, got = output.wanted[:, finite], output.got[:, finite]
    moves = float(np.ptp(wanted, axis=0).max())
    still = float(np.ptp(got, axis=0).max()) <= _STANDS_STILL * moves
    if moves > _MOVES * float(np.abs(wanted).max()) and still:
        raise CheckFailed(f"{output.label}: the same for all samples; its model's output varies")


def _top1(wanted: Sequence[Array], got: Sequence[Array]) -> float | None:
    """Of the first output that looks like class scores: two dimensions, several columns, float."""
    for w, g in zip(wanted, got, strict=True):
        if w.ndim == 2 and w.shape[1] > 1 and np.issubdtype(w.dtype, np.floating):
            return float((w.argmax(1) == g.argmax(1)).mean())
    return None
