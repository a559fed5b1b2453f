# SPDX-License-Identifier: Apache-2.0
"""Static int8: observe activations on calibration data, then write quantize/dequantize nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.model import Model
from edgeprune.model.program import argument, quietly, value
from edgeprune.progress import Bar
from edgeprune.quantize import rules
from edgeprune.quantize.graphs import twin
from edgeprune.quantize.noise import LayerNoise, layer_noise
from edgeprune.quantize.quantizer import EdgeQuantizer, annotation
from edgeprune.quantize.simplify import prepare_static
from edgeprune.quantize.spread import too_coarse

with quietly():
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

__all__ = ["Static", "quantize_static"]

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default

_ROUNDING = 1e-3
"""Of the largest output: more than float rounding changes."""
_BIAS_STEPS = 2**30
"""The largest bias, in steps of the accumulator; int32 holds twice that."""


_ACCUMULATING = rules.WEIGHTED.keys() - rules.CONV_TRANSPOSE


@dataclass(frozen=True)
class Static:
    """A quantized graph, and what was found on the way."""

    module: GraphModule
    """With quantize/dequantize nodes; weights in float before their quantize nodes."""
    rows: tuple[LayerNoise, ...]
    output_db: float | None
    int8_ops: dict[str, int]
    float_ops: dict[str, int]
    samples: int


def quantize_static(
    model: Model, batches: Iterable[tuple[Tensor, ...]], *, float_adds: bool, bar: Bar
) -> Static:
    """Quantize ``model`` after training, by the range of each activation over ``batches``.

    Args:
        model: Float, eval mode.
        batches: Calibration inputs, each of the model's batch size where that is fixed.
        float_adds: Leave additions float (for transformers).
        bar: Advanced by one a batch.

    Raises:
        ModelError: A view is written to in place, and its base is read later.
        InputError: The model makes values that aren't finite of the calibration data.
        EdgepruneError: The preparation changed what the model computes.
    """
    gm = model.module()
    prepare_static(gm)
    plain = twin(gm)
    remaining = iter(batches)
    first = next(remaining)
    coarse = too_coarse(gm, first)
    with quietly():
        prepared = prepare_pt2e(gm, EdgeQuantizer(float_adds=float_adds, floats=coarse))
    layers, int8, floats = _layers(prepared)
    inside = {n.name for n in prepared.graph.nodes if annotation(n) is not None}
    samples = 0
    with torch.no_grad():
        for batch in chain((first,), remaining):
            prepared(*batch)
            samples += len(batch[0])
            bar.advance()
    _check_ranges(prepared)
    _check_exact(model.module(), plain, first)
    _cover_biases(prepared)
    with quietly():
        converted = convert_pt2e(prepared, fold_quantize=False)
    _mark_floats(converted, inside)
    rows, total = layer_noise(plain, converted, layers, first)
    return Static(converted, rows, total, dict(int8), dict(floats), samples)


def _mark_floats(gm: GraphModule, inside: set[str]) -> None:
    """Put a copy between each quantize/dequantize node and an operator that stays float.

    It computes nothing. The TFLite exporter takes it for a border that int8 must not cross: left to
    itself, the converter pulls selections, extrema and joins into int8, with the scale of their
    first operand, and other operands and constants saturate.
    """
    varying = _varying(gm)
    floats = [n for n in gm.graph.nodes if n in varying and _stays_float(n, inside)]
    for source in dict.fromkeys(a for node in floats for a in node.all_input_nodes):
        if source.target is _DEQUANTIZE and source.args[0].target is _QUANTIZE:
            _copy_between(gm, source, [n for n in floats if source in n.all_input_nodes])
    for node in floats:
        quantizers = [user for user in node.users if user.target is _QUANTIZE]
        if quantizers:
            _copy_between(gm, node, quantizers)
    gm.recompile()


def _varying(gm: GraphModule) -> set[Node]:
    """The operators whose results depend on the values of an input, not on its shape alone."""
    found: set[Node] = set(gm.graph.find_nodes(op="placeholder"))
    for node in gm.graph.nodes:
        sources = found.intersection(node.all_input_nodes)
        if node.target not in rules.FILLED and any(not _is_size(source) for source in sources):
            found.add(node)
    return found


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)


def _stays_float(node: Node, inside: set[str]) -> bool:
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    outside = node.name not in inside or target in rules.BORDERED
    return target.namespace == "aten" and outside


def _copy_between(gm: GraphModule, source: Node, readers: list[Node]) -> None:
    with gm.graph.inserting_before(readers[0]):
        copy = gm.graph.call_function(torch.ops.aten.clone.default, (source,))
    copy.meta = {k: v for k, v in source.meta.items() if k in ("val", "tensor_meta")}
    for reader in readers:
        reader.replace_input_with(source, copy)


def _layers(prepared: GraphModule) -> tuple[dict[str, str], Counter[str], Counter[str]]:
    """The int8 layers with weights (node name: module path); int8 and float operators."""
    layers: dict[str, str] = {}
    int8: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    for node in prepared.graph.nodes:
        if node.op != "call_function" or not computes(node):
            continue
        made = annotation(node)
        name = str(node.target._schema.name).removeprefix("aten::")
        inside = made is not None and node.target not in rules.CONV_TRANSPOSE
        (int8 if inside else floats)[name] += 1
        if inside and node.target in rules.WEIGHTED:
            layers[node.name] = layer_name(node)
    return layers, int8, floats


def computes(node: Node) -> bool:
    """Whether a node does arithmetic: neither moves values about nor asks for sizes."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return False
    moves = rules.SAME_RANGE | rules.SPLIT | rules.JOIN | rules.LOOKUP
    value = node.meta.get("val")
    if node.target in moves or not isinstance(value, Tensor):
        return False
    return value.is_floating_point() and any(_is_tensor(a) for a in node.all_input_nodes)


def _is_tensor(node: Node) -> bool:
    return node.op == "call_module" or isinstance(node.meta.get("val"), Tensor)


def layer_name(node: Node) -> str:
    """The module path of a layer: its weight's name less ``.weight``."""
    weight = _source(node.args[1])
    return str(weight.target).removesuffix(".weight")


def _source(node: Any) -> Node:
    """The constant behind an observer."""
    while node.op == "call_module":
        node = node.args[0]
    assert isinstance(node, Node)
    return node


def _check_exact(model: GraphModule, plain: GraphModule, batch: tuple[Tensor, ...]) -> None:
    """Hold the simplified graph against the model.

    Raises:
        EdgepruneError: They differ by more than float rounding.
    """
    with torch.no_grad():
        pairs = zip(_tensors(model(*batch)), _tensors(plain(*batch)), strict=True)
        worst = max(
            (float((a - b).abs().max() / a.abs().max().clamp(min=1e-6)) for a, b in pairs),
            key=lambda apart: inf if isnan(apart) else apart,
            default=0.0,
        )
    if not worst <= _ROUNDING:  # NaN too
        raise EdgepruneError(
            f"quantize: preparing the graph changed its outputs by {worst:.1g} of their range"
        )


def _tensors(result: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _check_ranges(prepared: GraphModule) -> None:
    """Look for activations that aren't finite.

    Raises:
        InputError: The model makes some of the calibration data, which is finite itself; the
            message names the operator.
    """
    for node in prepared.graph.nodes:
        if node.op != "call_module":
            continue
        observer: Any = prepared.get_submodule(str(node.target))
        ends = [getattr(observer, name, torch.zeros(1)) for name in ("min_val", "max_val")]
        if not all(bool(torch.isfinite(end).all()) for end in ends):
            source = node.args[0]
            raise InputError(
                f"quantize: the model itself makes values that aren't finite, at {source} "
                f"({source.target}), from finite calibration data; static int8 has no step for "
                "them: clamp them in the model, or choose numerics other than int8"
            )


def _cover_biases(prepared: GraphModule) -> None:
    """Widen the scale of weight channels so small that their bias would not fit in int32.

    A bias is stored in steps of input scale times weight scale. Dead channels (zero weights after
    batch-norm folding) have biases all the same.
    """
    for node in prepared.graph.nodes:
        if node.op != "call_function" or node.target not in _ACCUMULATING:
            continue
        source, weight, bias = (argument(node, at) for at in range(3))
        if bias is None or source.op != "call_module" or weight.op != "call_module":
            continue
        if bias.op != "get_attr":
            continue
        observer: Any = prepared.get_submodule(weight.target)
        ranged: Any = prepared.get_submodule(source.target)
        scale, _ = ranged.calculate_qparams()
        smallest = value(prepared, bias).abs() / (scale * _BIAS_STEPS)
        observer.max_val.copy_(torch.maximum(observer.max_val, 127 * smallest))
