# SPDX-License-Identifier: Apache-2.0
"""One number for what a program computes: its graph and its state, under any node names."""

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from edgeprune.model.program import identity

__all__ = ["digest"]


def digest(program: ExportedProgram, prefix: str) -> str:
    """The sha256 (hex) over ``prefix``, graph, signature, parameters, buffers and constants."""
    sha = hashlib.sha256(prefix.encode())
    sha.update(_graph_text(program.graph_module).encode())
    signature = program.graph_signature
    for spec in signature.input_specs:
        sha.update(f"\nin {spec.kind.name} {spec.target} {spec.persistent}".encode())
    for out in signature.output_specs:
        sha.update(f"\nout {out.kind.name} {out.target}".encode())
    first: dict[object, str] = {}
    state = {**program.state_dict, **program.constants}
    for name in sorted(state):
        _add(sha, name, state[name], first)
    return sha.hexdigest()


def _add(sha: Any, name: str, value: Any, first: dict[object, str]) -> None:
    if not isinstance(value, Tensor):
        sha.update(f"\n{name} {value!r}".encode())
        return
    known = first.setdefault(identity(value), name)
    sha.update(f"\n{name} {value.dtype} {tuple(value.shape)} {known}".encode())
    if known == name:
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(raw.numpy().data)


def _graph_text(module: torch.fx.GraphModule) -> str:
    """Each node on a line: what it is, and the numbers of the nodes that it takes."""
    numbers = {node: f"%{i}" for i, node in enumerate(module.graph.nodes)}
    lines = []
    for node in module.graph.nodes:
        args = _text(node.args, numbers)
        kwargs = _text(dict(sorted(node.kwargs.items())), numbers)
        target = "" if node.op in ("placeholder", "output") else _target(node.target)
        lines.append(f"{node.op} {target} {args} {kwargs}")
        if node.op == "get_attr":
            part = getattr(module, node.target, None)
            if isinstance(part, torch.fx.GraphModule):
                lines.append(f"{{{_graph_text(part)}}}")
    return "\n".join(lines)


def _target(target: Any) -> str:
    if isinstance(target, str | torch._ops.OpOverload):
        return str(target)
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"


def _text(value: Any, numbers: dict[torch.fx.Node, str]) -> str:
    if isinstance(value, torch.fx.Node):
        return numbers[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text(v, numbers) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_text(v, numbers)}' for k, v in value.items())}}}"
    return repr(value)
