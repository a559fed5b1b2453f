# SPDX-License-Identifier: Apache-2.0
"""Normalisations: by channel they only follow; over channels they renormalise what is left."""

from collections.abc import Iterable

import numpy as np
from torch.fx import Node

from edgeprune.channels.atoms import Axis
from edgeprune.channels.op import Kept, Op, Rule, Value, set_argument
from edgeprune.channels.rules.pointwise import pointwise

__all__ = ["RULES"]

_STATE = ("weight", "bias", "running_mean", "running_var")


def _follow(op: Op, channels: Axis | None, names: Iterable[str] = _STATE) -> None:
    for name in names:
        dims = op.dims(op.argument(name))
        if dims:
            op.glue(dims[0], channels)


def batch_norm(op: Op) -> Value:
    """Batch and instance norm: everything is by channel, dimension 1.

    Statistics of the batch itself, as they standardise a weight, run over the other dimensions.
    """
    dims = op.dims(op.argument("input"))
    _follow(op, dims[1])
    if op.argument("training") or op.argument("use_input_stats"):
        for place, axis in enumerate(dims):
            if place != 1:
                op.atoms.renormalise(axis, op.node.name)
    value = op.node.meta.get("val")
    return [dims, (None,), (None,)] if isinstance(value, (list, tuple)) else dims


def layer_norm(op: Op) -> Value:
    """Layer and RMS norm over the last dimensions."""
    dims = op.dims(op.argument("input"))
    count = len(op.argument("normalized_shape"))
    over = dims[len(dims) - count :]
    for name in ("weight", "bias"):
        state = op.dims(op.argument(name))
        for axis, other in zip(state, over, strict=False):
            op.glue(axis, other)
    for axis in over:
        op.atoms.renormalise(axis, op.node.name)
    op.edit_sizes("normalized_shape", over)
    value = op.node.meta.get("val")
    rest: Value = (None,) * len(dims)
    return [dims, rest, rest] if isinstance(value, (list, tuple)) else dims  # type: ignore[list-item]


def group_norm(op: Op) -> Value:
    """Group norm: whole groups go where there are many of them (exact, as no statistic changes),
    equal positions in each group where there are few."""
    dims = op.dims(op.argument("input"))
    channels, groups = dims[1], op.argument("num_groups")
    _follow(op, channels, ("weight", "bias"))
    if channels is None:
        return dims
    per_group = channels.size // groups
    if groups >= per_group:
        first = op.atoms.fold(channels, (groups, per_group), 0)

        def change(node: Node, kept: Kept) -> None:
            set_argument(node, "num_groups", kept(first))

        op.edit(change)
    else:
        op.atoms.fold(channels, (groups, per_group), 1)
        op.atoms.renormalise(channels, op.node.name)
    return dims


def weight_norm(op: Op) -> Value:
    """``_weight_norm``: a direction over its norm, times a magnitude for each index of ``dim``."""
    direction, magnitude = op.argument("v"), op.argument("g")
    dims = op.dims(direction)
    keep = op.argument("dim") % len(dims)
    for place, (axis, scale) in enumerate(zip(dims, op.dims(magnitude), strict=True)):
        if place == keep:
            op.glue(axis, scale)
        else:
            op.atoms.renormalise(axis, op.node.name)
    return dims if op.name == "_weight_norm" else [dims, op.dims(magnitude)]


def reduction(op: Op) -> Value:
    """A sum, mean, norm, variance or extreme along dimensions: what is left of a pruned one is
    another mean. Places of extremes among the indices are values, so where they are used the
    dimension stays. ``max`` and ``min`` of two tensors go element by element."""
    if isinstance(op.argument("other"), Node):
        return pointwise(op)
    dims = op.dims(op.source)
    chosen = op.argument("dim")
    over = np.atleast_1d(chosen) if chosen not in (None, []) else range(len(dims))
    places = {int(d) % len(dims) for d in over} if dims else set()
    value = op.node.meta.get("val")
    several = isinstance(value, (list, tuple))
    positions = several and op.name in _EXTREMES and _second_used(op.node)
    for place in places:
        if positions:
            op.freeze(dims[place], "ranked by value")
        op.atoms.renormalise(dims[place], op.node.name)
    if op.argument("keepdim"):
        out = tuple(None if i in places else axis for i, axis in enumerate(dims))
    else:
        out = tuple(axis for i, axis in enumerate(dims) if i not in places)
    return [out for _ in value] if several and value is not None else out


def _second_used(node: Node) -> bool:
    return any(user.args[1] == 1 and user.users for user in node.users)


_EXTREMES = {"max", "min", "median", "mode", "nanmedian"}

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ["batch_norm", "instance_norm", "_native_batch_norm_legit_no_training",
         "_native_batch_norm_legit", "native_batch_norm"],
        batch_norm,
    ),
    **dict.fromkeys(["layer_norm", "rms_norm", "native_layer_norm"], layer_norm),
    "group_norm": group_norm,
    "_weight_norm": weight_norm,
    "_weight_norm_interface": weight_norm,
    **dict.fromkeys(
        ["linalg_vector_norm", "norm", "mean", "sum", "amax", "amin", "var", "std", "logsumexp",
         "var_mean", "std_mean", "max", "min", "median", "mode", "prod", "nansum", "nanmean", "all",
         "any", "nanmedian", "count_nonzero", "frobenius_norm"],
        reduction,
    ),
}  # fmt: skip
