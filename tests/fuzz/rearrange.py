# SPDX-License-Identifier: Apache-2.0
"""Files that are whole as files and wrong as models: operators with other inputs, types and sizes.

A changed byte seldom gives one: most end in the parser. What reads the graph needs these.
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import onnx
from google.protobuf.message import EncodeError

from edgeprune.artifact.operators import ONNX_PRODUCTS, ONNX_QUANTIZABLE
from edgeprune.export import flatbuffer
from tests.model_files import control, lite_branches, lite_cnn, lite_model, quantized

__all__ = ["rearranged"]

_SIZES = (0, 1, 2, 3, 7, -1, -2, 2**31 - 1, 2**62)


def rearranged(form: str, chance: random.Random) -> bytes:
    """One of the small models with a few things in other places, as a file."""
    make = _lite if form == "tflite" else _onnx
    while True:
        try:
            return make(chance)
        except (EncodeError, ValueError, TypeError, OverflowError):
            continue  # the writer won't write that


@cache
def _kinds() -> tuple[str, ...]:
    """All of ONNX, and what edgeprune's tables know beyond it."""
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    return tuple(sorted(known | ONNX_PRODUCTS | ONNX_QUANTIZABLE))


def _onnx(chance: random.Random) -> bytes:
    model = chance.choice((quantized, control))()
    nodes = [*_nodes(model.graph), *(n for f in model.functions for n in f.node)]
    names = sorted({name for node in nodes for name in (*node.input, *node.output)} | {"", "new"})
    for _ in range(chance.choice((1, 1, 2, 3))):
        node = chance.choice(nodes)
        if chance.random() < 0.15:
            _resize(chance.choice(list(model.graph.initializer)).dims, chance)
        elif chance.random() < 0.2:
            node.op_type, node.domain = (
                chance.choice(_kinds()),
                chance.choice(("", "com.microsoft")),
            )
        elif chance.random() < 0.2 and node.attribute:
            del node.attribute[chance.randrange(len(node.attribute))]
        else:
            _rewire(chance.choice((node.input, node.output)), names, chance)
    return model.SerializeToString()


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)


def _rewire(places: Any, names: Any, chance: random.Random) -> None:
    """Take one away, put one in, turn one into another, or take all."""
    at = chance.randrange(len(places)) if len(places) else 0
    match chance.randrange(4):
        case 0 if len(places):
            del places[at]
        case 1 if len(places):
            places[at] = chance.choice(names)
        case 2:
            places.append(chance.choice(names))
        case _:
            del places[:]


def _resize(dims: Any, chance: random.Random) -> None:
    if chance.random() < 0.5 and len(dims):
        del dims[chance.randrange(len(dims))]
    elif len(dims) and chance.random() < 0.5:
        dims[chance.randrange(len(dims))] = chance.choice(_SIZES)
    else:
        dims.append(chance.choice(_SIZES))


def _lite(chance: random.Random) -> bytes:
    model = lite_model(*chance.choice(((lite_cnn(),), lite_branches())))
    graph = chance.choice(model.subgraphs)
    for _ in range(chance.choice((1, 1, 2, 3))):
        operator = chance.choice(graph.operators)
        kind = chance.random()
        if kind < 0.15:
            _resize(chance.choice(graph.tensors).shape, chance)
        elif kind < 0.3:
            chance.choice(graph.tensors).type = chance.randrange(20)
        elif kind < 0.5:
            code = chance.choice(model.operatorCodes)
            code.builtinCode = code.deprecatedBuiltinCode = chance.randrange(128)
        elif kind < 0.6:
            operator.builtinOptions, operator.builtinOptionsType = None, chance.randrange(100)
        else:
            places = chance.choice((operator.inputs, operator.outputs, graph.inputs, graph.outputs))
            _rewire(places, range(-1, len(graph.tensors) + 1), chance)
    return flatbuffer.pack(model)
