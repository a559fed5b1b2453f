# SPDX-License-Identifier: Apache-2.0
"""Bring an eval-mode graph to the plain form that quantization works on.

Each pass edits a module that the caller owns and leaves its function as it was, up to float
rounding: dropout vanishes, batch norms go into the weights before them, and the decomposed forms of
a user's own program (``convolution``, ``addmm``) become ``conv2d`` and ``linear`` again.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from edgeprune.errors import ModelError
from edgeprune.model.program import argument, value
from edgeprune.quantize.graphs import (
    evaluate,
    fake_mode,
    new_constant,
    put,
    readers,
    replace,
    tidy,
)
from edgeprune.quantize.rules import AFFINE_SCALAR, DROPOUT, NORM, WEIGHTED

__all__ = ["fold_norms", "plain", "prepare_static"]

aten = torch.ops.aten

_AVERAGES = frozenset(
    {
        aten.mean.dim,
        aten.sum.dim_IntList,
        aten.amax.default,
        aten.amin.default,
        aten.avg_pool1d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool1d.default,
        aten.adaptive_avg_pool2d.default,
    }
)
"""Give their operand back where each result is made of one value."""

_POOLS = frozenset({aten.avg_pool1d.default, aten.avg_pool2d.default})

_WIDEST = 1e4
"""Larger constants are masks: an int8 range that held them would hold nothing else."""


def plain(gm: GraphModule) -> None:
    """Remove dropout, undo decompositions and fold batch norms; enough for weight rounding."""
    for node in list(gm.graph.nodes):
        rewrite = _REWRITES.get(node.target) if node.op == "call_function" else None
        if rewrite is not None:
            rewrite(gm, node)
    _bake_weights(gm)
    fold_norms(gm)
    tidy(gm)


def prepare_static(gm: GraphModule) -> None:
    """What activations' quantization needs on top of :func:`plain`.

    In-place ops become pure ones (a quantized copy would not see the write), batch norms that could
    not be folded become depthwise 1x1 convolutions, SiLU becomes ``x * sigmoid(x)`` (no runtime has
    it in int8) and scalar operands become tensors, which can be quantized.

    Raises:
        ModelError: A view is written to in place, and its base is read later.
    """
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and node.target in DROPOUT:
            _drop(gm, node)
    _make_pure(gm)
    plain(gm)
    for node in list(gm.graph.nodes):
        if node.op != "call_function":
            continue
        if _is_affine(node):
            _norm_to_affine(gm, node)
        elif node.target in _AVERAGES and _is_identity(node):
            replace(gm, node, aten.reshape.default, (argument(node, 0), _sizes(node)))
        elif node.target in _STATIC_REWRITES:
            _STATIC_REWRITES[node.target](gm, node)
    tidy(gm)


def fold_norms(gm: GraphModule) -> None:
    """Fold each eval-mode batch norm into the convolution or linear layer that alone feeds it.

    The products are taken in double precision, with the norm's own epsilon (Jacob et al. 2018,
    equation 14).
    """
    for norm in list(gm.graph.nodes):
        if not _is_affine(norm):
            continue
        layer = argument(norm, 0)
        if _can_fold(gm, layer, norm):
            _fold(gm, layer, norm)
            norm.replace_all_uses_with(layer)
            gm.graph.erase_node(norm)


def _is_affine(norm: Node) -> bool:
    """Whether a node is a batch norm by stored statistics."""
    if norm.op != "call_function" or norm.target not in NORM or argument(norm, 5):
        return False
    return isinstance(argument(norm, 3), Node) and isinstance(argument(norm, 4), Node)


def _can_fold(gm: GraphModule, layer: Node, norm: Node) -> bool:
    if layer.op != "call_function" or layer.target not in WEIGHTED or len(layer.users) != 1:
        return False
    if layer.target is aten.linear.default and layer.meta["val"].ndim != 2:
        return False  # batch norm runs over dimension 1, which isn't linear's output there
    own = [a for a in (argument(layer, 1), argument(layer, 2)) if isinstance(a, Node)]
    return all(a.op == "get_attr" and readers(gm, a) == 1 for a in own)


def _affine(gm: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    """The norm as ``scale * x + shift``, in double precision."""
    gamma, beta, mean, variance = (argument(norm, at) for at in range(1, 5))
    scale = (value(gm, variance).double() + float(argument(norm, 7))).rsqrt()
    if gamma is not None:
        scale = scale * value(gm, gamma).double()
    shift = -value(gm, mean).double() * scale
    return scale, shift if beta is None else shift + value(gm, beta).double()


def _fold(gm: GraphModule, layer: Node, norm: Node) -> None:
    scale, shift = _affine(gm, norm)
    weight, bias = argument(layer, 1), argument(layer, 2)
    old = value(gm, weight)
    if WEIGHTED[layer.target] == 0:
        spread = scale.reshape(-1, *[1] * (old.ndim - 1))
        folded = old.double() * spread
    else:  # transposed: (in, out / groups, ...), its groups lie one after the other in ``in``
        groups = int(argument(layer, 6, 1))
        blocks = old.double().reshape(groups, -1, *old.shape[1:])
        spread = scale.reshape(groups, 1, -1, *[1] * (old.ndim - 2))
        folded = (blocks * spread).reshape(old.shape)
    put(gm, weight, folded)
    if bias is None:
        node = new_constant(gm, layer, _sibling(weight.target, "bias"), shift, old.dtype)
        layer.args = (*layer.args[:2], node, *layer.args[3:])
        layer.kwargs = {k: v for k, v in layer.kwargs.items() if k != "bias"}
    else:
        put(gm, bias, value(gm, bias).double() * scale + shift)


def _norm_to_affine(gm: GraphModule, norm: Node) -> None:
    """A batch norm that stands alone: a depthwise 1x1 convolution, or multiply and add."""
    x = argument(norm, 0)
    scale, shift = _affine(gm, norm)
    dtype = norm.meta["val"].dtype
    rank = norm.meta["val"].ndim
    name = str(argument(norm, 3).target).rpartition(".")[0] or norm.name
    if rank in (3, 4):
        convolve = aten.conv1d.default if rank == 3 else aten.conv2d.default
        ones = [1] * (rank - 2)
        weight = new_constant(gm, norm, f"{name}.scale", scale.reshape(-1, 1, *ones), dtype)
        bias = new_constant(gm, norm, f"{name}.shift", shift, dtype)
        args = (x, weight, bias, ones, [0] * (rank - 2), ones, scale.numel())
        replace(gm, norm, convolve, args)
        return
    shape = (1, -1, *[1] * (rank - 2))
    factor = new_constant(gm, norm, f"{name}.scale", scale.reshape(shape), dtype)
    offset = new_constant(gm, norm, f"{name}.shift", shift.reshape(shape), dtype)
    with gm.graph.inserting_before(norm):
        product = gm.graph.call_function(aten.mul.Tensor, (x, factor))
    product.meta["val"] = norm.meta["val"]
    replace(gm, norm, aten.add.Tensor, (product, offset))


def _split_silu(gm: GraphModule, node: Node) -> None:
    x = argument(node, 0)
    with gm.graph.inserting_before(node):
        gate = gm.graph.call_function(aten.sigmoid.default, (x,))
    gate.meta["val"] = node.meta["val"]
    replace(gm, node, aten.mul.Tensor, (x, gate))


def _is_identity(node: Node) -> bool:
    """Whether as many values come out as go in, which each pool or reduction took one by one.

    LiteRT's converter folds such a node away, and then finds two scales where it wants one.
    """
    if node.kwargs.get("dtype") is not None or not isinstance(node.args[0], Node):
        return False
    padded = node.target in _POOLS and any(_flat(argument(node, 3, 0)))
    before, after = (n.meta["val"] for n in (node.args[0], node))
    if padded or before.dtype != after.dtype or not _fits(after):
        return False
    return statically_known_true(before.numel() == after.numel())


def _fits(tensor: Tensor) -> bool:
    """Whether a reshape can name the shape: one size at most is known at run time only."""
    return sum(not isinstance(size, int) for size in tensor.shape) < 2


def _flat(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _sizes(node: Node) -> list[Any]:
    """The shape of a node's value; a size that depends on the batch is left to be found."""
    shape = list(node.meta["val"].shape)
    return [size if isinstance(size, int) else -1 for size in shape]


def _stack_by_cat(gm: GraphModule, node: Node) -> None:
    """LiteRT's converter joins stacked operands of different scales as if they had the first's."""
    parts, dim = argument(node, 0), argument(node, 1, 0)
    place = dim % node.meta["val"].ndim
    grown = []
    for part in parts:
        with gm.graph.inserting_before(node):
            wide = gm.graph.call_function(aten.unsqueeze.default, (part, place))
        mode = fake_mode(part)
        if mode is not None:
            with mode:
                wide.meta["val"] = part.meta["val"].unsqueeze(place)
        grown.append(wide)
    replace(gm, node, aten.cat.default, (grown, place))


def _pad_apart(gm: GraphModule, node: Node) -> None:
    """Pad before an average pooling, not in it: LiteRT's int8 kernel loses 16 dB on the latter."""
    x, kernel = argument(node, 0), argument(node, 1)
    stride, padding = argument(node, 2, []), argument(node, 3, 0)
    ceil, counted = argument(node, 4, False), argument(node, 5, True)
    vertical, horizontal = (padding * 2)[:2] if isinstance(padding, list) else (padding, padding)
    if not (vertical or horizontal) or ceil or not counted or argument(node, 6) is not None:
        return
    with gm.graph.inserting_before(node):
        edges = [horizontal, horizontal, vertical, vertical]
        padded = gm.graph.call_function(aten.constant_pad_nd.default, (x, edges, 0.0))
    mode, source = fake_mode(node), x.meta["val"]
    if mode is not None:
        with mode:
            padded.meta["val"] = torch.nn.functional.pad(source, edges)
    replace(gm, node, aten.avg_pool2d.default, (padded, kernel, stride or kernel))


def _scalar_to_tensor(gm: GraphModule, node: Node) -> None:
    x, scalar = argument(node, 0), argument(node, 1)
    val = node.meta.get("val")
    if isinstance(scalar, bool) or not isinstance(scalar, int | float) or node.kwargs:
        return
    if not isinstance(x, Node) or not isinstance(val, Tensor) or val.dtype != torch.float32:
        return
    target, number = AFFINE_SCALAR[node.target](scalar)
    if x.meta["val"].dtype != torch.float32 or abs(number) > _WIDEST:
        return
    constant = new_constant(gm, node, f"{node.name}_operand", torch.tensor([number]), val.dtype)
    replace(gm, node, target, (x, constant))


def _drop(gm: GraphModule, node: Node) -> None:
    if not argument(node, 2, False):  # in eval mode; a node in training mode is meant
        node.replace_all_uses_with(argument(node, 0))
        gm.graph.erase_node(node)


def _convolution(gm: GraphModule, node: Node) -> None:
    args: tuple[Any, ...] = node.args
    x, w, b, stride, padding, dilation, transposed, extra, groups = args
    rank = len(stride)
    if transposed:
        target = (
            aten.conv_transpose1d.default,
            aten.conv_transpose2d.input,
            aten.conv_transpose3d.input,
        )[rank - 1]
        replace(gm, node, target, (x, w, b, stride, padding, extra, groups, dilation))
    else:
        target = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)[rank - 1]
        replace(gm, node, target, (x, w, b, stride, padding, dilation, groups))


def _linear(gm: GraphModule, node: Node) -> None:
    args: tuple[Any, ...] = node.args
    bias, x, w = args if node.target is aten.addmm.default else (None, *args)
    if node.kwargs or not isinstance(w, Node):
        return
    if _is_transpose(w):
        weight = argument(w, 0)
    elif w.op == "get_attr" and readers(gm, w) == 1:
        transposed = value(gm, w).t().contiguous()
        weight = new_constant(gm, node, f"{w.target}_t", transposed, transposed.dtype)
    else:
        return
    replace(gm, node, aten.linear.default, (x, weight, bias))


def _is_transpose(w: Node) -> bool:
    args: tuple[Any, ...] = w.args
    if w.target is aten.t.default:
        return True
    if w.target is aten.permute.default:
        return list(args[1]) == [1, 0]
    return w.target is aten.transpose.int and {a % 2 for a in args[1:3]} == {0, 1}


def _native_norm(gm: GraphModule, node: Node) -> None:
    if any(user.args[1] != 0 for user in node.users):
        return
    given: tuple[Any, ...] = node.args
    x, gamma, beta, mean, variance, momentum, eps = given
    args = (x, gamma, beta, mean, variance, False, momentum, eps, False)
    for user in list(node.users):
        replace(gm, user, aten.batch_norm.default, args)
    gm.graph.erase_node(node)


def _relu6(gm: GraphModule, node: Node) -> None:
    """``hardtanh`` becomes one Clip in ONNX, which fuses; ``relu6`` becomes Relu and Min."""
    replace(gm, node, aten.hardtanh.default, (argument(node, 0), 0.0, 6.0))


_REWRITES: dict[Any, Callable[[GraphModule, Node], None]] = {
    **dict.fromkeys(DROPOUT, _drop),
    aten.convolution.default: _convolution,
    aten.addmm.default: _linear,
    aten.mm.default: _linear,
    aten._native_batch_norm_legit_no_training.default: _native_norm,
    aten.relu6.default: _relu6,
}


_STATIC_REWRITES: dict[Any, Callable[[GraphModule, Node], None]] = {
    **dict.fromkeys(AFFINE_SCALAR, _scalar_to_tensor),
    aten.silu.default: _split_silu,
    aten.avg_pool2d.default: _pad_apart,
    aten.stack.default: _stack_by_cat,
}


def _bake_weights(gm: GraphModule) -> None:
    """Make one constant of each weight that is computed from constants (weight normalisation)."""
    for node in list(gm.graph.nodes):
        if node.op != "call_function" or node.target not in WEIGHTED:
            continue
        for at in (1, 2):
            given = argument(node, at)
            if isinstance(given, Node) and given.op == "call_function":
                constant = evaluate(gm, given)
                if constant is not None:
                    baked = new_constant(gm, node, f"{given.name}_baked", constant, constant.dtype)
                    node.replace_input_with(given, baked)


def _make_pure(gm: GraphModule) -> None:
    """Replace ``relu_`` by ``relu`` and so on; whatever reads the tensor later reads the result."""
    order = {n: i for i, n in enumerate(gm.graph.nodes)}
    for node in list(gm.graph.nodes):
        if not _writes_first(node):
            continue
        written = argument(node, 0)
        for alias in _aliases(written):
            late = [user for user in alias.users if order.get(user, 0) > order[node]]
            if late and alias is not written:
                raise ModelError(
                    f"{node.name}: {node.target} writes to a view of {alias.name}, which "
                    f"{late[0].name} reads later; static int8 can't keep that: assign out of place "
                    "in the model, or choose other numerics"
                )
            for user in late:
                user.replace_input_with(written, node)
        written_by: Any = node.target
        name = written_by._schema.name.removeprefix("aten::").removesuffix("_")
        node.target = getattr(getattr(aten, name), written_by._overloadname)
    gm.recompile()


def _writes_first(node: Node) -> bool:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    schema = node.target._schema
    return schema.is_mutable and schema.name.startswith("aten::") and schema.name.endswith("_")


def _aliases(node: Node) -> list[Node]:
    """All nodes that may share memory with ``node``: it, what it is a view of, and their views."""
    root = node
    while _is_view(root):
        root = argument(root, 0)
    found = [root]
    for other in found:
        found.extend(user for user in other.users if _is_view(user))
    return found


def _is_view(node: Node) -> bool:
    if node.target is operator.getitem:
        return True
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return False
    returns = node.target._schema.returns
    alias = returns[0].alias_info if returns else None
    return alias is not None and not alias.is_write


def _sibling(name: str, attribute: str) -> str:
    prefix = name.rpartition(".")[0]
    return f"{prefix}.{attribute}" if prefix else f"{name}_{attribute}"
