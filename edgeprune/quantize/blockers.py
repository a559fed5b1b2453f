# SPDX-License-Identifier: Apache-2.0
"""Formats that static int8 can't be written for, told from the graph before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

from edgeprune.errors import ModelError
from edgeprune.model import Model
from edgeprune.model.program import argument
from edgeprune.quantize import rules
from edgeprune.quantize.simplify import prepare_static
from edgeprune.recipe import Format

__all__ = ["static_blockers"]

aten = torch.ops.aten

_NAMED = 3
"""Operators that a reason lists."""

_ATTENTION_PRODUCTS = 2
"""Queries times keys, weights times values."""

_WRITTEN_AS_PRODUCTS = frozenset({aten.col2im.default, aten.baddbmm.default})
"""Outside of the quantizer's tables, but a product in the file: a transposed convolution, a matrix
product."""


class _Recurrent(NamedTuple):
    """Places of a recurrent operator's arguments."""

    name: str
    layers: int
    both_ways: int
    in_onnx: bool
    """Whether ONNX has the operator whole; else it is written step by step."""


_RECURRENT: dict[Any, _Recurrent] = {
    aten.lstm.input: _Recurrent("LSTM", 4, 7, True),
    aten.gru.input: _Recurrent("GRU", 4, 7, True),
    aten.rnn_tanh.input: _Recurrent("RNN", 4, 7, False),
    aten.rnn_relu.input: _Recurrent("RNN", 4, 7, False),
}


def static_blockers(model: Model, formats: Sequence[Format]) -> dict[Format, str]:
    """Say which files of ``model`` in static int8 the checks would refuse, and why.

    The quantizer's own rules are asked, without calibration: a file most of whose convolutions and
    matrix products compute in float is no int8 file.

    Args:
        model: Float.
        formats: Files that are to be written.

    Returns:
        A reason for each format that is blocked; empty where static int8 can be written.
    """
    from edgeprune.quantize.quantizer import EdgeQuantizer  # takes a second to import

    gm = model.module()
    try:
        prepare_static(gm)
    except ModelError as error:
        return dict.fromkeys(formats, str(error))
    EdgeQuantizer().annotate(gm)
    reasons = {form: _reason(gm, form) for form in formats}
    return {form: reason for form, reason in reasons.items() if reason is not None}


def _reason(gm: GraphModule, form: Format) -> str | None:
    from edgeprune.quantize.quantizer import annotation

    floats: Counter[str] = Counter()
    integer = 0
    for node in gm.graph.nodes:
        name, count = _products(node, form)
        if count and (annotation(node) is None or _runs_in_float(node, form)):
            floats[name] += count
        else:
            integer += count
    if floats.total() <= integer:
        return None
    listing = ", ".join(name for name, _ in floats.most_common(_NAMED))
    return f"most of its convolutions and matrix products would compute in float ({listing})"


def _runs_in_float(node: Node, form: Format) -> bool:
    """Whether only the weights of a convolution are integers; LiteRT has no other in 3-D."""
    three = node.target in (aten.conv3d.default, aten.conv3d.padding)
    return node.target in rules.CONV_TRANSPOSE or (form == "tflite" and three)


def _products(node: Node, form: Format) -> tuple[str, int]:
    """An operator's name, and the convolutions and matrix products that the file has for it."""
    if node.op != "call_function":
        return "", 0
    recurrent = _RECURRENT.get(node.target)
    if recurrent is not None:
        return recurrent.name, _steps(node, recurrent, form)
    if node.target in rules.WEIGHTED.keys() | rules.PRODUCT | _WRITTEN_AS_PRODUCTS:
        target: Any = node.target
        parted = form == "tflite" and node.target in rules.CONV_TRANSPOSE  # group by group
        count = int(argument(node, 6, 1)) if parted else 1
        return str(target._schema.name).removeprefix("aten::"), count
    return ("attention", _ATTENTION_PRODUCTS) if node.target in rules.ATTENTION else ("", 0)


def _steps(node: Node, operator: _Recurrent, form: Format) -> int:
    """ONNX has one operator a layer; unrolled, there are a product for the inputs of all steps
    and one a step, in each layer and direction."""
    layers = int(argument(node, operator.layers))
    if form == "onnx" and operator.in_onnx:
        return layers
    batch_first = bool(argument(node, operator.both_ways + 1))
    source: Any = argument(node, 0)
    length = source.meta["val"].shape[1 if batch_first else 0]
    directions = 2 if argument(node, operator.both_ways) else 1
    return layers * directions * (int(length) + 1)
