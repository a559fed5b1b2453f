# SPDX-License-Identifier: Apache-2.0
"""What a format can't say, told from the graph before a converter is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.errors import InputError
from edgeprune.export.plainer import has_equal_bags
from edgeprune.model import Model
from edgeprune.model.program import argument
from edgeprune.recipe import Format

__all__ = ["REFUSALS", "Refusal", "refuse"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Refusal:
    """An operator, or some of its settings, that a format has no form of."""

    operators: tuple[str, ...]
    """Names without the overload, such as ``conv_transpose3d``; none: any."""
    formats: tuple[Format, ...]
    reason: str
    way_out: str
    applies: Callable[[Node], bool] = lambda node: True


def _is_complex(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _has_mask(node: Node) -> bool:
    """Whether an index holds truths: how many values it chooses, the converter doesn't know."""
    places = node.args[1]
    given = places if isinstance(places, list | tuple) else ()
    values = [n.meta.get("val") for n in given if isinstance(n, Node)]
    return any(isinstance(v, Tensor) and v.dtype == torch.bool for v in values)


_CONVERTER = "the converter has no form of it"
REFUSALS = (
    Refusal(
        ("conv_transpose3d",),
        ("tflite",),
        "the runtime doesn't run the operator that the converter makes of it",
        "use nearest upsampling and a Conv3d",
    ),
    Refusal(("cumprod",), ("onnx", "tflite"), _CONVERTER, "write it as a loop of products"),
    Refusal(("cdist",), ("onnx",), _CONVERTER, "write it as a difference, a square and a sum"),
    Refusal(
        ("index",),
        ("tflite",),
        "the number of values that a mask chooses is no constant",
        "use the numbers of the places, or torch.where",
        _has_mask,
    ),
    Refusal(
        ("scatter_add", "index_add"),
        ("tflite",),
        "the runtime doesn't run the operator that the converter makes of it",
        "write it as a product with a matrix of zeros and ones",
    ),
    Refusal(
        ("scatter_reduce",),
        ("tflite",),
        "the runtime doesn't run the operator that the converter makes of it",
        "write it with torch.where and a reduction",
    ),
    Refusal(
        ("index_put", "index_put_"),
        ("tflite",),
        "the runtime doesn't run the operator that the converter makes of sums into places",
        "write it as a product with a matrix of zeros and ones",
        lambda node: bool(argument(node, 3, False)),
    ),
    Refusal(
        ("max_unpool2d", "max_unpool3d"),
        ("tflite",),
        "the runtime refuses what the converter makes of it",
        "use a transposed convolution, or nearest upsampling",
    ),
    Refusal(
        ("embedding_bag", "_embedding_bag"),
        ("tflite",),
        "the converter has no form of bags of unlike size, or with padding",
        "use an Embedding, and its mean or sum",
        lambda node: not has_equal_bags(node),
    ),
    Refusal(("bilinear",), ("tflite",), _CONVERTER, "write it with torch.einsum"),
    Refusal(
        (),
        ("tflite",),
        "its complex numbers have no form that runs everywhere",
        "write it in real numbers",
        _is_complex,
    ),
    Refusal(
        ("pow",),
        ("onnx",),
        "ONNX has no powers of complex numbers",
        "multiply the number by itself",
        _is_complex,
    ),
)


def refuse(model: Model, form: Format) -> None:
    """Look for what ``form`` can't say.

    Raises:
        InputError: Something is found; the message names the layer, the operator, its setting, and
            what to do.
    """
    for node in model.program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target._schema.name.removeprefix("aten::")
        for entry in REFUSALS:
            meant = name in entry.operators or not entry.operators
            if meant and form in entry.formats and entry.applies(node):
                other = "tflite" if form == "onnx" else "onnx"
                open_to = "" if other in entry.formats else f", or --format {other}"
                raise InputError(
                    f"{form}: {_place(node)}: {name}{_setting(node)} can't be written: "
                    f"{entry.reason}; {entry.way_out}{open_to}"
                )


def _place(node: Node) -> str:
    """The innermost module that an operator was called in."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("L['self'].") or node.name


def _setting(node: Node) -> str:
    """The arguments that are no tensors and not the default."""
    target: Any = node.target
    said = []
    for place, known in enumerate(target._schema.arguments):
        value = node.args[place] if place < len(node.args) else node.kwargs.get(known.name)
        plain = isinstance(value, bool | int | float | str | list | tuple)
        if plain and value != known.default_value and not _holds_nodes(value):
            said.append(f"{known.name}={value}")
    return f"({', '.join(said)})" if said else ""


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, Node) for v in value)
