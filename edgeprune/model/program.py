# SPDX-License-Identifier: Apache-2.0
"""Handling of one ``torch.export`` program: as a runnable module, flat, owned and tidy."""

import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

__all__ = [
    "argument",
    "copied",
    "flatten",
    "holder",
    "identity",
    "is_flat",
    "own",
    "quietly",
    "reason",
    "swept",
    "tensors",
    "tidied",
    "unlift",
    "value",
]

_LOCAL = ("stack_trace", "from_node")
"""Node metadata that tells files and lines of this machine, and grows with each export."""


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what torch prints about its own inner life (warnings, log lines, graphs) off the
    terminal, and what the user's own code prints while it is traced."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def reason(error: BaseException, limit: int = 240) -> str:
    """What ``error`` says, in one line of at most ``limit`` characters.

    Torch's long texts on dynamic shapes are put into plain words.
    """
    full = str(error)
    lines = [line.strip() for line in full.splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if lines and not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {text}"
    if "specialized it to be a constant" in full:
        text = "the model's code fixes the batch size"
    elif "data-dependent" in text:
        where = re.search(r"raised this error:\s+(?:File \"[^\"]*\", )?(.+)\n\s*(.+)", full)
        line = f" ({where[1].strip()}: {where[2].strip()})" if where else ""
        text = f"the model's control flow depends on its data{line}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def unlift(program: ExportedProgram) -> torch.fx.GraphModule:
    """A runnable copy of ``program``: see ``Model.module``."""
    with quietly():
        module = program.module(check_guards=False)
    # The hooks left check shapes (and so would pin the batch) or serve module-typed inputs.
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        hooks.clear()
    copies: dict[object, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            part._parameters[name] = _copy(parameter, copies)
        for name, buffer in part._buffers.items():
            part._buffers[name] = _copy(buffer, copies)
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                setattr(part, name, _copy(value, copies))
    return module


def _copy(value: Any, copies: dict[object, Tensor]) -> Any:
    """A copy of a tensor (of anything else: itself); the same copy each time for the same one."""
    if not isinstance(value, Tensor):
        return value
    key = identity(value)
    if key not in copies:
        copy = value.detach().clone(memory_format=torch.contiguous_format)
        if isinstance(value, nn.Parameter):
            copy = nn.Parameter(copy, requires_grad=copy.is_floating_point())
        copies[key] = copy
    return copies[key]


def identity(value: Tensor) -> object:
    """Equal for two tensors that are the same memory seen the same way: tied parameters.

    A tied pair read from a file is two objects over one memory, so ``is`` doesn't tell.
    """
    if value.numel() == 0:
        return id(value)
    kind = isinstance(value, nn.Parameter)
    return value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), kind


def own(program: ExportedProgram) -> ExportedProgram:
    """Cut ``program`` loose, in place, from where it was captured; returns it.

    Its state becomes copies (ties kept), its example inputs zeros, and the metadata that names
    local files goes.
    """
    copies: dict[object, Tensor] = {}
    for store in (program.state_dict, program.constants):
        for name, value in store.items():
            store[name] = _copy(value, copies)
    if program.example_inputs is not None:
        program.example_inputs = pytree.tree_map_only(
            Tensor, torch.zeros_like, program.example_inputs
        )
    return tidied(program)


def tidied(program: ExportedProgram) -> ExportedProgram:
    """Take away, in place, the metadata that names local files or asks for checks; returns it."""
    program._guards_code = []  # Python text that torch would run; our modules check nothing.
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                _tidy(node.meta)
    return program


def swept(program: ExportedProgram) -> ExportedProgram:
    """Take out, in place, nodes that neither an output nor a write needs; returns it.

    A layer that nothing uses would else count in every figure, and checks of types and devices
    would keep it alive.
    """
    program.graph.eliminate_dead_code(is_impure_node=_acts)
    program.graph_module.recompile()
    return program


def _acts(node: torch.fx.Node) -> bool:
    """Whether a node does something besides its value."""
    if node.op != "call_function":
        return node.op != "get_attr"
    if isinstance(node.target, torch._ops.OpOverload):
        return bool(node.target._schema.is_mutable)
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def copied(program: ExportedProgram) -> torch.fx.Graph:
    """A copy of the program's graph, each node under its own name.

    ``deepcopy`` renames what is called like a word of Python: ``input`` of a bare nn.Sequential.
    """
    graph: torch.fx.Graph = copy.deepcopy(program.graph)
    for mine, theirs in zip(graph.nodes, program.graph.nodes, strict=True):
        if mine.name != theirs.name:  # a look through a table that setting a name costs
            mine.name = theirs.name
    return graph


def _tidy(meta: dict[str, Any]) -> None:
    for key in _LOCAL:
        meta.pop(key, None)
    if "val" in meta:
        meta["val"] = pytree.tree_map_only(Tensor, _at_origin, meta["val"])
    custom = meta.get("custom")
    if isinstance(custom, dict):
        kept = {k: v for k, v in custom.items() if not str(k).startswith("_torchdynamo")}
        meta.update(custom=kept) if kept else meta.pop("custom")


def _at_origin(value: Tensor) -> Tensor:
    """A fake tensor without its place in memory, which wouldn't survive a second reading."""
    if not isinstance(value, FakeTensor) or value.storage_offset() == 0:
        return value
    return value.new_empty_strided(value.size(), value.stride()).requires_grad_(value.requires_grad)


def is_flat(program: ExportedProgram) -> bool:
    """Whether ``program`` takes tensors by position and gives a tensor or a tuple of them."""
    takes, gives = program.call_spec
    if takes is None or gives is None:
        return False
    plain, named = takes.children()
    leaves = [*plain.children(), *([] if gives.is_leaf() else gives.children())]
    return (
        named.num_leaves == 0
        and all(isinstance(value, Tensor) for value in tensors(program))
        and all(leaf.is_leaf() for leaf in leaves)
        and (gives.is_leaf() or gives.type in (tuple, list))
        and all(isinstance(value, Tensor) for value in tensors(program, outputs=True))
    )


def tensors(program: ExportedProgram, *, outputs: bool = False) -> list[Any]:
    """The fake tensors (or constants) that a program takes, or gives where ``outputs``."""
    signature = program.graph_signature
    names = signature.user_outputs if outputs else signature.user_inputs
    values = {n.name: n.meta.get("val") for n in program.graph.nodes}
    return [values.get(name) if isinstance(name, str) else name for name in names]


def flatten(module: torch.fx.GraphModule) -> None:
    """Make an unlifted module take tensors by position and give one or a tuple of them, in place.

    Dictionaries, data classes and keyword arguments come apart in their own order; inputs and
    outputs that are no tensors go. So no class of the user is needed to read the program back.
    """
    for node in module.graph.find_nodes(op="placeholder"):
        if not isinstance(node.meta.get("val"), Tensor) and not node.users:
            module.graph.erase_node(node)
    (output,) = module.graph.find_nodes(op="output")
    results = pytree.tree_leaves(output.args[0])
    kept = [r for r in results if isinstance(r, torch.fx.Node) and _is_tensor(r)]
    output.args = (kept[0] if len(kept) == 1 else tuple(kept),)
    module.graph.set_codegen(CodeGen())
    module.recompile()


def _is_tensor(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def argument(node: torch.fx.Node, index: int, default: Any = None) -> Any:
    """A positional argument of an ATen call, wherever it is given."""
    if len(node.args) > index:
        return node.args[index]
    if not isinstance(node.target, torch._ops.OpOverload):
        return default
    names = [a.name for a in node.target._schema.arguments]
    return node.kwargs.get(names[index], default) if len(names) > index else default


def holder(module: torch.fx.GraphModule, name: str) -> tuple[nn.Module, str]:
    """The submodule that a dotted name leads to, and the attribute of it."""
    path, _, attribute = name.rpartition(".")
    return module.get_submodule(path), attribute


def value(module: torch.fx.GraphModule, node: torch.fx.Node) -> Tensor:
    """The parameter, buffer or constant that a ``get_attr`` node reads."""
    owner, attribute = holder(module, str(node.target))
    tensor = getattr(owner, attribute)
    assert isinstance(tensor, Tensor)
    return tensor.detach()
