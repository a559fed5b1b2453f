# SPDX-License-Identifier: Apache-2.0
"""Weights and buffers of a module, and how they come back into the program that it was made of."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from edgeprune.errors import ModelError
from edgeprune.model.carrier import Event, Model

__all__ = ["State", "read_state", "with_state", "write_state"]

State = dict[str, Tensor]


def read_state(module: nn.Module) -> State:
    """Copies of all parameters and buffers, tied and non-persistent ones too, by name."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(module).items()}


@torch.no_grad()
def write_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what ``read_state`` gave, into the same tensors (an optimizer keeps its hold)."""
    for name, tensor in _tensors(module).items():
        tensor.copy_(state[name])


@torch.no_grad()
def with_state(model: Model, state: Mapping[str, Tensor], event: Event) -> Model:
    """``model`` with the parameters and buffers of ``state``: same graph, same names, same ties.

    Nothing is exported again: copies of the program's tensors are overwritten, so the result
    computes exactly what a module with this state does in eval mode.

    Args:
        model: Where ``state`` came from (``read_state(model.module())``, trained since).
        state: Tensors by the program's own names, each of its old shape and type.
        event: For the history.

    Raises:
        ModelError: Two tied parameters have different values in ``state``.
    """
    # The graph is shared, as nobody edits a program's graph; a copy of it would rename an input
    # that is called like one of Python's own functions (`input`), against its signature.
    program = copy.copy(model.program)
    program._state_dict, program._constants = copy.deepcopy(
        (model.program.state_dict, model.program.constants)
    )
    used = {node.name for node in program.graph.nodes if node.users}
    written: dict[tuple[int, torch.Size], str] = {}
    for spec in program.graph_signature.input_specs:
        name = spec.target
        if name is None or spec.kind not in (InputKind.PARAMETER, InputKind.BUFFER):
            continue
        if spec.arg.name not in used:
            continue  # Unchanged, or the alias of a tied parameter that is used by another name.
        place = program.constants[name] if spec.persistent is False else program.state_dict[name]
        other = written.setdefault((place.data_ptr(), place.shape), name)
        if not _equal(state[other], state[name]):
            raise ModelError(f"'{other}' and '{name}' are tied, but were trained apart")
        place.copy_(state[name])
    return model.evolve(program, event)


def _equal(one: Tensor, other: Tensor) -> bool:
    """As ``torch.equal``, but NaN equals NaN."""
    if one is other or torch.equal(one, other):
        return True
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
