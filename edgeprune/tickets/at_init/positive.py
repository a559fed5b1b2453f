# SPDX-License-Identifier: Apache-2.0
"""A network as a polynomial with positive coefficients, to see which weights lie on a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.mask import Mask
from edgeprune.model import Model

__all__ = ["positive_flows"]

_FACTORS = ("conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum", "baddbmm", "mv")
"""How the names of the products begin whose results are scaled back to at most 1."""
_GATES = frozenset({"sigmoid", "hardsigmoid", "softmax", "_softmax", "_safe_softmax"})
"""Never zero, whatever comes in, so what they multiply passes where their own input is dead."""
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_ACTIVATIONS = frozenset(
    {"celu", "elu", "gelu", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "mish", "prelu"}
    | {"relu", "relu6", "selu", "silu", "softplus", "tanh"}
)
_NO_ACTIVATIONS = frozenset(
    {"_to_copy", "bitwise_not", "clone", "copy", "eq", "ge", "gt", "isfinite", "isinf", "isnan"}
    | {"le", "logical_not", "lt", "ne", "to"}
)
"""Casts and questions among the operators that torch calls pointwise."""
_PASS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "log_softmax", "masked_fill"})


def positive_flows(model: Model, mask: Mask) -> dict[str, Tensor]:
    """For each weight that the mask covers a number that isn't zero exactly if a path from an input
    to an output leads through it; other weights of that path have to live.

    All weights become 0 or positive, norms, dropout and activations pass what they get, maxima
    become means, and gates (sigmoid, softmax) are one plus what they get. The outputs are then
    polynomials with positive coefficients in the weights and the input's scale t, and the mixed
    derivative by t and a weight isn't zero exactly if some term has both for factors.

    Args:
        model: Only its graph counts, not its weights.
        mask: Of this model.
    """
    module = model.module()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    _make_positive(module, parameters, mask)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    inputs = [_source(i.shape, i.dtype, scale) for i in model.inputs]
    outputs = _Paths(module, scale).run(*inputs)
    given = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    sums = [o.double().sum() for o in given if o.is_floating_point()]
    total = torch.stack([torch.zeros((), dtype=torch.float64), *sums]).sum()
    return _mixed(total, scale, {n: parameters[n] for n in mask.keep})


@torch.no_grad()
def _make_positive(module: GraphModule, parameters: Mapping[str, Tensor], mask: Mask) -> None:
    module.double()
    for parameter in parameters.values():
        if parameter.is_floating_point():
            parameter.fill_(1.0)
    for name, kept in mask.keep.items():  # A recurrent layer's gates must not saturate.
        parameters[name].copy_(kept * (kept.shape[0] / max(1, kept.numel())))
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.fill_(1.0)


def _source(shape: tuple[int, ...], dtype: torch.dtype, scale: Tensor) -> Tensor:
    """An input of ones that carries the derivative; of integers there is only the value 0."""
    if dtype.is_floating_point:
        return torch.ones(shape, dtype=torch.float64) * scale
    return torch.zeros(shape, dtype=dtype)


def _mixed(total: Tensor, scale: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The second derivatives by ``scale`` and each weight."""
    zeros = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    if not total.requires_grad:
        return zeros
    (slope,) = torch.autograd.grad(total, [scale], create_graph=True, allow_unused=True)
    if slope is None or not slope.requires_grad:
        return zeros
    found = torch.autograd.grad(slope, list(weights.values()), allow_unused=True)
    pairs = zip(weights, found, strict=True)
    return {name: zeros[name] if value is None else value for name, value in pairs}


def _at_most_one(value: Tensor) -> Tensor:
    """Divided by its maximum; where nothing comes through, as it is."""
    highest = value.detach().amax() if value.numel() else value.new_zeros(())
    return value / highest if highest > 0 else value


class _Paths(Interpreter):
    """Runs a graph as a polynomial with positive coefficients."""

    def __init__(self, module: GraphModule, scale: Tensor) -> None:
        super().__init__(module)
        self._scale = scale

    def run_node(self, n: Node) -> Any:
        """One node's value, each product scaled to at most 1: sums of many paths overflow."""
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            value = value.double()
            if _name(n.target).startswith(_FACTORS):
                return _at_most_one(value)
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The positive stand-in of an operator, or itself."""
        name = _name(target)
        floats = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        if name == "embedding":
            return super().call_function(target, args, kwargs) * self._scale
        if floats and name in _STAND_INS:
            return _STAND_INS[name](*args, **kwargs)
        if floats and (name in _PASS or name.startswith(_NORMS)):
            return floats[0]
        if len(floats) == 1 and name in _GATES:
            return 1 + floats[0]
        if len(floats) == 1 and _is_activation(target, name):
            return floats[0]
        return super().call_function(target, args, kwargs)


def _name(target: Any) -> str:
    """The operator without namespace, overload and the mark of writing in place."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).split("::")[-1].rstrip("_")
    return str(getattr(target, "__name__", target))


def _is_activation(target: Any, name: str) -> bool:
    """Whether an operator works on each element by itself and gives a number for it."""
    if name in _ACTIVATIONS:
        return True
    pointwise = isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags
    return pointwise and name not in _NO_ACTIVATIONS


def _positive(value: Any) -> Any:
    """A number's size; of a tensor of floats, finite sizes."""
    if isinstance(value, Tensor):
        return torch.nan_to_num(value.abs(), posinf=1.0) if value.is_floating_point() else value
    return abs(value) if isinstance(value, int | float) else value


def _sum(a: Any, b: Any, **_: Any) -> Any:
    return _positive(a) + _positive(b)


def _product(a: Any, b: Any, **_: Any) -> Any:
    return _positive(a) * _positive(b)


def _quotient(a: Any, b: Any, **_: Any) -> Any:
    """Falls with ``b``, but isn't zero where that is."""
    return _positive(a) * (1 + _positive(b)) if isinstance(b, Tensor) else _positive(a)


def _where(condition: Tensor, a: Any, b: Any) -> Any:
    return (_positive(a) + _positive(b)) * torch.ones(condition.shape, dtype=torch.float64)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """Weights of ones plus products: dead queries or keys leave an even mean of the values."""
    groups = query.shape[-3] // key.shape[-3] if query.ndim > 2 else 1
    if groups > 1:
        key, value = (t.repeat_interleave(groups, -3) for t in (key, value))
    return (1 + query @ key.transpose(-2, -1)) @ value


def _mean_pool(dimensions: int) -> Callable[..., Tensor]:
    """A mean over the window of a maximum, so that a tie doesn't hide a path."""
    mean = {
        1: torch.nn.functional.avg_pool1d,
        2: torch.nn.functional.avg_pool2d,
        3: torch.nn.functional.avg_pool3d,
    }[dimensions]
    most = getattr(torch.nn.functional, f"max_pool{dimensions}d")

    def pool(
        x: Tensor,
        size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Tensor:
        spread = max(dilation) if isinstance(dilation, list | tuple) else dilation
        if spread == 1:
            return mean(x, size, stride or size, padding, ceil_mode)
        # No mean has holes in its window: each place gets the mean of its whole channel.
        shape = most(x, size, stride or None, padding, dilation, ceil_mode).shape
        return x.mean(tuple(range(-dimensions, 0)), keepdim=True).expand(shape)

    return pool


_STAND_INS: Mapping[str, Callable[..., Any]] = {
    "add": _sum,
    "sub": _sum,
    "rsub": _sum,
    "mul": _product,
    "div": _quotient,
    "where": _where,
    "scaled_dot_product_attention": _attention,
    "max_pool1d": _mean_pool(1),
    "max_pool2d": _mean_pool(2),
    "max_pool3d": _mean_pool(3),
    "adaptive_max_pool2d": lambda x, size: torch.nn.functional.adaptive_avg_pool2d(x, size),
    "amax": lambda x, *a, **k: x.mean(*a, **k),
    "maximum": _sum,
    "minimum": _sum,
    "neg": lambda x: x,
}
