# SPDX-License-Identifier: Apache-2.0
"""Our PT2E quantizer: activations in asymmetric int8 per tensor, weights in symmetric per channel.

It reads the ATen graph in order, once, by the table in :mod:`edgeprune.quantize.rules`; source
partitions, which non-strict export doesn't record, are not needed.
"""

from collections.abc import Iterable

import torch
from torch.fx import GraphModule, Node

from edgeprune.model.program import argument, quietly
from edgeprune.quantize import rules

with quietly():  # torchao tells of kernels for other machines as it is imported
    from torchao.quantization.pt2e.observer import MinMaxObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import (
        FixedQParamsQuantizationSpec,
        QuantizationAnnotation,
        QuantizationSpec,
        QuantizationSpecBase,
        Quantizer,
        SharedQuantizationSpec,
    )

__all__ = ["EdgeQuantizer", "annotation", "last_of"]

KEY = "quantization_annotation"
"""Where PT2E keeps a node's annotation."""

ACTIVATION = QuantizationSpec(
    dtype=torch.int8,
    observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=2**-16),
    quant_min=-128,
    quant_max=127,
    qscheme=torch.per_tensor_affine,
)


def _weight(axis: int) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-24),
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=axis,
    )


class EdgeQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a graph in plain form (see :mod:`edgeprune.quantize.simplify`).

    Args:
        float_adds: Leave additions float; the residual stream of a transformer loses 4 to 6 dB
            otherwise.
        floats: Names of other operators to leave float.
    """

    def __init__(self, *, float_adds: bool = False, floats: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.float_adds = float_adds
        self.floats = floats

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write what is to be observed into the nodes' metadata."""
        for node in model.graph.nodes:
            if node.op != "call_function" or KEY in node.meta:
                continue
            if node.name not in self.floats:
                self._annotate_node(node)
        return model

    def validate(self, model: GraphModule) -> None:
        """Every annotation that can be written can be run; nothing to check."""

    def _annotate_node(self, node: Node) -> None:
        target = node.target
        if target in rules.WEIGHTED:
            _weighted(node)
        elif target in rules.BINARY:
            if not (self.float_adds and target is not torch.ops.aten.mul.Tensor):
                _binary(node)
        elif target in rules.PRODUCT:
            _fuse(node, _edges(node.args[:2]))
        elif target in rules.JOIN:
            _join(node)
        elif target in rules.SPLIT:
            _split(node)
        elif target in rules.LOOKUP:
            _lookup(node)
        else:
            _unary(node)


def _weighted(node: Node) -> None:
    """Convolution or linear: input, constant weight; the bias is made int32 by the exporters."""
    x, weight = node.args[:2]
    if not _is_float(x) or not isinstance(weight, Node) or weight.op != "get_attr":
        return
    spec = _weight(rules.WEIGHTED[node.target])
    if node.target in rules.CONV_TRANSPOSE:
        _note(node, {weight: spec}, None)
        return
    _fuse(node, {**_edges((x,)), weight: spec})


def _binary(node: Node) -> None:
    if node.kwargs or not all(_is_float(a) for a in node.args[:2]):
        return
    _fuse(node, _edges(node.args[:2]))


def _join(node: Node) -> None:
    parts = list(dict.fromkeys(argument(node, 0)))
    if not any(_is_quantized(a) for a in parts) or not all(_is_float(a) for a in parts):
        return
    edges = _edges(parts)
    output: QuantizationSpecBase = ACTIVATION
    # LiteRT's converter refuses a part that was float until here on another scale than the result.
    floats = [part for part in parts if not _is_quantized(part)]
    if floats:
        output = SharedQuantizationSpec((floats[0], node))
        edges.update(dict.fromkeys(floats[1:], output))
    _note(node, edges, output)


def _split(node: Node) -> None:
    """The list itself can't be observed; each of its readers is."""
    source = argument(node, 0)
    if not _is_quantized(source):
        return
    _note(node, {source: _edge(source)}, None)
    for part in node.users:
        _note(part, {}, SharedQuantizationSpec((source, node)))


def _lookup(node: Node) -> None:
    """A table of rows: one scale, since the rows that come out must share it."""
    table = node.args[0]
    if isinstance(table, Node) and table.op == "get_attr":
        _note(node, {table: ACTIVATION}, SharedQuantizationSpec((table, node)))


def _unary(node: Node) -> None:
    source = node.args[0] if node.args else None
    if not _is_quantized(source) or not _is_float(node):
        return
    assert isinstance(source, Node)
    output: QuantizationSpecBase
    whole = rules.averages_all(node)
    if node.target in rules.SAME_RANGE or (node.target in rules.AVERAGE and not whole):
        output = SharedQuantizationSpec((source, node))
    elif node.target in rules.OWN_RANGE or whole:
        output = ACTIVATION
    elif node.target in rules.FIXED:
        scale, zero_point = rules.FIXED[node.target]
        output = FixedQParamsQuantizationSpec(
            dtype=torch.int8,
            scale=scale,
            zero_point=zero_point,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
        )
    else:
        return
    _note(node, {source: _edge(source)}, output)


def last_of(node: Node) -> Node:
    """The end of ``node [batch_norm] [relu]``: whose output the fused kernel writes."""
    end = node
    following = _only_user(end)
    if following is not None and following.target in rules.NORM:
        end, following = following, _only_user(following)
    if following is not None and rules.relu_bounds(following) is not None:
        end = following
    return end


def _fuse(node: Node, inputs: dict[Node, QuantizationSpecBase]) -> None:
    end = last_of(node)
    _note(node, inputs, ACTIVATION if end is node else None)
    step = node
    while step is not end:
        step = next(iter(step.users))
        _note(step, {}, ACTIVATION if step is end else None)


def _edges(inputs: Iterable[object]) -> dict[Node, QuantizationSpecBase]:
    return {a: _edge(a) for a in inputs if isinstance(a, Node)}


def _edge(source: Node) -> QuantizationSpecBase:
    """An input's spec: its producer's own where that is bound to others or fixed.

    LiteRT refuses a reshape whose two sides were observed apart.
    """
    made = annotation(source)
    bound = (SharedQuantizationSpec, FixedQParamsQuantizationSpec)
    if made is not None and isinstance(made.output_qspec, bound):
        return SharedQuantizationSpec(source)
    return ACTIVATION


def _note(
    node: Node, inputs: dict[Node, QuantizationSpecBase], output: QuantizationSpecBase | None
) -> None:
    node.meta[KEY] = QuantizationAnnotation(
        input_qspec_map=dict(inputs), output_qspec=output, _annotated=True
    )


def annotation(node: Node) -> QuantizationAnnotation | None:
    """What the quantizer wrote at a node."""
    return node.meta.get(KEY)


def _is_quantized(node: object) -> bool:
    made = annotation(node) if isinstance(node, Node) else None
    return made is not None and made.output_qspec is not None


def _is_float(node: object) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
