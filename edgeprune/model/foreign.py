# SPDX-License-Identifier: Apache-2.0
"""A user's own ``torch.export`` program: taken as it is, but in eval mode, flat and by itself."""

from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model.capture import capture_program
from edgeprune.model.mode import set_training
from edgeprune.model.program import flatten, is_flat, tensors, unlift
from edgeprune.model.shapes import Shapes, examples, fit

__all__ = ["adopt"]

_WRITES = (torch.ops.aten.add_.Tensor, torch.ops.aten.copy_.default)
_STATISTICS = ("num_batches_tracked", "running_mean", "running_var")
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def adopt(
    program: ExportedProgram,
    path: Path,
    example: tuple[Tensor, ...] | None,
    shapes: Shapes | None,
) -> tuple[ExportedProgram, tuple[str, ...]]:
    """The program in eval mode, and notes.

    A batch that was exported as static stays so: the graph may hold it as a literal.

    Raises:
        ModelError: Its inputs aren't tensors, or ``example`` or ``shapes`` aren't what it takes.
    """
    takes = tensors(program)
    values = [v for v in takes if isinstance(v, Tensor)]
    if not values or any(isinstance(v, torch.SymInt | torch.SymFloat) for v in takes):
        raise ModelError(
            f"{path}: the program takes numbers or nothing: export one that takes tensors alone"
        )
    given = examples(example, shapes, [v.dtype for v in values])
    concrete, notes = _concrete(program, values, given, path)
    source = "the data" if example is not None else "--input-shape"
    fit(concrete, given, source)
    dynamic = isinstance(values[0].shape[0], torch.SymInt) if values[0].ndim else False
    module = unlift(program)
    notes += _evaluate(module)
    if not is_flat(program):
        flatten(module)
    try:
        fresh, more = capture_program(module, concrete, dynamic=dynamic)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if not dynamic:
        size = concrete[0].shape[0] if concrete[0].ndim else 1
        more = (f"static batch of {size}: the program was exported so",)
    return fresh, (*notes, *more)


def _concrete(
    program: ExportedProgram,
    values: list[Tensor],
    given: tuple[Tensor, ...] | None,
    path: Path,
) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """Zeros of the shapes that the program takes; a dynamic size other than the batch is fixed.

    Raises:
        ModelError: Nothing tells such a size.
    """
    kept = [t for t in pytree.tree_leaves(program.example_inputs or ()) if isinstance(t, Tensor)]
    sources = given if given is not None else kept
    found: list[Tensor] = []
    notes: list[str] = []
    for i, value in enumerate(values):
        source = sources[i] if i < len(sources) and sources[i].ndim == value.ndim else None
        sizes = [_size(size, d, source) for d, size in enumerate(value.shape)]
        for d, size in enumerate(sizes):
            if size is None:
                raise ModelError(
                    f"{path}: dimension {d} of input {i + 1} may have any size: give "
                    "--input-shape or --data"
                )
            if d and isinstance(value.shape[d], torch.SymInt):
                notes.append(f"dimension {d} of input {i + 1} is fixed to {size}")
        found.append(torch.zeros([s or 0 for s in sizes], dtype=value.dtype))
    return tuple(found), tuple(notes)


def _size(size: int | torch.SymInt, place: int, source: Tensor | None) -> int | None:
    """A size as a number: the program's own, or the source's; ``None`` where neither tells."""
    if not isinstance(size, torch.SymInt):
        return size
    if source is not None:
        return source.shape[place]
    return 2 if place == 0 else None


def _evaluate(module: GraphModule) -> tuple[str, ...]:
    """Put a graph into eval mode, whatever mode it was exported in; says so if it was train."""
    before = module.code
    set_training(module, False)
    for node in list(module.graph.nodes):
        if node.target is _ATTENTION and len(node.args) > 4:
            node.update_arg(4, 0.0)
        if node.target is _ATTENTION and "dropout_p" in node.kwargs:
            node.update_kwarg("dropout_p", 0.0)
    for node in [n for n in module.graph.nodes if _updates_statistics(n)]:
        sources = node.all_input_nodes
        module.graph.erase_node(node)
        for source in sources:
            if source.op == "call_function" and not source.users:
                module.graph.erase_node(source)
    module.recompile()
    changed = module.code != before
    return ("exported in train mode: switched to eval mode",) if changed else ()


def _updates_statistics(node: torch.fx.Node) -> bool:
    """Whether a node writes a batch norm's counter or statistics, as only training does."""
    if node.target not in _WRITES or node.users:
        return False
    buffer = node.args[0]
    return isinstance(buffer, torch.fx.Node) and str(buffer.target).endswith(_STATISTICS)
