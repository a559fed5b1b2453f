# SPDX-License-Identifier: Apache-2.0
"""Edits of a graph before litert-torch sees it; none changes what it computes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeprune.export.graph_edit import constant, insert, replace, shape_of
from edgeprune.export.plainer import write_plainly
from edgeprune.export.resampling import (
    hangs_over,
    has_divisor,
    is_antialiased,
    linear_by_matrices,
    nearest_by_index,
    plain_averages,
    scales_by_size,
    whole_averages,
)
from edgeprune.export.transposed import crop_transposed

__all__ = ["prepare", "repeat_by_cat"]

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
}


def prepare(module: GraphModule) -> None:
    """All edits that a TFLite file needs, in place."""
    repeat_by_cat(module)
    _expand_integers(module)
    write_plainly(module)
    nearest_by_index(module)
    linear_by_matrices(module, lambda node: is_antialiased(node) or not scales_by_size(node))
    volume = aten.avg_pool3d.default
    plain_averages(module, lambda n: has_divisor(n) or (n.target is volume and hangs_over(n)))
    crop_transposed(module)
    whole_averages(module)
    _keep_floats(module)
    _part_dequantizers(module)


def _expand_integers(module: GraphModule) -> None:
    """Write the expansion of int8 values as a choice of the same place again and again, in place.

    The converter loses count of the axes of an image between int8 layers.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.expand.default):
        result, after = node.args[0], shape_of(node)
        if result.target is not quantized.dequantize_per_tensor.default:
            continue
        before = (1,) * (len(after) - len(shape_of(result))) + shape_of(result)
        grown = [axis for axis, size in enumerate(before) if size == 1 and after[axis] != 1]
        if not all(isinstance(after[axis], int) for axis in grown):
            continue
        while len(shape_of(result)) < len(after):
            result = insert(node, aten.unsqueeze.default, result, 0)
        for axis in grown:
            places = constant(module, node, torch.zeros(after[axis], dtype=torch.int64))
            result = insert(node, aten.index_select.default, result, axis, places)
        replace(node, result)
    module.recompile()


def _keep_floats(module: GraphModule) -> None:
    """Make borders of the copies that the quantizer put around operators that stay float, in place.

    A copy that a dequantize node feeds, or that feeds a quantize node alone, but not both: that one
    runs in int8.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.clone.default):
        source = node.args[0]
        before = source.target is quantized.dequantize_per_tensor.default
        behind = all(u.target is quantized.quantize_per_tensor.default for u in node.users)
        if before != behind:
            node.target, node.args, node.kwargs = _border(), (source,), {}
    module.recompile()


def _part_dequantizers(module: GraphModule) -> None:
    """Give each reader of an int8 value a dequantize node of its own, in place.

    Where several that read an image from one node have no channels-last form, the converter moves
    the axes back for the first of them alone.
    """
    dequantize = quantized.dequantize_per_tensor.default
    for node in module.graph.find_nodes(op="call_function", target=dequantize):
        for user in list(node.users)[1:]:
            user.replace_input_with(node, insert(user, dequantize, *node.args))
    module.recompile()


@cache
def _border() -> Any:
    """An operator that computes nothing and that the converter moves nothing across."""
    from litert_converter.mlir.dialects import stablehlo  # type: ignore[import-untyped]
    from litert_torch._convert.fx_passes.optimize_layout_transposes_pass import layout_rewrite
    from litert_torch.backend.lowerings import registry

    @torch.library.custom_op("edgeprune::border", mutates_args=())
    def border(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    border.register_fake(torch.empty_like)
    operator = torch.ops.edgeprune.border.default
    registry.lower(operator)(lambda _, x: stablehlo.optimization_barrier([x]))
    layout_rewrite.rewriters.register(operator)(lambda node: None)
    return operator


def repeat_by_cat(module: GraphModule) -> None:
    """Write the repetition of a single head as a concatenation, in place.

    Where one key-value head serves all query heads, ``(batch, 1, 1, n, d)`` is expanded to
    ``(batch, 1, heads, n, d)`` and reshaped; the converter (litert-torch 0.10) then takes the
    transposition of the keys that follows for another reshape, and the file is wrong.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.expand.default):
        place = _single(node)
        if place is None:
            continue
        with module.graph.inserting_before(node):
            copies = [node.args[0]] * node.meta["val"].shape[place]
            new = module.graph.call_function(aten.cat.default, (copies, place))
        new.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)
    module.recompile()


def _single(node: Node) -> int | None:
    """The dimension that ``node`` repeats, where it is one behind another of size one."""
    source = node.args[0]
    if not isinstance(source, Node) or not all(user.target in _VIEWS for user in node.users):
        return None
    before, after = source.meta["val"].shape, node.meta["val"].shape
    if len(before) != len(after):
        return None
    grown = [i for i in range(1, len(after)) if before[i] == 1 and after[i] != 1]
    fits = len(grown) == 1 and grown[0] > 1 and before[grown[0] - 1] == 1
    return grown[0] if fits and isinstance(after[grown[0]], int) else None
