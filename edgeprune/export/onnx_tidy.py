# SPDX-License-Identifier: Apache-2.0
"""Make an ONNX file small, the same each time, and free of what tells of Python or a machine.

None of these edits changes what the model computes. On a network of a few thousand weights, names
and defaults are a third of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count

import onnx
from onnx import ModelProto

from edgeprune.errors import EdgepruneError
from edgeprune.export.onnx_passes import all_graphs, all_nodes, clean, initializers

__all__ = ["finish", "name_layers", "name_outputs"]

_PRODUCTS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger"})
_SHORT = (
    (re.compile(r"^quantize_per_tensor(?:_(\d+))?$"), "q"),
    (re.compile(r"^dequantize_per_tensor(?:_(\d+))?$"), "d"),
    (re.compile(r"^dequantize_per_channel(?:_(\d+))?$"), "w"),
)


def name_outputs(proto: ModelProto, names: Sequence[str]) -> None:
    """Call the outputs by ``names``: inner values of such a name get another, and an output that is
    an input, a constant or the same value as another one a value of its own."""
    graph = proto.graph
    stored = {i.name for i in graph.input} | {tensor.name for tensor in graph.initializer}
    inner = {output for node in all_nodes(graph) for output in node.output}
    taken = stored | inner | set(names)
    renamed: dict[str, str] = {}
    for output, name in zip(graph.output, names, strict=True):
        if output.name not in stored:
            renamed.setdefault(output.name, name)
    for value in sorted(inner.intersection(names) - renamed.keys()):
        free = next(f"{value}_{n}" for n in count(1) if f"{value}_{n}" not in taken)
        taken.add(free)
        renamed[value] = free
    _rename_inner(graph, renamed)
    for output, name in zip(graph.output, names, strict=True):
        source = renamed.get(output.name, output.name)
        output.name = name
        if source != name:
            graph.node.append(onnx.helper.make_node("Identity", [source], [name]))


def _rename_inner(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Rename values wherever a node, or a branch inside one, gives or takes them."""
    for part in all_graphs(graph):
        for node in part.node:
            for values in (node.input, node.output):
                values[:] = [renamed.get(value, value) for value in values]
        for output in part.output if part is not graph else ():
            output.name = renamed.get(output.name, output.name)


def name_layers(proto: ModelProto) -> None:
    """Call each convolution and linear layer by the module path of its weight."""
    stored = initializers(proto)
    maker = {output: node for node in proto.graph.node for output in node.output}
    taken: set[str] = set()
    for node in proto.graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        weight = node.input[1]
        behind = maker.get(weight)
        if behind is not None and behind.op_type == "DequantizeLinear":
            weight = behind.input[0]
        layer, dot, _ = weight.rpartition(".weight")
        if weight in stored and dot and layer not in taken:
            taken.add(layer)
            node.name = layer


def finish(proto: ModelProto, opset: int) -> None:
    """The last edits, and the check.

    Raises:
        EdgepruneError: The model is not valid, or of another opset.
    """
    _strip(proto)
    _drop_defaults(proto, opset)
    _share_constants(proto)
    _shorten(proto)
    clean(proto)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    if versions.get("") != opset:
        raise EdgepruneError(f"onnx: asked for opset {opset}, the exporter gave {versions.get('')}")
    standard = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    proto.ir_version = onnx.helper.find_min_ir_version_for(standard)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = str(error).strip().splitlines()[0]
        raise EdgepruneError(f"onnx: the exported model is not valid: {first}") from error


def _strip(proto: ModelProto) -> None:
    graph = proto.graph
    proto.producer_name, proto.producer_version, graph.name = "edgeprune", "", "model"
    for part in (proto, graph, *all_nodes(graph), *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _drop_defaults(proto: ModelProto, opset: int) -> None:
    """Attributes that say what the operator's definition says anyway."""
    scalar = {t.name for t in proto.graph.initializer if not t.dims}
    for node in all_nodes(proto.graph):
        if node.domain or not onnx.defs.has(node.op_type, opset):
            continue
        known = onnx.defs.get_schema(node.op_type, opset).attributes
        per_tensor = node.op_type.endswith("quantizeLinear") or node.op_type == "QuantizeLinear"
        for attribute in list(node.attribute):
            default = known[attribute.name].default_value if attribute.name in known else None
            plain = onnx.AttributeProto()
            plain.CopyFrom(attribute)
            plain.doc_string = ""
            moot = per_tensor and attribute.name == "axis" and node.input[1] in scalar
            if moot or (default is not None and default.name and plain == default):
                node.attribute.remove(attribute)


def _share_constants(proto: ModelProto) -> None:
    """Keep one of several equal initializers."""
    outputs = {o.name for graph in all_graphs(proto.graph) for o in graph.output}
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        anonymous = onnx.TensorProto()
        anonymous.CopyFrom(tensor)
        anonymous.name = ""
        if tensor.name not in outputs:
            kept = first.setdefault(anonymous.SerializeToString(deterministic=True), tensor.name)
            renamed[tensor.name] = kept
    for node in all_nodes(proto.graph):
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def _shorten(proto: ModelProto) -> None:
    """Give values that only passes between nodes short names, and products alone a node name."""
    graph = proto.graph
    edges = {e.name for part in all_graphs(graph) for e in (*part.input, *part.output)}
    taken = edges | {t.name for t in graph.initializer}
    taken.update(output for node in all_nodes(graph) for output in node.output)
    renamed: dict[str, str] = {}
    for node in graph.node:
        for output in node.output:
            for pattern, letter in _SHORT:
                match = pattern.match(output)
                short = f"{letter}{match[1] or 0}" if match else output
                if match and output not in edges and short not in taken:
                    renamed[output] = short
                    taken.add(short)
    for node in all_nodes(graph):
        if node.op_type not in _PRODUCTS:
            node.name = ""
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = renamed.get(name, name)
