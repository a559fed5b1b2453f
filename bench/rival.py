# SPDX-License-Identifier: Apache-2.0
"""Torch-Pruning as its README and its examples for transformers use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch_pruning as tp
from torch import Tensor, nn

__all__ = ["SETTINGS", "Attention", "Setting", "attentions", "prune", "pruner"]

_QUERIES = ("q_proj", "query", "q_lin", "q")
_KEYS = ("k_proj", "key", "k_lin", "k")
_VALUES = ("v_proj", "value", "v_lin", "v")
_HEADS = ("num_attention_heads", "num_heads", "n_heads")
_WIDTHS = ("head_dim", "attention_head_size", "key_value_proj_dim")
_ALL = ("all_head_size", "inner_dim")


@dataclass(frozen=True)
class Setting:
    """One way to use it: whether it is told of attention heads, and prunes them whole."""

    name: str
    told: bool
    whole: bool = False


SETTINGS = (
    Setting("head widths", told=True),
    Setting("whole heads", told=True, whole=True),
    Setting("heads not given", told=False),
)


@dataclass(frozen=True)
class Attention:
    """An attention module and its projections; all heads are ``width`` wide."""

    module: nn.Module
    query: nn.Linear
    others: tuple[nn.Linear, ...]
    width: int


def pruner(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    ignored: list[nn.Module],
    setting: Setting,
    importance: tp.importance.Importance | None = None,
) -> tp.pruner.BasePruner:
    """The README's pruner for half of the channels; this builds its dependency graph."""
    heads: dict[nn.Module, int] = {}
    for found in attentions(module) if setting.told else ():
        for layer in (found.query, *found.others):
            heads[layer] = layer.out_features // found.width
    return tp.pruner.BasePruner(
        module,
        inputs,
        importance=importance or tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=ignored,
        num_heads=heads,
        prune_num_heads=setting.whole,
        prune_head_dims=not setting.whole,
        head_pruning_ratio=0.5 if setting.whole else 0.0,
    )


def prune(
    module: nn.Module, inputs: tuple[Tensor, ...], ignored: list[nn.Module], setting: Setting
) -> None:
    """Prune ``module`` in place and tell its attention modules their new sizes, as the examples
    do."""
    told = list(attentions(module)) if setting.told else []
    plan = pruner(module, inputs, ignored, setting)
    plan.step()
    for found in told:
        width = found.query.out_features // plan.num_heads[found.query]
        values = dict.fromkeys(_HEADS, plan.num_heads[found.query])
        values |= dict.fromkeys(_WIDTHS, width)
        values |= dict.fromkeys(_ALL, found.query.out_features)
        for name, value in values.items():
            if hasattr(found.module, name):
                setattr(found.module, name, value)


def attentions(module: nn.Module) -> Iterator[Attention]:
    """The attention modules with a projection each for queries, keys and values."""
    for part in module.modules():
        found = [_first(part, names) for names in (_QUERIES, _KEYS, _VALUES)]
        layers = [layer for layer in found if layer is not None]
        if len(layers) < len(found):
            continue
        query, *others = layers
        width = next((getattr(part, name) for name in _WIDTHS if hasattr(part, name)), None)
        if width is None:
            count = next((getattr(part, name) for name in _HEADS if hasattr(part, name)), 1)
            width = query.out_features // count
        yield Attention(part, query, tuple(others), width)


def _first(part: nn.Module, names: tuple[str, ...]) -> nn.Linear | None:
    found = (getattr(part, name, None) for name in names)
    return next((layer for layer in found if isinstance(layer, nn.Linear)), None)
