# SPDX-License-Identifier: Apache-2.0
"""A user's own ``torch.export`` program: taken as it is, but in eval mode, flat and by itself."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model.capture import Captured, capture_program, places_of
from edgeprune.model.mode import set_training
from edgeprune.model.program import flatten, is_flat, tensors, unlift
from edgeprune.model.shapes import Axes, Shapes, Wanted, batch_size, examples, fit
from edgeprune.model.widen import WIDENED, is_half, wide, widen

__all__ = ["adopt", "wanted_inputs"]

_WRITES = (torch.ops.aten.add_.Tensor, torch.ops.aten.copy_.default)
_STATISTICS = ("num_batches_tracked", "running_mean", "running_var")
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_IMAGE = 4
"""Dimensions of a batch of images."""


def adopt(
    program: ExportedProgram,
    path: Path,
    example: tuple[Tensor, ...] | None,
    shapes: Shapes | None,
    axes: Axes | None = None,
) -> Captured:
    """The program in eval mode, flat: inputs that are no tensors (``None``, flags) are constants.

    The samples are along the dimension that is dynamic (see ``wanted_inputs``), or along ``axes``.
    A batch that was exported as static stays so: the graph may hold it as a literal.

    Raises:
        ModelError: It takes no tensor, or a number that may change, or ``example`` or ``shapes``
            aren't what it takes.
    """
    values = _inputs(program, path)
    own = tuple(entry.axis for entry in wanted_inputs(program))
    given = examples(example, shapes, [v.dtype for v in values], axes)
    axes = own if axes is None or len(axes) != len(own) else axes
    concrete, notes = _concrete(program, values, given, axes, path)
    source = "the data" if example is not None else "--input-shape"
    fit(concrete, given, source, axes=(axes, axes))
    dynamic = any(
        a is not None and isinstance(v.shape[a], torch.SymInt)
        for v, a in zip(values, axes, strict=True)
    )
    module = unlift(program)
    if is_half(program):
        widen(module)
        notes += (WIDENED,)
    notes += _evaluate(module)
    places = places_of(program)
    if not is_flat(program):
        flatten(module)
    try:
        fresh = capture_program(module, concrete, dynamic=dynamic, axes=axes)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    more = fresh.notes
    if not dynamic:
        size = batch_size(concrete, axes)
        more = (f"static batch of {size}: the program was exported so",)
    return replace(fresh, places=places, notes=(*notes, *more))


def wanted_inputs(program: ExportedProgram) -> tuple[Wanted, ...]:
    """What a program takes, with the axis of the samples: the dimension that is dynamic.

    Of several dynamic sizes the batch is the one that most inputs and outputs share, then the one
    at the lowest axis; the height and width of images are none. A program without a dynamic batch
    has it along the first axis where its size is that of the first input's, else along the only
    axis of that size: a guess.
    """
    names = [n for n in program.graph_signature.user_inputs if isinstance(n, str)]
    found = [(n, v) for n, v in zip(names, _named(program, names), strict=True)]
    half = is_half(program)
    values = [(n, wide(v) if half else v) for n, v in found if isinstance(v, Tensor)]
    batch = _batch_symbol([v for _, v in values], tensors(program, outputs=True))
    axes = (
        _fixed_axes([v for _, v in values])
        if batch is None
        else tuple(_axis(v, batch) for _, v in values)
    )
    return tuple(
        Wanted(
            name,
            tuple(None if isinstance(n, torch.SymInt) else int(n) for n in value.shape),
            value.dtype,
            axis,
            fixed=batch is None,
        )
        for (name, value), axis in zip(values, axes, strict=True)
    )


def _named(program: ExportedProgram, names: Sequence[str]) -> list[object]:
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return [nodes.get(name) for name in names]


def _axis(value: Tensor, size: str) -> int | None:
    return next((axis for axis, n in enumerate(value.shape) if str(n) == size), None)


def _batch_symbol(takes: Sequence[Tensor], gives: Sequence[object]) -> str | None:
    """The dynamic size that is the batch."""
    first = next((v for v in takes if v.ndim), None)
    if first is None or (not isinstance(first.shape[0], torch.SymInt) and first.shape[0] == 1):
        return None  # one sample, of sizes that may vary
    places: dict[str, int] = {}
    for value in takes:
        for axis, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt) and not (value.ndim >= _IMAGE and axis > 1):
                places[str(size)] = min(axis, places.get(str(size), axis))
    results = [v for v in gives if isinstance(v, Tensor)]
    shared = Counter(name for v in (*takes, *results) for name in {str(n) for n in v.shape})
    return min(places, key=lambda name: (-shared[name], places[name]), default=None)


def _fixed_axes(values: Sequence[Tensor]) -> Axes:
    first = next((v for v in values if v.ndim), None)
    if first is None:
        return (None,) * len(values)
    size = first.shape[0]
    return tuple(_only_axis(v, int(size)) for v in values)


def _only_axis(value: Tensor, size: int) -> int | None:
    found = [axis for axis, n in enumerate(value.shape) if n == size]
    return found[0] if found and (found[0] == 0 or len(found) == 1) else None


def _inputs(program: ExportedProgram, path: Path) -> list[Tensor]:
    """The tensors that the program takes.

    Raises:
        ModelError: It takes none, or a number that isn't fixed.
    """
    takes = tensors(program)
    if any(isinstance(v, torch.SymInt | torch.SymFloat | torch.SymBool) for v in takes):
        raise ModelError(
            f"{path}: the program takes a number that may change: export it with that number "
            "fixed, or as a tensor"
        )
    half = is_half(program)
    values = [wide(v) if half else v for v in takes if isinstance(v, Tensor)]
    if not values:
        raise ModelError(f"{path}: the program takes no tensor: there is nothing to feed it")
    for place, value in enumerate(values, 1):
        if any(not isinstance(n, torch.SymInt) and n == 0 for n in value.shape):
            raise ModelError(f"{path}: input {place} has a dimension of size 0")
    return values


def _concrete(
    program: ExportedProgram,
    values: list[Tensor],
    given: tuple[Tensor, ...] | None,
    axes: Axes,
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
    for i, (value, batch) in enumerate(zip(values, axes, strict=True)):
        source = sources[i] if i < len(sources) and sources[i].ndim == value.ndim else None
        sizes = [_size(n, source, d, is_batch=d == batch) for d, n in enumerate(value.shape)]
        for d, size in enumerate(sizes):
            if size is None:
                raise ModelError(
                    f"{path}: dimension {d} of input {i + 1} may have any size: give "
                    "--input-shape or --data"
                )
            if d != batch and isinstance(value.shape[d], torch.SymInt):
                notes.append(f"dimension {d} of input {i + 1} is fixed to {size}")
        found.append(torch.zeros([s or 0 for s in sizes], dtype=value.dtype))
    return tuple(found), tuple(notes)


def _size(
    size: int | torch.SymInt, source: Tensor | None, place: int, *, is_batch: bool
) -> int | None:
    """A size as a number: the program's own, or the source's; ``None`` where neither tells."""
    if not isinstance(size, torch.SymInt):
        return size
    if source is not None:
        return source.shape[place]
    return 2 if is_batch else None


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
