# SPDX-License-Identifier: Apache-2.0
"""Find the operator at which a converter fails, or a file begins to differ from its model.

The graph is cut behind an operator, what is before the cut is converted and run by itself, and the
cut is moved by bisection: no names need to survive the conversion, and both formats are alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from edgeprune.errors import CheckFailed, EdgepruneError, InputError
from edgeprune.export.closeness import sqnr_db
from edgeprune.export.feed import artifact_runner
from edgeprune.model import Event, Model, runner
from edgeprune.model.capture import as_model, capture_program
from edgeprune.model.run import Arrays
from edgeprune.model.shapes import zeros
from edgeprune.recipe import Format

__all__ = ["Refused", "Unlike", "locate"]

Write = Callable[[Model, Path], object]

_QUANTIZE = ("::quantize_per_tensor", "::quantize_per_channel")


class Refused(InputError):
    """A converter can't translate a model."""


class Unlike(CheckFailed):
    """An artifact's outputs are too far from its model's."""

    def __init__(self, text: str, least_db: float) -> None:
        super().__init__(text)
        self.least_db = least_db
        """Signal to noise below which an output counts as wrong."""


def locate(
    model: Model, form: Format, write: Write, fault: Refused | Unlike, batch: Arrays
) -> str | None:
    """Name the first operator that is refused, or at which the outputs become wrong.

    Args:
        model: What is converted.
        form: The format.
        write: Converts a model to a file.
        fault: What went wrong with the whole of it.
        batch: Inputs, on which the cut models are run.

    Returns:
        Layer, operator, sizes and settings; ``None`` where no cut model shows the fault.
    """
    least = fault.least_db if isinstance(fault, Unlike) else None
    cuts = _cuts(model.module())
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / f"part.{form}"
        low, high, found = 0, len(cuts), None
        while low < high:
            middle = (low + high) // 2
            if _faulty(model, cuts[middle], write, path, least, batch):
                high, found = middle, cuts[middle]
            else:
                low = middle + 1
    return None if found is None else _told(model.module(), found)


def _cuts(module: GraphModule) -> list[str]:
    """The operators behind which the graph may be cut, in order.

    Not between a product and the rounding of its result: runtimes do both at once.
    """
    moving: set[Node] = set()
    cuts = []
    for node in module.graph.nodes:
        if node.op == "placeholder" or moving.intersection(node.all_input_nodes):
            moving.add(node)
        value = node.meta.get("val")
        floating = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0
        rounded = bool(node.users) and all(_quantizes(user) for user in node.users)
        if node.op == "call_function" and node in moving and floating and not rounded:
            cuts.append(node.name)
    return cuts


def _quantizes(node: Node) -> bool:
    name = getattr(node.target, "_schema", node.target)
    return str(getattr(name, "name", name)).endswith(_QUANTIZE)


def _faulty(
    model: Model, cut: str, write: Write, path: Path, least: float | None, batch: Arrays
) -> bool:
    """Whether the model up to ``cut`` is refused or, where ``least`` is given, wrong."""
    try:
        part = _before(model, cut)
        write(part, path)
        return least is not None and _worst(part, path, batch) < least
    except Refused:
        return least is None
    except (EdgepruneError, RuntimeError, ValueError):  # it can't be cut here, or a runtime fails
        return False


def _before(model: Model, cut: str) -> Model:
    """The model up to a node; its outputs are all values that later nodes read."""
    module = model.module()
    cuts = _cuts(module)
    last = cuts.index(cut)
    nodes = {node.name: node for node in module.graph.nodes}
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    end = order[nodes[cut]]
    ends = [
        nodes[name]
        for name in cuts[: last + 1]
        if name == cut or any(order[user] > end for user in nodes[name].users)
    ]
    (output,) = module.graph.find_nodes(op="output")
    output.args = (ends[0] if len(ends) == 1 else tuple(ends),)
    module.graph.eliminate_dead_code()
    module.graph.set_codegen(CodeGen())  # the old one gives as many outputs as the whole model
    module.recompile()
    example = zeros((i.shape, i.dtype) for i in model.inputs)
    captured = capture_program(module, example, dynamic=model.dynamic_batch, axes=model.batch_axes)
    return as_model(captured, Event("locate")).evolve(
        captured.program, Event("locate"), model.numerics
    )


def _worst(part: Model, path: Path, batch: Arrays) -> float:
    """The least signal to noise of the outputs of a file, in dB."""
    pairs = zip(runner(part)(batch), artifact_runner(path, part)(batch), strict=True)
    return min((_ratio(wanted, got) for wanted, got in pairs), default=inf)


def _ratio(wanted: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> float:
    if wanted.shape != got.shape:
        return -inf
    error = got.astype(np.float64) - wanted
    if not np.isfinite(error).all():  # as far away as can be
        return -inf
    ratio = sqnr_db(wanted.astype(np.float64), error)
    return inf if ratio is None else ratio


def _told(module: GraphModule, name: str) -> str:
    (node,) = (node for node in module.graph.nodes if node.name == name)
    node = _computed(node)
    layer, facts = _layer(node), [*_sizes(node), *_settings(node)]
    where = f"layer '{layer}', " if layer else ""
    read = [_operator(n) for n in map(_computed, node.all_input_nodes) if n.op == "call_function"]
    behind = f", which reads {' and '.join(read)}" if read else ""
    return f"{where}operator {_operator(node)} ({', '.join(facts)}){behind}"


def _computed(node: Node) -> Node:
    """What a value was before it was rounded."""
    while node.op == "call_function" and "quantize_per_" in str(node.target):
        node = node.all_input_nodes[0]
    return node


def _operator(node: Node) -> str:
    return str(node.target).removeprefix("aten.")


def _layer(node: Node) -> str:
    """The module that an operator belongs to: by its weight, or by where it was called."""
    for source in node.all_input_nodes:
        while source.op == "call_function" and len(source.all_input_nodes) == 1:
            (source,) = source.all_input_nodes
        if source.op == "get_attr" and str(source.target).endswith(".weight"):
            return str(source.target).removesuffix(".weight")
    calls: Sequence[Any] = list(node.meta.get("nn_module_stack", {}).values())
    return str(calls[-1][0]) if calls else ""


def _sizes(node: Node) -> list[str]:
    sources = (n.meta.get("val") for n in node.all_input_nodes if n.op != "get_attr")
    before = next((value for value in sources if isinstance(value, Tensor)), None)
    after = node.meta.get("val")
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return []
    return [f"{_size(before)} to {_size(after)}"]


def _size(value: Tensor) -> str:
    return "x".join("N" if isinstance(s, torch.SymInt) else str(s) for s in value.shape)


def _settings(node: Node) -> list[str]:
    """Arguments that are given, no tensors and no defaults."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    given = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False))
    defaults = {
        a.name: a.default_value for a in node.target._schema.arguments if a.has_default_value()
    }
    return [
        f"{name} {value}"
        for name, value in (given | node.kwargs).items()
        if value is not None
        and not _holds_node(value)
        and (name not in defaults or value != defaults[name])
    ]


def _holds_node(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_holds_node(each) for each in value)
    return isinstance(value, Node)
