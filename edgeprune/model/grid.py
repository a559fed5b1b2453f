# SPDX-License-Identifier: Apache-2.0
"""Rounding to a grid in one buffer, for running a quantized model.

torch computes ``quantize_per_tensor`` and ``dequantize_per_tensor`` with a new array for each of
their eight steps. That takes longer than the convolution behind it.
"""

import torch
from torch import Tensor

__all__ = ["fused"]

_EXACT = (torch.int8, torch.uint8, torch.int16)
"""Types of which float32 holds every value."""


def fused(module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Turn each quantize with its dequantize into one step, in place, bit for bit the same values;
    returns ``module``."""
    operators = torch.ops.quantized_decomposed
    if not hasattr(operators, "quantize_per_tensor"):  # no quantized graph was ever read or made
        return module
    quantize, dequantize = (
        operators.quantize_per_tensor.default,
        operators.dequantize_per_tensor.default,
    )
    for node in module.graph.find_nodes(op="call_function", target=dequantize):
        source = node.args[0]
        if source.target is quantize and _known(source) and _known(node):
            node.target = _rounded
            node.args = (*source.args[:5], *node.args[1:3])
            if not source.users:
                module.graph.erase_node(source)
    module.recompile()
    return module


def _known(node: torch.fx.Node) -> bool:
    return (
        not node.kwargs
        and len(node.args) == 6
        and node.args[5] in _EXACT
        and all(isinstance(value, int | float) for value in node.args[1:5])
    )


def _rounded(
    values: Tensor,
    scale: float,
    zero: int,
    low: int,
    high: int,
    scale_back: float,
    zero_back: int,
) -> Tensor:
    """``values``, each at the nearest point of the grid."""
    levels = torch.mul(values.to(torch.float32), 1.0 / scale).round_().add_(zero).clamp_(low, high)
    # An integer of NaN is 0.
    return levels.nan_to_num_(0.0).sub_(zero_back).mul_(scale_back)
