# SPDX-License-Identifier: Apache-2.0
"""Hold an artifact against the model that it was made from, and against the float ones before it.

All are run on the same batches. Limits are kept by each output, and by each part of one that has a
range of its own, so that a large one can't hide a small one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune.errors import CheckFailed, ModelError
from edgeprune.export.closeness import Row, rows
from edgeprune.export.counts import Counts, op_counts
from edgeprune.export.feed import artifact_runner
from edgeprune.export.locate import Unlike
from edgeprune.model import Model, runner
from edgeprune.model.finite import faulty_samples
from edgeprune.recipe import Numerics
from edgeprune.report.schema import Check, Closeness, Reference

__all__ = ["LIMITS", "Expected", "Limit", "check", "compare", "expect", "judge_integers", "worse"]

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Limit:
    """What an output must keep."""

    sqnr_db: float
    """Float outputs against the model that the file was made from: signal to noise."""
    agreement: float
    """Integer outputs against that model: share of equal elements."""
    float_db: float
    """Float outputs against the float model before quantization."""
    part_db: float
    """A part of an output with a range of its own, against either."""
    equal_db: float
    """Above it two files of one model count as equally good, however far they are apart."""
    max_relative_error: float | None = None
    """Float outputs: largest error over the largest magnitude."""


# Figures of CNNs of 5 and 12 layers, ResNet-8, a trained ResNet-20, a ViT and a BERT, in both
# runtimes: first against the model that the file was made from, then against the float one.
# Those against the float one were taken again on five small untrained networks only; part_db,
# equal_db and int8's float_db are a judgement below what was seen there.
LIMITS: dict[Numerics, Limit] = {
    # Only the order of sums differs: 125 to 142 dB, 1e-6 of the largest magnitude.
    "fp32": Limit(60.0, 0.99, 60.0, 40.0, 100.0, 1e-3),
    # The model has rounded weights already: above 125 dB where activations are float, 66 to 94
    # where they are halves too. Against float: 62 to 82.
    "fp16": Limit(40.0, 0.98, 40.0, 30.0, 55.0),
    # Runtimes round half steps otherwise than torch, and each flip runs on through the network: 31
    # to 60 dB for CNNs and BERT; 20 for an untrained ViT in XNNPACK, whose class token is one step
    # large, while LiteRT's own kernels give 27. Garbage gives below 10. Against float: 24 to 39.
    "int8": Limit(15.0, 0.90, 12.0, 8.0, 40.0),
    # The model has rounded weights and float activations, so this is the whole loss of rounding
    # activations at run time: 38 to 56 dB, with one scale a tensor 37 to 50. Garbage: 0 to 2.
    # Against float: 30 to 48.
    "int8-dynamic": Limit(25.0, 0.90, 20.0, 15.0, 40.0),
    # Weights lie on the stored grid: above 125 dB; 42 to 50 where onnxruntime itself stores float
    # scales in blocks, 45 where a weight was not rounded before. Against float: 38 to 54.
    "int8-weights": Limit(35.0, 0.95, 25.0, 20.0, 40.0),
}
_MOVES = 0.05
"""Share of an output's magnitude by which it must vary over samples to be asked to vary at all."""
_LITTLE_DB = 10.0
"""Signal to noise by which the operator is found that makes an output stand still."""
_STANDS_STILL = 0.01
"""Share of the model's variation below which an artifact's output counts as constant."""
_FLOAT_AGREEMENT = 0.5
"""Of integer outputs with the float model's: below it they are guesses."""
_APART_DB = 10.0
"""Two files of one model that differ by more aren't both right."""
_AGAINST: dict[Reference, str] = {
    "model": "its model",
    "float": "the float model before quantization",
    "dense": "the dense model",
}


@dataclass(frozen=True)
class Expected:
    """What models answer to the batches that artifacts are run on."""

    batches: Sequence[Arrays]
    inputs: Literal["evaluation data", "random"]
    """Where the batches come from."""
    names: tuple[str, ...]
    """Of the outputs."""
    outputs: Mapping[Reference, tuple[Array, ...]]


def expect(
    model: Model,
    batches: Sequence[Arrays],
    inputs: Literal["evaluation data", "random"],
    *,
    reference: Model | None = None,
    dense: Model | None = None,
    threads: int = 1,
) -> Expected:
    """Run the models that artifacts of ``model`` are to be held against.

    Args:
        model: What they are written from.
        batches: Its inputs, samples at index 0.
        inputs: Where they come from.
        reference: The float model that a quantized one was made from.
        dense: The model before any stage.
        threads: While they run.

    Raises:
        ModelError: A float model gives NaN or infinity, or other outputs than ``model``.
        CheckFailed: The quantized one does, though its float model doesn't.
    """
    models: dict[Reference, Model | None] = {"dense": dense, "float": reference, "model": model}
    if model.numerics == "fp32":
        del models["float"]
    if dense is model or ("float" in models and dense is reference):
        del models["dense"]
    names = tuple(output.name for output in model.outputs)
    outputs: dict[Reference, tuple[Array, ...]] = {}
    for kind, each in models.items():
        if each is None:
            continue
        outputs[kind] = _run(runner(each, threads), batches)
        told = faulty_samples([outputs[kind]], names)
        if told and each.numerics == "fp32":
            made_up = "; these inputs are made up: give --data" if inputs == "random" else ""
            raise ModelError(f"the {'dense ' if kind == 'dense' else ''}model: {told}{made_up}")
        if told:
            raise CheckFailed(f"quantize: in {each.numerics} {told}")
    _require_alike(outputs)
    return Expected(batches, inputs, names, dict(reversed(outputs.items())))


def _require_alike(outputs: Mapping[Reference, tuple[Array, ...]]) -> None:
    own = [array.shape[1:] for array in outputs["model"]]
    for kind, arrays in outputs.items():
        other = [array.shape[1:] for array in arrays]
        if other != own:
            raise ModelError(f"{_AGAINST[kind]} gives outputs of shapes {other}, this one {own}")


def check(
    path: Path, model: Model, expected: Expected, *, name: str, threads: int = 1
) -> tuple[Check, Counts]:
    """Run the artifact at ``path`` and compare it with what its models answer.

    Args:
        path: The file.
        model: What it was written from; its numerics choose the limits.
        expected: What ``expect`` gave for it.
        name: What messages call the file.
        threads: While it runs.

    Raises:
        CheckFailed: It differs by more than ``LIMITS`` allow, gives NaN or infinity, or the same
            for all samples; or most of an int8 model computes in float.
        InputError: The runtime refuses the file.
    """
    counts = op_counts(path, threads)
    if model.numerics == "int8":
        judge_integers(counts, name)
    got = _run(artifact_runner(path, model, threads), expected.batches)
    figures = compare(expected.outputs, got, expected.names, LIMITS[model.numerics], name)
    return (
        Check(
            samples=sum(len(batch[0]) for batch in expected.batches),
            inputs=expected.inputs,
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
    wanted: Mapping[Reference, Sequence[Array]],
    got: Sequence[Array],
    names: Sequence[str],
    limit: Limit,
    name: str,
) -> dict[str, Any]:
    """The figures of :class:`Check` that are measured.

    Args:
        wanted: The outputs of the model (``model``) and of those before it, as far as known.
        got: The artifact's.
        names: Of the outputs.
        limit: What is allowed; against ``dense`` anything is, since pruning and training change it.
        name: What messages call the file.

    Raises:
        CheckFailed: A limit is not kept; the message has the output, the figure and the limit.
    """
    try:
        found = list(rows(wanted, got, names))
    except CheckFailed as error:
        raise CheckFailed(_called(name, str(error))) from None
    for row in found:
        _judge(row, limit, name)
    own = [row for row in found if row.close.reference == "model" and row.close.part is None]
    ratios = [row.close.sqnr_db for row in own if row.close.sqnr_db is not None]
    elements = sum(row.error.size for row in own)
    return {
        "max_abs_error": max(row.close.max_abs_error for row in own),
        "mean_abs_error": sum(float(row.error.sum()) for row in own) / max(elements, 1),
        "sqnr_db": min(ratios) if ratios else None,
        "top1_agreement": _top1(wanted["model"], got),
        "closeness": tuple(row.close for row in found),
    }


def worse(checks: Mapping[str, Check], numerics: Numerics) -> tuple[str, Unlike] | None:
    """The file that is worse than its sibling of the other format by 10 dB or more, and why.

    Both are made from one graph, so the difference is a converter's or a runtime's. They are
    compared by each output and part, against the float model where that is known; where both are
    better than ``equal_db`` the difference means nothing.

    Args:
        checks: By file name, of one model.
        numerics: Of the model.
    """
    least = LIMITS[numerics].equal_db
    for name, check in checks.items():
        for other, better in checks.items():
            mine, theirs = _ratios(check), _ratios(better)
            for key in mine.keys() & theirs.keys():
                low, high = mine[key], theirs[key]
                if low < least and high - low >= _APART_DB:
                    exact = "is exact" if high == inf else f"keeps {high:.1f} dB"
                    text = f"{low:.1f} dB where {other}, of the same model, {exact}"
                    told = _called(name, _called(", ".join(filter(None, key)), text))
                    return name, Unlike(told, min((low + high) / 2, low + _APART_DB))
    return None


def _ratios(check: Check) -> dict[tuple[str, str], float]:
    """Signal to noise by output and part; infinite where it is exact."""
    reference: Reference = "float" if check.compared("float") else "model"
    return {
        (f"output '{c.output}'", c.part or ""): inf if c.sqnr_db is None else c.sqnr_db
        for c in check.closeness
        if c.reference == reference and c.agreement is None
    }


def _run(run: Any, batches: Sequence[Arrays]) -> tuple[Array, ...]:
    columns = zip(*(run(batch) for batch in batches), strict=True)
    return tuple(np.concatenate([np.atleast_1d(part) for part in column]) for column in columns)


def _called(name: str, text: str) -> str:
    """``text`` about ``name``, or about a part of it that ``text`` begins with."""
    return f"{name}, {text}" if text.startswith("output '") else f"{name}: {text}"


def _judge(row: Row, limit: Limit, name: str) -> None:
    close, against = row.close, _AGAINST[row.close.reference]
    label = ", ".join(filter(None, (name, row.label)))
    if close.reference == "dense":
        return
    if close.agreement is not None:
        least = limit.agreement if close.reference == "model" else _FLOAT_AGREEMENT
        if close.agreement < least:
            raise CheckFailed(
                f"{label}: {close.agreement:.1%} of its integers equal those of {against}; "
                f"at least {least:.0%} must"
            )
        return
    if close.part is None and close.reference == "model":
        _judge_variation(row, label)
        _judge_zeros(row, label)
    _judge_ratio(close, limit, label, against)
    if limit.max_relative_error is not None and close.part is None and row.error.any():
        relative = close.max_abs_error / float(np.abs(row.wanted).max())
        if relative > limit.max_relative_error:
            raise CheckFailed(
                f"{label}: off by up to {relative:.2g} of the output's largest magnitude; "
                f"at most {limit.max_relative_error:.2g} is allowed"
            )


def _judge_ratio(close: Closeness, limit: Limit, label: str, against: str) -> None:
    least = limit.sqnr_db if close.reference == "model" else limit.float_db
    least = least if close.part is None else limit.part_db
    if close.sqnr_db is None or close.sqnr_db >= least:
        return
    hint = ""
    if close.reference == "float":
        hint = "; quantization lost it: choose other --numerics (`edgeprune targets show`)"
        if close.part is not None:
            hint += ", or give these values an output of their own"
    text = (
        f"{label}: {close.sqnr_db:.1f} dB signal to noise against {against}; "
        f"at least {least:.0f} dB are needed{hint}"
    )
    raise CheckFailed(text) if close.reference == "float" else Unlike(text, least)


def _judge_zeros(row: Row, label: str) -> None:
    if not row.wanted.any() and row.error.any():
        raise CheckFailed(f"{label}: not zero, as its model is")


def _judge_variation(row: Row, label: str) -> None:
    wanted, got = row.wanted, row.got
    if len(wanted) < 2 or not wanted.size:
        return
    moves = float(np.ptp(wanted, axis=0).max())
    still = float(np.ptp(got, axis=0).max()) <= _STANDS_STILL * moves
    if moves > _MOVES * float(np.abs(wanted).max()) and still:
        raise Unlike(f"{label}: the same for all samples; its model's output varies", _LITTLE_DB)


def _top1(wanted: Sequence[Array], got: Sequence[Array]) -> float | None:
    """Of the first output that looks like class scores: two dimensions, several columns, float."""
    for w, g in zip(wanted, got, strict=True):
        if w.ndim == 2 and w.shape[1] > 1 and np.issubdtype(w.dtype, np.floating):
            return float((w.argmax(1) == g.argmax(1)).mean())
    return None
