# SPDX-License-Identifier: Apache-2.0
"""Entries picked out, or written, by their place: there the place matters and stays."""

import torch
from torch.fx import Node

from edgeprune.channels.atoms import Dims
from edgeprune.channels.op import Op, Rule, Value

__all__ = ["RULES"]


def select(op: Op) -> Value:
    """One index of a dimension, by literal."""
    dims = op.dims(op.source)
    place = op.argument("dim") % len(dims)
    op.freeze(dims[place], "literal")
    return (*dims[:place], *dims[place + 1 :])


def index(op: Op) -> Value:
    """Indexing by tensors: the indexed dimensions stay, a run of them becomes the indices' own."""
    dims = op.dims(op.source)
    indices = op.argument("indices")
    used = [i for i, n in enumerate(indices) if n is not None]
    for i in used:
        op.freeze(dims[i], "indexed by value")
        for axis in op.dims(indices[i]):
            op.freeze(axis, "values of an index")
    masks = any(indices[i].meta["val"].dtype == torch.bool for i in used)
    if masks:
        op.freeze_all("indexed by value")
        return op.untracked()
    rank = max(indices[i].meta["val"].dim() for i in used)
    picked = (None,) * rank
    if used != list(range(used[0], used[-1] + 1)):
        # Indices that don't stand together put their own dimensions in front.
        return (*picked, *(axis for i, axis in enumerate(dims) if i not in used))
    return (*dims[: used[0]], *picked, *dims[used[-1] + 1 :])


def index_select(op: Op) -> Value:
    """One dimension picked by a table of indices."""
    dims = op.dims(op.source)
    place = op.argument("dim") % len(dims)
    op.freeze(dims[place], "indexed by value")
    return (*dims[:place], None, *dims[place + 1 :])


def gather(op: Op) -> Value:
    """``gather``: picked along one dimension by a tensor of the result's shape."""
    table = op.argument("index") if op.name == "gather" else op.argument("indices")
    dims, its = op.dims(op.source), op.dims(table)
    place = (op.argument("dim") or 0) % len(dims)
    op.freeze(dims[place], "indexed by value")
    op.freeze(its[place], "values of an index")
    out = []
    for i, (axis, of_index) in enumerate(zip(dims, its, strict=True)):
        same = i != place and op.shape(op.source)[i] == op.shape(table)[i]
        if same:
            op.glue(axis, of_index, "an index of fixed size")
        elif i != place:
            op.freeze(axis, "an index of fixed size")
        out.append(of_index if same and axis is not None else None)
    return tuple(out)


def roll(op: Op) -> Value:
    """Cyclic shift: on a shifted dimension positions matter."""
    dims = op.dims(op.source)
    shifted = op.argument("dims") or range(len(dims))
    for d in shifted:
        op.freeze(dims[d], "literal")
    return dims


def ranked(op: Op) -> Value:
    """Sorting and its kin: the dimension they run over stays."""
    dims = op.dims(op.source)
    chosen = op.argument("dim")
    places = range(len(dims)) if chosen is None else [chosen % len(dims)]
    for place in places:
        op.freeze(dims[place], "ranked by value")
    value = op.node.meta["val"]
    return [dims for _ in value] if isinstance(value, (list, tuple)) else _fitted(op, dims)


def _fitted(op: Op, dims: Dims) -> Dims:
    """The dimensions of a reduction's result, whether or not it keeps the reduced one."""
    rank = len(op.shape())
    chosen = op.argument("dim")
    if rank == len(dims):
        return dims
    if chosen is None:
        return (None,) * rank
    place = int(chosen) % len(dims)
    return (*dims[:place], *dims[place + 1 :])


def written(op: Op) -> Value:
    """Entries written into a tensor along one dimension, which stays; the others pass."""
    dims = op.dims(op.source)
    source = op.argument("src", op.argument("source"))
    if not isinstance(source, Node) or len(op.dims(source)) != len(dims):
        op.freeze_all("written by index")
        return op.untracked()
    place = (op.argument("dim") or 0) % len(dims)
    tables = [n for n in op.node.all_input_nodes if n not in (op.source, source)]
    for node in tables:
        for axis in op.dims(node):
            op.freeze(axis, "values of an index")
    op.freeze(dims[place], "written by index")
    op.freeze(op.dims(source)[place], "written by index")
    for i, axis in enumerate(dims):
        if i != place:
            op.glue(axis, op.dims(source)[i], "written by index")
    return dims


def scattered(op: Op) -> Value:
    """``scatter`` and ``index_put``: nothing that they touch can be pruned."""
    op.freeze_all("written by index")
    return op.untracked()


RULES: dict[str, Rule] = {
    "select": select,
    "index": index,
    "_unsafe_index": index,
    "index_select": index_select,
    "gather": gather,
    "take_along_dim": gather,
    "roll": roll,
    **dict.fromkeys(["topk", "sort", "argsort", "argmax", "argmin", "kthvalue", "msort"], ranked),
    **dict.fromkeys(["slice_scatter", "index_add", "index_copy", "index_add_", "index_copy_"],
                    written),
    **dict.fromkeys(
        ["scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "index_put",
         "index_put_", "_unsafe_index_put", "select_scatter", "masked_scatter", "masked_scatter_",
         "masked_select", "nonzero"],
        scattered,
    ),
}  # fmt: skip
