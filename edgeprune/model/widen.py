# SPDX-License-Identifier: Apache-2.0
"""Networks whose weights are in half precision, made float32: what training and converters take."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.node import map_aggregate

__all__ = ["WIDENED", "is_half", "wide", "widen"]

_HALVES = (torch.float16, torch.bfloat16)
WIDENED = (
    "its half-precision weights and inputs were made float32; --numerics fp16 makes such files"
)
"""The note that tells it."""


def is_half(owner: ExportedProgram | nn.Module) -> bool:
    """Whether any parameter is in half precision."""
    return any(p.dtype in _HALVES for p in owner.parameters())


def wide(value: Any) -> Any:
    """A type or tensor in float32 where it is of half precision; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(torch.float32) if value.dtype in _HALVES else value
    return torch.float32 if value in _HALVES else value


def widen(module: nn.Module) -> None:
    """Make all half precision float32, in place: weights, constants, casts in a graph."""
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                parameter.data = wide(parameter.data)
        for name, buffer in part._buffers.items():
            part._buffers[name] = wide(buffer)
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                setattr(part, name, wide(value))
    if isinstance(module, GraphModule):
        for node in module.graph.nodes:
            node.args = map_aggregate(node.args, wide)
            node.kwargs = map_aggregate(node.kwargs, wide)
        module.recompile()
