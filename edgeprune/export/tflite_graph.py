# SPDX-License-Identifier: Apache-2.0
"""Edits of a graph before litert-torch sees it; none changes what it computes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeprune.export.plainer import write_plainly
from edgeprune.export.resampling import (
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

quantized = torch.ops.quantized_decomposed

_VIEWS = {
    torch.ops.aten.view.default,
    torch.ops.aten.reshape.default,
    torch.ops.aten._unsafe_view.default,
}


def prepare(module: GraphModule) -> None:
    """All edits that a TFLite file needs, in place."""
    repeat_by_cat(module)
    write_plainly(module)
    nearest_by_index(module)
    linear_by_matrices(module, lambda node: is_antialiased(node) or not scales_by_size(node))
    plain_averages(module, has_divisor)
    crop_transposed(module)
    whole_averages(module)
    _keep_floats(module)


def _keep_floats(module: GraphModule) -> None:
    """Make borders of the copies that the quantizer put around operators that stay float, in place.

    A copy that a dequantize node feeds, or that feeds a quantize node alone, but not both: that one
    runs in int8.
    """
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.clone.default):
        source = node.args[0]
        before = source.target is quantized.dequantize_per_tensor.default
        behind = all(u.target is quantized.quantize_per_tensor.default for u in node.users)
        if before != behind:
            node.target, node.args, node.kwargs = _border(), (source,), {}
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
    expand = torch.ops.aten.expand.default
    for node in module.graph.find_nodes(op="call_function", target=expand):
        place = _single(node)
        if place is None:
            continue
        with module.graph.inserting_before(node):
            copies = [node.args[0]] * node.meta["val"].shape[place]
            new = module.graph.call_function(torch.ops.aten.cat.default, (copies, place))
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
