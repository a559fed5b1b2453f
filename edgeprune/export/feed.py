# SPDX-License-Identifier: Apache-2.0
"""Run an artifact on its model's own inputs: layout, types and batch size are taken care of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.data import Data
from edgeprune.errors import CheckFailed
from edgeprune.export.names import is_image
from edgeprune.model import Input, Model
from edgeprune.profiler.runtime import Session, TensorSpec, open_session

__all__ = ["artifact_runner", "evaluation_batches", "random_batches"]

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]
_BATCH = 64
_NEVER_INDICES = 2
"""Integers that index no embedding are masks or types."""


def artifact_runner(path: Path, model: Model, threads: int = 1) -> Callable[[Arrays], Arrays]:
    """A function that runs the artifact at ``path`` as ``runner(model)`` runs the model.

    It takes the model's inputs (NCHW, 64-bit integers) with any number of samples, and gives all
    outputs in the model's order, their samples first. An artifact with a fixed batch is run in
    pieces of just that size, as the device runs it, the last one filled up with its last sample.

    Raises:
        InputError: The runtime refuses the file.
        CheckFailed: Its inputs or outputs aren't those of the model.
    """
    session = open_session(path, threads)
    specs = _match(session.inputs, [entry.name for entry in model.inputs], "inputs", session)
    results = _match(session.outputs, [entry.name for entry in model.outputs], "outputs", session)
    into = [session.inputs.index(spec) for spec in specs]
    out_of = [session.outputs.index(spec) for spec in results]
    axes = model.batch_axes

    def once(arrays: Arrays) -> Arrays:
        feed: list[Any] = [None] * len(arrays)
        for place, spec, entry, array in zip(into, specs, model.inputs, arrays, strict=True):
            feed[place] = _laid_out(session, spec, entry, array)
        made = session.run(feed)
        return tuple(
            made[place]
            if entry.batch_axis is None
            else np.moveaxis(made[place], entry.batch_axis, 0)
            for place, entry in zip(out_of, model.outputs, strict=True)
        )

    fixed = _fixed_batch(specs, axes)
    return once if fixed is None else lambda arrays: _in_pieces(once, arrays, model, fixed)


def _match(
    specs: tuple[TensorSpec, ...], names: Sequence[str], what: str, session: Session
) -> list[TensorSpec]:
    """The artifact's tensor for each of the model's: by name, or by place where names differ."""
    by_name = {spec.name: spec for spec in specs}
    if sorted(by_name) == sorted(names):
        return [by_name[name] for name in names]
    if len(specs) != len(names):
        raise CheckFailed(
            f"the {session.format} artifact has the {what} {', '.join(by_name)}; "
            f"its model has {', '.join(names)}"
        )
    return list(specs)


def evaluation_batches(data: Data, samples: int) -> list[Arrays]:
    """The first ``samples`` of the evaluation data, in batches of at most 64."""
    batches: list[Arrays] = []
    size = min(samples, _BATCH)
    for batch in islice(data.evaluation(size), -(-samples // size)):
        kept = batch.take(torch.arange(min(samples, len(batch))))
        samples -= len(kept)
        batches.append(tuple(value.numpy() for value in kept.inputs))
    return batches


def random_batches(model: Model, samples: int, seed: int) -> list[Arrays]:
    """Made-up inputs: normal floats, indices within the embedding they go into, and masks that
    neither hide nor show all of a sample: with nothing to look at, attention is undefined.

    A model with a fixed batch gets as many batches of its size as make ``samples``.
    """
    random = np.random.default_rng(seed)
    limits = [_rows(model, place) for place in range(len(model.inputs))]
    size = min(samples, _BATCH) if model.dynamic_batch else model.fixed_batch or 1
    return [
        tuple(_random(random, i, size, n) for i, n in zip(model.inputs, limits, strict=True))
        for _ in range(-(-samples // size))
    ]


def _random(random: np.random.Generator, entry: Input, size: int, limit: int) -> Array:
    shape = entry.sized(size)
    dtype = np.dtype(str(entry.dtype).removeprefix("torch."))
    if entry.dtype.is_floating_point:
        return random.standard_normal(shape).astype(dtype)
    made = random.integers(0, limit, shape)
    if limit == _NEVER_INDICES and len(shape) > 1 and shape[-1] > 1:
        made[..., 0], made[..., -1] = 1, 0
    return made.astype(dtype)


def _rows(model: Model, place: int) -> int:
    """Rows of the smallest embedding that input ``place`` indexes."""
    names = model.program.graph_signature.user_inputs
    reached = {node for node in model.program.graph.nodes if node.name == names[place]}
    rows = []
    for node in model.program.graph.nodes:
        sources = reached.intersection(node.all_input_nodes)
        if not sources:
            continue
        if node.target is torch.ops.aten.embedding.default and node.args[1] in sources:
            rows.append(int(node.args[0].meta["val"].shape[0]))
        elif _is_integer(node):
            reached.add(node)
    return min(rows, default=_NEVER_INDICES)


def _is_integer(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.dtype.is_floating_point


def _laid_out(session: Session, spec: TensorSpec, entry: Input, array: Array) -> Array:
    if session.format == "tflite" and is_image(entry):
        array = array.transpose(0, 2, 3, 1)
    return np.asarray(array, dtype=spec.dtype, order="C")


def _fixed_batch(specs: Sequence[TensorSpec], axes: Sequence[int | None]) -> int | None:
    sizes = {spec.shape[axis] for spec, axis in zip(specs, axes, strict=True) if axis is not None}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def _in_pieces(run: Callable[[Arrays], Arrays], arrays: Arrays, model: Model, size: int) -> Arrays:
    axes = model.batch_axes
    total = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
    if total == size:
        return run(arrays)
    pieces = []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        pieces.append(
            run(
                tuple(
                    a if axis is None else a.take(rows, axis)
                    for a, axis in zip(arrays, axes, strict=True)
                )
            )
        )
    return tuple(
        column[0] if entry.batch_axis is None else np.concatenate(column)[:total]
        for column, entry in zip(zip(*pieces, strict=True), model.outputs, strict=True)
    )
