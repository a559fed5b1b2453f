# SPDX-License-Identifier: Apache-2.0
"""From an ``nn.Module`` to a ``Model``, and from an edited graph back to one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.fx import GraphModule
from torch.utils._sympy.numbers import int_oo

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model.carrier import Event, Input, Model
from edgeprune.model.inline import inline, is_wrapped
from edgeprune.model.program import flatten, is_flat, own, quietly, reason, swept, tensors, unlift
from edgeprune.model.shapes import batched, resized, zeros
from edgeprune.recipe import Numerics

__all__ = ["as_model", "capture", "capture_program", "export_once", "recapture"]

_EXAMPLE_BATCH = 2
"""Not 1: torch takes a dimension of 1 for one that broadcasts, and fixes it."""


@dataclass(frozen=True)
class _Try:
    """One way to export: a batch size, and the kind of its dimension (``None``: fixed)."""

    batch: int
    dim: Any


def capture(
    module: nn.Module, example: tuple[Tensor, ...], *, event: Event
) -> tuple[Model, tuple[str, ...]]:
    """Capture ``module`` in eval mode, in training IR, with a dynamic batch where it takes one.

    Args:
        module: Any module that ``torch.export`` takes. It is left as it was, and shares no memory
            with the result.
        example: One batch of inputs; only shapes and types count. Every tensor whose first
            dimension equals the first tensor's has a batch there, and all share it.
        event: The first entry of the history.

    Returns:
        The model, and notes for the user: that the batch is static, with the reason.

    Raises:
        ModelError: ``torch.export`` refuses the module, or it doesn't run on these inputs.
    """
    program, notes = capture_program(module, example)
    return as_model(program, event), notes


def capture_program(
    module: nn.Module, example: tuple[Tensor, ...], *, dynamic: bool = True
) -> tuple[ExportedProgram, tuple[str, ...]]:
    """What ``capture`` does, without a history; a static batch at once where not ``dynamic``.

    Raises:
        ModelError: As ``capture``.
    """
    failure: Exception | None = None
    last: Exception | None = None
    for want in _ways(example, dynamic):
        try:
            program = _export(module, example, want)
        except Exception as error:  # torch.export and the user's forward raise anything
            failure, last = failure or error, error
            continue
        if want.dim is not None or not dynamic:
            return program, ()
        why = reason(failure) if failure else "the first input has no batch dimension"
        return program, (f"static batch of {want.batch}: {why}",)
    raise ModelError(_refusal(last)) from last


def _ways(example: tuple[Tensor, ...], dynamic: bool) -> list[_Try]:
    """What to try, best first.

    A named dimension is refused where the code fixes it, which is what we want to know;
    ``Dim.AUTO`` takes some models that the former doesn't, and has to be looked at afterwards.
    """
    batch = example[0].shape[0] if example[0].ndim else 1
    if not dynamic:
        return [_Try(batch, None)]
    free = [Dim("batch", min=1), Dim.AUTO] if any(batched(example)) else []
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
        program, notes = capture_program(module, example, dynamic=model.dynamic_batch)
    except ModelError as error:
        raise EdgepruneError(f"{event.stage}: the edited graph doesn't run: {error}") from error
    if notes:
        raise EdgepruneError(f"{event.stage}: the edited graph has a {notes[0]}")
    return model.evolve(program, event, numerics)


def _export(module: nn.Module, example: tuple[Tensor, ...], want: _Try) -> ExportedProgram:
    """Export once, make the program flat and independent, and prove a dynamic batch.

    Raises:
        Exception: Whatever torch or the module's own code raises.
    """
    program = export_once(module, resized(example, want.batch), want.dim)
    if not is_flat(program) or is_wrapped(program):
        plain = unlift(program)
        inline(plain)
        flatten(plain)
        program = export_once(plain, resized(example, want.batch), want.dim)
    if not tensors(program, outputs=True):
        raise TypeError("the model returns no tensor")
    program = swept(own(program))
    if want.dim is not None:
        _prove_dynamic(program, example)
    return program


def export_once(module: nn.Module, args: tuple[Tensor, ...], dim: Any) -> ExportedProgram:
    """Export in eval mode with ``dim`` as the batch of ``args``, or as they are where ``None``.

    Raises:
        Exception: Whatever torch or the module's own code raises.
    """
    dims: Any = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, has_batch in zip(args, batched(args), strict=True):
        if has_batch:
            dims[tensor] = {0: dim}
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


def _prove_dynamic(program: ExportedProgram, example: Sequence[Tensor]) -> None:
    """Check that one free symbol is the batch of all inputs and of an output, and that 1 runs.

    Raises:
        ValueError: The batch was fixed, bounded, split into several or mixed into another size.
        Exception: What the program raises at batch 1.
    """
    takes = zip(tensors(program), batched(example), strict=True)
    size, *others = {str(v.shape[0]): v.shape[0] for v, has in takes if has}.values()
    if others or not isinstance(size, torch.SymInt) or not size.node.expr.is_Symbol:
        raise ValueError("the model's code fixes the batch size or ties it to another")
    bounds = program.range_constraints[size.node.expr]
    if bounds.lower > _EXAMPLE_BATCH or bounds.upper < int_oo:
        raise ValueError(f"the model takes only batches of {bounds.lower} to {bounds.upper}")
    gives = tensors(program, outputs=True)
    if not any(v.ndim and str(v.shape[0]) == str(size) for v in gives):
        raise ValueError("no output has the batch as its first dimension")
    with quietly(), torch.no_grad():
        unlift(program)(*resized(example, 1))


def as_model(program: ExportedProgram, event: Event) -> Model:
    """The model of a flat program that nobody else holds; a dynamic batch is written as 2."""
    found = []
    for name, value in zip(program.graph_signature.user_inputs, tensors(program), strict=True):
        dynamic = bool(value.ndim) and isinstance(value.shape[0], torch.SymInt)
        shape = (_EXAMPLE_BATCH, *value.shape[1:]) if dynamic else tuple(value.shape)
        found.append(Input(str(name), tuple(int(s) for s in shape), value.dtype, dynamic))
    return Model(program, tuple(found), (event,))


def _refusal(error: Exception | None) -> str:
    text = reason(error) if error else "no reason given"
    hint = ""
    if "indices" in text:
        hint = "; for token ids give the input's type too, such as --input-shape 1x128:int64"
    return f"torch.export can't capture the model: {text}{hint}"
