# SPDX-License-Identifier: Apache-2.0
"""Layers that multiply with a weight, seen as a matrix: sampled inputs times weights, plus a bias.

Convolutions of any dimension, stride, dilation and number of groups, transposed ones, and linear
layers, however the graph writes them. With ``G`` groups, ``K`` inputs and ``O`` outputs of a group
the weight is ``[G, K, O]`` and ``n`` sampled inputs are ``[G, n, K]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.model.program import argument, holder, value

__all__ = ["Layer", "Stream", "find_layers", "find_stream"]

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS = {"linear": (0, 1, 2), "matmul": (0, 1, None), "mm": (0, 1, None), "addmm": (1, 2, 0)}
"""Where the input, the weight and the bias stand."""
_BATCH_NORM = torch.ops.aten.batch_norm
_ADDITIONS = (torch.ops.aten.add, torch.ops.aten.add_)
_DROPOUTS = (torch.ops.aten.dropout, torch.ops.aten.dropout_, torch.ops.aten.clone)
_DEAD = 50.0
"""A batch norm that makes a channel so many times smaller than its spread lets nothing through."""


@dataclass(frozen=True)
class Layer:
    """One call of a layer whose weight nothing but such calls uses."""

    node: Node
    kind: str
    """The name of the operator."""
    input: Node
    weight: str
    bias: str | None
    """A bias that it has for itself; of others the value stays as it is."""
    added: Node | None
    """The bias, its own or not."""
    mean: str | None
    """The running mean of the batch norm that alone takes what a layer without bias gives: the
    place of a bias."""
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()

    @property
    def is_convolution(self) -> bool:
        """Whether positions lie behind the channels."""
        return self.kind in _CONVOLUTIONS or self.transposed

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution, whose weight has inputs before outputs."""
        return self.kind in _TRANSPOSED

    @property
    def outputs(self) -> int | None:
        """The dimension of the weight that has an index for each output channel, where one has."""
        if self.transposed:
            return 1 if self.groups == 1 else None
        return 1 if self.kind in ("matmul", "mm", "addmm") else 0

    @property
    def inputs(self) -> int | None:
        """The dimension of the weight that has an index for each input channel, where one has."""
        return None if self.groups > 1 or self.outputs is None else 1 - self.outputs

    def matrix(self, weight: Tensor) -> Tensor:
        """``[G, K, O]``, from the weight as it is stored."""
        if not self.is_convolution:
            return (weight.T if self.outputs == 0 else weight)[None]
        if self.transposed:
            parts = weight.reshape(self.groups, -1, *weight.shape[1:])
            return parts.movedim(2, -1).reshape(self.groups, -1, weight.shape[1])
        parts = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return parts.transpose(1, 2)

    def stored(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The inverse of ``matrix``: the weight as it is stored."""
        if not self.is_convolution:
            return matrix[0].T if self.outputs == 0 else matrix[0]
        if self.transposed:
            parts = matrix.reshape(self.groups, -1, *like.shape[2:], like.shape[1])
            return parts.movedim(-1, 2).reshape(like.shape)
        return matrix.transpose(1, 2).reshape(like.shape)

    def channels(self, node: Node) -> int:
        """How many outputs a call of it has."""
        return int(_shape(node)[1 if self.is_convolution else -1])

    def places(self, node: Node) -> tuple[str, ...]:
        """The sizes of a call's output without the channels, as the graph tells them."""
        sizes = [str(size) for size in _shape(node)]
        del sizes[1 if self.is_convolution else -1]
        return tuple(sizes)

    def positions(self, out: Sequence[int]) -> int:
        """How many outputs of one channel a tensor of this shape has, all samples together."""
        return out[0] * prod(out[2:]) if self.is_convolution else prod(out[:-1])

    def outputs_at(self, out: Tensor, chosen: Tensor) -> Tensor:
        """``[n, channels]``: the outputs at the ``chosen`` positions."""
        rows = out.movedim(1, -1) if self.is_convolution else out
        return rows.reshape(-1, rows.shape[-1]).index_select(0, chosen)

    def inputs_at(
        self, given: Tensor, weight: Tensor, out: Sequence[int], chosen: Tensor
    ) -> Tensor:
        """``[G, n, K]``: what the outputs at the ``chosen`` positions are made of."""
        if not self.is_convolution:
            return given.reshape(-1, given.shape[-1]).index_select(0, chosen)[None]
        sample, places = chosen // prod(out[2:]), chosen % prod(out[2:])
        taken = given.movedim(1, -1)  # channels last, so that one index takes them all
        index: list[Tensor] = []
        inside = torch.ones(1, dtype=torch.bool)
        kernel = weight.shape[2:]
        for axis in range(len(kernel)):
            place = places // prod(out[3 + axis :]) % out[2 + axis]
            at, valid = self._read(place, axis, kernel[axis], given.shape[2 + axis])
            shape = [len(chosen), *(kernel[axis] if a == axis else 1 for a in range(len(kernel)))]
            index.append(at.reshape(shape))
            inside = inside & valid.reshape(shape)
        rows = sample.reshape(-1, *(1 for _ in kernel))
        patch = taken[(rows, *index)] * inside[..., None]  # n, kernel, channels
        parts = patch.reshape(len(chosen), prod(kernel), self.groups, -1)
        return parts.permute(2, 0, 3, 1).reshape(self.groups, len(chosen), -1)

    def _read(self, place: Tensor, axis: int, kernel: int, size: int) -> tuple[Tensor, Tensor]:
        """For outputs at ``place`` along one axis: the input behind each tap of the kernel, and
        whether there is one."""
        tap = torch.arange(kernel) * self.dilation[axis]
        stride, padding = self.stride[axis], self.padding[axis]
        if self.transposed:
            moved = place[:, None] + padding - tap
            at, whole = moved // stride, moved % stride == 0
        else:
            at = place[:, None] * stride - padding + tap
            whole = torch.ones_like(at, dtype=torch.bool)
        return at.clamp(0, size - 1), whole & (at >= 0) & (at < size)


def find_layers(module: GraphModule) -> tuple[Layer, ...]:
    """The layers of an unlifted module, in the order of its graph.

    Weights that are computed (weight norm), or that something else uses too (an embedding tied to
    the last layer), aren't such layers'.
    """
    readers: dict[int, set[Node]] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        tensor = getattr(*holder(module, str(node.target)), None)
        if isinstance(tensor, Tensor):
            readers.setdefault(tensor.data_ptr(), set()).update(node.users)
    found = {n: layer for n in module.graph.nodes if (layer := _layer(module, n, readers))}
    return tuple(
        layer
        for layer in found.values()
        if all(
            user in found and found[user].weight == layer.weight
            for user in readers[module.get_parameter(layer.weight).data_ptr()]
        )
    )


@dataclass(frozen=True)
class Stream:
    """What the output of a layer is added to."""

    node: Node
    norm: Node | None
    """The batch norm between layer and addition."""

    def scale(self, module: GraphModule) -> Tensor | None:
        """By what the norm divides each channel on its way, 0 where hardly anything gets through;
        ``None`` without one."""
        if self.norm is None:
            return None
        gamma, variance = (
            value(module, given) if isinstance(given, Node) else None
            for given in (argument(self.norm, 1), argument(self.norm, 4))
        )
        if variance is None:
            return None
        spread = (variance.float() + float(argument(self.norm, 7, 1e-5))).sqrt()
        scale = spread if gamma is None else spread / gamma.float()
        return torch.where(scale.abs() < _DEAD * spread, scale, 0.0)


def find_stream(layer: Layer) -> Stream | None:
    """What the output of ``layer`` is added to, through nothing but a batch norm and dropout."""
    node, norm = layer.node, None
    while len(node.users) == 1:
        user = next(iter(node.users))
        packet = getattr(user.target, "overloadpacket", None)
        if packet in _ADDITIONS and not user.kwargs and len(user.all_input_nodes) == 2:
            one, other = user.all_input_nodes
            stream = other if one is node else one
            return Stream(stream, norm) if _shape(stream) == _shape(node) else None
        if (
            packet == _BATCH_NORM
            and norm is None
            and user.args[0] is node
            and user.args[5] is False
        ):
            norm = user
        elif packet not in _DROPOUTS:
            return None
        node = user
    return None


def _layer(module: GraphModule, node: Node, readers: Mapping[int, set[Node]]) -> Layer | None:
    kind = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    places = _PRODUCTS.get(kind, (0, 1, 2))
    if kind not in _PRODUCTS and kind not in _CONVOLUTIONS | _TRANSPOSED:
        return None
    given, weight = (argument(node, place) for place in places[:2])
    bias = None if places[2] is None else argument(node, places[2])
    if not isinstance(given, Node) or not isinstance(weight, Node) or weight.op != "get_attr":
        return None
    tensor = getattr(*holder(module, str(weight.target)))
    rank = len(_shape(node))
    if kind == "addmm" and node.kwargs:  # scaled
        return None
    if not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return None
    if tensor.dim() != (rank if kind not in _PRODUCTS else 2) or rank < 2:
        return None
    calls = readers[tensor.data_ptr()]
    own = (
        str(bias.target)
        if isinstance(bias, Node)
        and bias.op == "get_attr"
        and value(module, bias).dim() == 1
        and readers[value(module, bias).data_ptr()] == calls
        else None
    )
    mean = _mean(module, node, readers) if bias is None and len(calls) == 1 else None
    added = bias if isinstance(bias, Node) else None
    layer = Layer(node, kind, given, str(weight.target), own, added, mean)
    return layer if kind in _PRODUCTS else _convolution(layer, tensor)


def _convolution(layer: Layer, weight: Tensor) -> Layer:
    """With the settings of its call."""
    node, count = layer.node, weight.dim() - 2
    stride = _each(argument(node, 3, 1), count)
    groups = int(argument(node, 6, 1))
    dilation = _each(argument(node, 7 if layer.transposed else 5, 1), count)
    padding = argument(node, 4, 0)
    if padding == "valid":
        padding = 0
    elif padding == "same":  # the smaller half stands before
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    return replace(
        layer, groups=groups, stride=stride, padding=_each(padding, count), dilation=dilation
    )


def _mean(module: GraphModule, node: Node, readers: Mapping[int, set[Node]]) -> str | None:
    """The running mean of the batch norm that alone uses ``node``."""
    users = list(node.users)
    if len(users) != 1 or getattr(users[0].target, "overloadpacket", None) != _BATCH_NORM:
        return None
    mean = argument(users[0], 3)
    if not isinstance(mean, Node) or mean.op != "get_attr" or users[0].args[0] is not node:
        return None
    return str(mean.target) if len(readers[value(module, mean).data_ptr()]) == 1 else None


def _shape(node: Node) -> tuple[Any, ...]:
    return tuple(getattr(node.meta.get("val"), "shape", ()))


def _each(given: int | Sequence[int], count: int) -> tuple[int, ...]:
    sizes = (given,) if isinstance(given, int) else tuple(given)
    return sizes * count if len(sizes) == 1 else sizes
