# SPDX-License-Identifier: Apache-2.0
"""Passes over a static int8 ONNX model, each editing it in place.

They turn PyTorch's quantize/dequantize form into the one that onnxruntime fuses: unsigned
activations (its signed kernels run at a fifth of float's speed on x86, and its own rewrite misses
tensors with two readers) and 32-bit integer biases (without them older versions fuse nothing).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = [
    "activations_to_uint8",
    "all_graphs",
    "all_nodes",
    "clean",
    "fold_pads",
    "initializers",
    "integer_bias",
    "pad_integers",
    "sort_nodes",
    "torch_gates",
]

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def activations_to_uint8(model: ModelProto) -> None:
    """Move quantized activations from int8 to uint8; exact, as values and zero points shift by 128.

    Constant operands of element-wise operators shift too, since a kernel wants one type. Weights
    stay int8.
    """
    stored = initializers(model)
    weights = {n.input[1] for n in model.graph.node if n.op_type in _WEIGHTED}
    added: dict[str, TensorProto] = {}
    for node in model.graph.node:
        if node.op_type not in _QUANTIZERS:
            continue
        constant = node.input[0] in stored
        if constant and node.output[0] in weights:
            continue
        places = (0, 2) if constant else (2,)
        for place in places:
            array = numpy_helper.to_array(stored[node.input[place]])
            if array.dtype == np.int8:
                name = f"{node.input[place]}_uint8"
                shifted = (array.astype(np.int16) + 128).astype(np.uint8)
                added[name] = numpy_helper.from_array(shifted, name)
                node.input[place] = name
    model.graph.initializer.extend(added.values())
    clean(model)


def integer_bias(model: ModelProto) -> None:
    """Store the bias of each quantized convolution and Gemm as int32 on the accumulator's grid."""
    stored, maker = initializers(model), _makers(model)
    added: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        sources = [maker.get(name) for name in node.input[:2]]
        bias = stored.get(node.input[2])
        if bias is None or any(s is None or s.op_type != "DequantizeLinear" for s in sources):
            continue
        scales = [numpy_helper.to_array(stored[s.input[1]]) for s in sources if s is not None]
        added.append(_bias(model, node, numpy_helper.to_array(bias), scales[0] * scales[1]))
    nodes = [*added, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    clean(model)


def _bias(
    model: ModelProto, node: NodeProto, bias: np.ndarray[Any, Any], scale: np.ndarray[Any, Any]
) -> NodeProto:
    """Add ``bias`` as integers with a dequantizer, and make ``node`` read that."""
    limits = np.iinfo(np.int32)
    scale = np.broadcast_to(scale, bias.shape).astype(np.float32)
    wide = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    constants = {
        "int32": np.clip(wide, limits.min, limits.max).astype(np.int32),
        "scale": scale,
        "zero_point": np.zeros(bias.shape, np.int32),
    }
    name = f"{node.name}.bias"
    for role, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_{role}"))
    inputs = [f"{name}_{role}" for role in constants]
    node.input[2] = f"{name}_dequantized"
    return helper.make_node("DequantizeLinear", inputs, [node.input[2]], name=name, axis=0)


def pad_integers(model: ModelProto) -> None:
    """Pad with zeros on the integers: the zero point is what stands for zero.

    onnxruntime leaves ``DequantizeLinear, Pad, QuantizeLinear`` as it is.
    """
    stored, maker = initializers(model), _makers(model)
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in list(model.graph.node):
        before = maker.get(node.input[0]) if node.op_type == "Pad" else None
        if before is None or before.op_type != "DequantizeLinear" or before.input[0] in stored:
            continue
        after = [n for n in model.graph.node if node.output[0] in n.input]
        single = len(after) == 1 and after[0].op_type == "QuantizeLinear"
        if not single or not _same_grid(before, after[0], stored) or not _pads_zero(node, stored):
            continue
        node.input[0] = before.input[0]
        tail = list(node.input[3:])
        del node.input[2:]
        node.input.extend([before.input[2], *tail])
        node.output[0] = after[0].output[0]
        model.graph.node.remove(after[0])
        if readers[before.output[0]] == 1:
            model.graph.node.remove(before)
    clean(model)


def fold_pads(model: ModelProto) -> None:
    """Let convolutions pad for themselves where a Pad of the integers feeds them alone."""
    stored = initializers(model)
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for pad in [n for n in model.graph.node if n.op_type == "Pad"]:
        (middle, *rest) = readers.get(pad.output[0]) or [pad]
        (conv, *others) = readers.get(middle.output[0]) or [pad]
        direct = middle.op_type == "DequantizeLinear" and conv.op_type == "Conv"
        if rest or others or not direct or conv.input[0] != middle.output[0]:
            continue
        amounts = stored.get(pad.input[1])
        if amounts is None or len(pad.input) != 3 or pad.input[2] != middle.input[2]:
            continue
        if _widen(conv, numpy_helper.to_array(amounts)):
            middle.input[0] = pad.input[0]
            model.graph.node.remove(pad)
    clean(model)


def _widen(conv: NodeProto, amounts: np.ndarray[Any, Any]) -> bool:
    """Add to a convolution's padding; ``amounts`` are of all axes, first before, then behind."""
    before, behind = np.split(amounts, 2)
    known = {a.name: a for a in conv.attribute}
    mode = known["auto_pad"].s if "auto_pad" in known else b"NOTSET"
    if mode != b"NOTSET" or amounts.min() < 0 or before[:2].any() or behind[:2].any():
        return False
    extra = np.concatenate([before[2:], behind[2:]])
    if "pads" in known:
        extra = extra + np.array(known["pads"].ints)
        conv.attribute.remove(known["pads"])
    conv.attribute.append(helper.make_attribute("pads", extra.tolist()))
    return True


def _same_grid(one: NodeProto, other: NodeProto, stored: dict[str, TensorProto]) -> bool:
    return all(
        np.array_equal(numpy_helper.to_array(stored[a]), numpy_helper.to_array(stored[b]))
        for a, b in zip(one.input[1:], other.input[1:], strict=True)
    )


def _pads_zero(node: NodeProto, stored: dict[str, TensorProto]) -> bool:
    modes = [a.s.decode() for a in node.attribute if a.name == "mode"]
    if modes not in ([], ["constant"]):
        return False
    constant = node.input[2] if len(node.input) > 2 else ""
    if not constant:
        return True
    return constant in stored and not numpy_helper.to_array(stored[constant]).any()


def sort_nodes(model: ModelProto) -> None:
    """Put each node after those that it reads from; otherwise the order stays."""
    waiting, ordered = list(model.graph.node), []
    missing = {output for node in waiting for output in node.output}
    while waiting:
        late = []
        for node in waiting:
            if missing.isdisjoint(_reads(node)):
                ordered.append(node)
                missing.difference_update(node.output)
            else:
                late.append(node)
        if len(late) == len(waiting):
            break  # a circle; the checker will say where
        waiting = late
    del model.graph.node[:]
    model.graph.node.extend([*ordered, *waiting])


def _reads(node: NodeProto) -> set[str]:
    """All names that a node uses, inside its branches and bodies too."""
    alone = GraphProto(node=[node])
    results = (o.name for graph in all_graphs(alone) for o in graph.output)
    return {*results, *(name for inner in all_nodes(alone) for name in inner.input)}


def torch_gates(model: ModelProto) -> None:
    """Say of each GRU that its candidate state is reset after the product, as torch's is.

    The translation (onnxscript 0.7) gives the biases in that form, ``r * (W h + b)``, and sets the
    operator to the other one.
    """
    for node in all_nodes(model.graph):
        if node.op_type == "GRU":
            others = [a for a in node.attribute if a.name != "linear_before_reset"]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute("linear_before_reset", 1)])


def clean(model: ModelProto) -> None:
    """Drop initializers that nothing reads, and inferred types, which a pass makes stale."""
    used = {name for node in all_nodes(model.graph) for name in node.input}
    used.update(output.name for graph in all_graphs(model.graph) for output in graph.output)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, and the branches and bodies of its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for part in (*inner, *attribute.graphs):
                yield from all_graphs(part)


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph, and of the branches and bodies inside it."""
    for part in all_graphs(graph):
        yield from part.node


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    """The stored tensors by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _makers(model: ModelProto) -> dict[str, NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}
