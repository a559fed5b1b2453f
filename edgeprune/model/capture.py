# SPDX-License-Identifier: Apache-2.0
"""From an ``nn.Module`` to a ``Model``, and from an edited graph back to one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.fx import GraphModule
from torch.utils._sympy.numbers import int_oo

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model.carrier import Event, Input, Model, Output
from edgeprune.model.inline import inline, is_wrapped
from edgeprune.model.names import Place, leaf_places, output_names
from edgeprune.model.program import flatten, is_flat, own, quietly, reason, swept, tensors, unlift
from edgeprune.model.shapes import Axes, batch_axes, batch_size, resized, zeros
from edgeprune.recipe import Numerics

__all__ = [
    "Captured",
    "as_model",
    "capture",
    "capture_program",
    "export_once",
    "places_of",
    "recapture",
]

_EXAMPLE_BATCH = 2
"""Not 1: torch takes a dimension of 1 for one that broadcasts, and fixes it."""


@dataclass(frozen=True)
class _Try:
    """One way to export: a batch size, and the kind of its dimension (``None``: fixed)."""

    batch: int
    dim: Any


@dataclass(frozen=True)
class Captured:
    """A flat program that nobody else holds, and what its graph doesn't tell."""

    program: ExportedProgram
    axes: Axes
    """The axis of the samples of each input."""
    places: tuple[Place, ...]
    """Where each output was in what the network returned."""
    notes: tuple[str, ...] = ()


def capture(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    event: Event,
    axes: Axes | None = None,
) -> tuple[Model, tuple[str, ...]]:
    """Capture ``module`` in eval mode, in training IR, with a dynamic batch where it takes one.

    Args:
        module: Any module that ``torch.export`` takes. It is left as it was, and shares no memory
            with the result.
        example: One batch of inputs; only shapes and types count.
        event: The first entry of the history.
        axes: The axis of the samples of each input, ``None`` for one that has no batch. Not given:
            every tensor whose first dimension equals the first tensor's has a batch there.

    Returns:
        The model, and notes for the user: that the batch is static, with the reason.

    Raises:
        ModelError: ``torch.export`` refuses the module, or it doesn't run on these inputs.
    """
    captured = capture_program(module, example, axes=axes)
    return as_model(captured, event), captured.notes


def capture_program(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    dynamic: bool = True,
    axes: Axes | None = None,
) -> Captured:
    """What ``capture`` does, without a history; a static batch at once where not ``dynamic``.

    Raises:
        ModelError: As ``capture``.
    """
    failure: Exception | None = None
    last: Exception | None = None
    axes = batch_axes(example) if axes is None else axes
    for want in _ways(example, dynamic, axes):
        try:
            found = _export(module, example, want, axes)
        except Exception as error:  # torch.export and the user's forward raise anything
            failure, last = failure or error, error
            continue
        if want.dim is not None or not dynamic:
            return found
        why = reason(failure) if failure else "no input has a batch dimension"
        return replace(found, notes=(f"static batch of {want.batch}: {why}",))
    raise ModelError(_refusal(last)) from last


def _ways(example: tuple[Tensor, ...], dynamic: bool, axes: Axes) -> list[_Try]:
    """What to try, best first.

    A named dimension is refused where the code fixes it, which is what we want to know;
    ``Dim.AUTO`` takes some models that the former doesn't, and has to be looked at afterwards.
    """
    batch = batch_size(example, axes)
    if not dynamic:
        return [_Try(batch, None)]
    has = any(axis is not None for axis in axes)
    free = [Dim("batch", min=1), Dim.AUTO] if has else []
    return [*(_Try(_EXAMPLE_BATCH, d) for d in free), *(_Try(n, None) for n in sorted({1, batch}))]


def recapture(
    model: Model, module: GraphModule, event: Event, numerics: Numerics | None = None
) -> Model:
    """The next model after a stage edited ``model.module()``.

    Exports again with the same inputs and the same dynamic or static batch; parameters and
    buffers keep their names, tied parameters stay tied if they are still one object, and what the
    graph no longer uses stays unless the stage deleted it. The result shares no memory with
    ``module``. The graph is taken in the mode that it is in: call
    ``set_training(module, False)`` first if it was trained.

    Raises:
        EdgepruneError: The edited graph can't be exported, or lost its dynamic batch.
    """
    example = zeros((i.shape, i.dtype) for i in model.inputs)
    try:
        found = capture_program(module, example, dynamic=model.dynamic_batch, axes=model.batch_axes)
    except ModelError as error:
        raise EdgepruneError(f"{event.stage}: the edited graph doesn't run: {error}") from error
    if found.notes:
        raise EdgepruneError(f"{event.stage}: the edited graph has a {found.notes[0]}")
    return model.evolve(found.program, event, numerics)


def _export(module: nn.Module, example: tuple[Tensor, ...], want: _Try, axes: Axes) -> Captured:
    """Export once, make the program flat and independent, and prove a dynamic batch.

    Raises:
        Exception: Whatever torch or the module's own code raises.
    """
    args = resized(example, want.batch, axes)
    program = export_once(module, args, want.dim, axes)
    places = places_of(program)
    if not is_flat(program) or is_wrapped(program):
        plain = unlift(program)
        inline(plain)
        flatten(plain)
        program = export_once(plain, args, want.dim, axes)
    if not tensors(program, outputs=True):
        raise TypeError("the model returns no tensor")
    program = swept(own(program))
    if want.dim is not None:
        _prove_dynamic(program, resized(example, 1, axes), axes)
    return Captured(program, axes, places)


def places_of(program: ExportedProgram) -> tuple[Place, ...]:
    """Where each tensor that a program gives is in what the network returned."""
    places = leaf_places(program.call_spec.out_spec)
    given = tensors(program, outputs=True)
    return tuple(p for p, v in zip(places, given, strict=True) if isinstance(v, Tensor))


def export_once(
    module: nn.Module, args: tuple[Tensor, ...], dim: Any, axes: Axes
) -> ExportedProgram:
    """Export in eval mode with ``dim`` as the batch of ``args``, or as they are where ``None``.

    Raises:
        Exception: Whatever torch or the module's own code raises.
    """
    dims: Any = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, axis in zip(args, axes, strict=True):
        if axis is not None:
            dims[tensor] = {axis: dim}
    with quietly(), _evaluating(module), torch.enable_grad():
        return export(module, args, dynamic_shapes=None if dim is None else dims, strict=False)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; without the fused attention kernel, which can't be trained."""
    training = [part for part in module.modules() if part.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    for part in training:
        part.training = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for part in training:
            part.training = True


def _prove_dynamic(program: ExportedProgram, single: tuple[Tensor, ...], axes: Axes) -> None:
    """Check that one free symbol is the batch of all inputs and of an output, and that 1 runs.

    Raises:
        ValueError: The batch was fixed, bounded, split into several or mixed into another size.
        Exception: What the program raises on ``single``, inputs of one sample.
    """
    takes = zip(tensors(program), axes, strict=True)
    size, *others = {str(v.shape[a]): v.shape[a] for v, a in takes if a is not None}.values()
    if others or not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
        raise ValueError("the model's code fixes the batch size or ties it to another")
    bounds = program.range_constraints[size.node.expr]
    if bounds.lower > _EXAMPLE_BATCH or bounds.upper < int_oo:
        raise ValueError(f"the model takes only batches of {bounds.lower} to {bounds.upper}")
    gives = tensors(program, outputs=True)
    if not any(_axis_of(size, v) is not None for v in gives):
        raise ValueError("no output has the batch as a dimension of its own")
    with quietly(), torch.no_grad():
        unlift(program)(*single)


def _axis_of(size: int | torch.SymInt, value: Tensor) -> int | None:
    """The first axis of ``value`` that has just this size."""
    return next((axis for axis, n in enumerate(value.shape) if str(n) == str(size)), None)


def as_model(captured: Captured, event: Event) -> Model:
    """The model of a captured program; a dynamic batch is written as 2."""
    program, found = captured.program, []
    names = [str(name) for name in program.graph_signature.user_inputs]
    batch: int | torch.SymInt | None = None
    for name, value, axis in zip(names, tensors(program), captured.axes, strict=True):
        dynamic = axis is not None and isinstance(value.shape[axis], torch.SymInt)
        if axis is not None:
            batch = value.shape[axis]
        shape = tuple(
            _EXAMPLE_BATCH if dynamic and place == axis else int(size)
            for place, size in enumerate(value.shape)
        )
        found.append(Input(name, shape, value.dtype, dynamic, axis))
    outputs = [
        Output(name, None if batch is None else _axis_of(batch, value))
        for name, value in zip(
            output_names(captured.places, {*names, *program.state_dict}),
            tensors(program, outputs=True),
            strict=True,
        )
    ]
    return Model(program, tuple(found), tuple(outputs), (event,))


def _refusal(error: Exception | None) -> str:
    text = reason(error) if error else "no reason given"
    hint = ""
    if "indices" in text:
        hint = "; for token ids give the input's type too, such as --input-shape 1x128:int64"
    return f"torch.export can't capture the model: {text}{hint}"
