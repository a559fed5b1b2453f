# SPDX-License-Identifier: Apache-2.0
"""The cases of the operator table: a small network around each operator and setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CASES", "Case"]

Function = Callable[..., Any]
Size = tuple[int, ...]

WIDTH = 8
IMAGE, LINE, CUBE, FLAT = (3, 11, 13), (4, 11), (2, 5, 6, 7), (6,)
TOKENS = (7, 12)
"""Sizes of inputs without the batch; odd, so that rounding shows."""


@dataclass(frozen=True)
class Case:
    """One operator in one setting. ``build()`` gives a network in eval mode and its samples."""

    operator: str
    setting: str
    make: Callable[[], Function]
    """The operator, as a module or a function of the layer before it."""
    size: Size = IMAGE
    tokens: int = 0
    """Input ids below this number, with no layer before the operator."""
    calibration: int = 24
    """Samples to calibrate with."""

    @property
    def name(self) -> str:
        """What selects it."""
        return f"{self.operator} {self.setting}".strip()

    def build(self, evaluation: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network around the operator, with random weights, seeded, and random samples: those
        to calibrate with, then others."""
        samples = self.calibration + evaluation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x = (
                torch.randint(0, self.tokens, (samples, *self.size))
                if self.tokens
                else torch.randn(samples, *self.size)
            )
            return _Network(self, x).eval(), (x,)


class _Network(nn.Module):
    """A layer with weights, the operator, and a layer with weights where its output takes one."""

    def __init__(self, case: Case, x: Tensor) -> None:
        super().__init__()
        self.before = nn.Identity() if case.tokens else _before(case.size)
        self.operator = case.make()
        with torch.no_grad():
            y = self.operator(self.before(x[:2]))
        self.after = nn.ModuleList(_after(part) for part in _parts(y))

    def forward(self, x: Tensor) -> Any:
        made = _parts(self.operator(self.before(x)))
        results = [after(part) for after, part in zip(self.after, made, strict=True)]
        return results[0] if len(results) == 1 else tuple(results)


def _parts(y: Any) -> list[Tensor]:
    return list(y) if isinstance(y, list | tuple) else [y]


def _before(size: Size) -> nn.Module:
    if size in (FLAT, TOKENS):
        return nn.Linear(size[-1], WIDTH)
    convolution: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 2]
    return convolution(size[0], WIDTH, 3, padding=1)


def _after(y: Tensor) -> nn.Module:
    if not y.is_floating_point():
        return _Whole() if y.dtype == torch.bool else nn.Identity()
    if y.ndim == 4:
        return nn.Conv2d(y.shape[1], 4, 1)
    return nn.Linear(y.shape[-1], 4) if y.ndim in (2, 3) and y.shape[-1] > 1 else nn.Identity()


class _Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.int32)


class _With(nn.Module):
    """A function of the layer before it and of constants: parameters, or buffers."""

    def __init__(self, function: Function, *constants: Tensor, trained: bool = False) -> None:
        super().__init__()
        self.function = function
        self.count = len(constants)
        for place, tensor in enumerate(constants):
            if trained:
                self.register_parameter(f"constant{place}", nn.Parameter(tensor))
            else:
                self.register_buffer(f"constant{place}", tensor)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *(getattr(self, f"constant{i}") for i in range(self.count)))


class _First(nn.Module):
    """The first result of a module that gives several."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        return self.module(x)[0]


class _Index(nn.Module):
    """Max pooling with indices, undone."""

    def forward(self, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, places, 2, output_size=x.shape[2:])


def _fn(operator: str, setting: str, function: Function, size: Size = IMAGE) -> Case:
    return Case(operator, setting, lambda: function, size)


def _with(operator: str, setting: str, function: Function, *shapes: Size, **more: Any) -> Case:
    """``shapes`` of random constants."""
    size = more.pop("size", IMAGE)
    return Case(
        operator, setting, lambda: _With(function, *(torch.randn(s) for s in shapes), **more), size
    )


def _resizing() -> Iterator[Case]:
    def resize(mode: str, setting: str, size: Size = IMAGE, **how: Any) -> Case:
        return _fn(f"interpolate({mode})", setting, partial(F.interpolate, mode=mode, **how), size)

    for mode in ("nearest", "nearest-exact"):
        yield _fn(
            f"interpolate({mode})", "11x13 to 7x20", partial(F.interpolate, size=(7, 20), mode=mode)
        )
        yield _fn(
            f"interpolate({mode})", "11x13 to 5x6", partial(F.interpolate, size=(5, 6), mode=mode)
        )
        for factor in (2, 1.5, 0.5, 3):
            yield resize(mode, f"{factor}x", scale_factor=factor)
        yield resize(mode, "1-D 1.7x", LINE, scale_factor=1.7)
    yield resize("nearest", "3-D 2x", CUBE, scale_factor=2)
    yield resize("nearest", "0.7x, recomputed", scale_factor=0.7, recompute_scale_factor=True)
    for mode in ("bilinear", "bicubic"):
        for corners in (False, True):
            text = "aligned corners" if corners else "half pixels"
            yield resize(mode, f"2x, {text}", scale_factor=2, align_corners=corners)
            yield resize(mode, f"1.5x, {text}", scale_factor=1.5, align_corners=corners)
            yield _fn(
                f"interpolate({mode})",
                f"11x13 to 5x6, {text}",
                partial(F.interpolate, size=(5, 6), mode=mode, align_corners=corners),
            )
        yield resize(mode, "0.5x, antialias", scale_factor=0.5, antialias=True)
        yield _fn(
            f"interpolate({mode})",
            "11x13 to 7x5, antialias",
            partial(F.interpolate, size=(7, 5), mode=mode, antialias=True),
        )
    yield resize("bicubic", "0.7x, half pixels", scale_factor=0.7)
    for text, sizes in (("5x20", (5, 20)), ("20x6", (20, 6))):
        yield _fn(
            "interpolate(bicubic)",
            f"11x13 to {text}",
            partial(F.interpolate, size=sizes, mode="bicubic"),
        )
    yield resize("bicubic", "2x, antialias", scale_factor=2, antialias=True)
    yield resize("linear", "1.5x", LINE, scale_factor=1.5)
    yield resize("linear", "2x, aligned corners", LINE, scale_factor=2, align_corners=True)
    yield resize("trilinear", "2x", CUBE, scale_factor=2)
    yield resize("area", "0.5x", scale_factor=0.5)


def _pooling() -> Iterator[Case]:
    average: list[tuple[str, dict[str, Any]]] = [
        ("k2", {"kernel_size": 2}),
        ("k3 s2 p1", {"kernel_size": 3, "stride": 2, "padding": 1}),
        (
            "k3 s2 p1, padding not counted",
            {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        ),
        ("k3 s2, ceil", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ("k2 s2, ceil", {"kernel_size": 2, "ceil_mode": True}),
        (
            "k3 s2 p1, ceil",
            {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        ),
        (
            "k3 s2 p1, ceil, padding not counted",
            {
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
                "ceil_mode": True,
                "count_include_pad": False,
            },
        ),
        ("k3 s3, ceil", {"kernel_size": 3, "ceil_mode": True}),
        ("k4 s3 p1, ceil", {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True}),
        (
            "k4 s3 p1, ceil, padding not counted",
            {
                "kernel_size": 4,
                "stride": 3,
                "padding": 1,
                "ceil_mode": True,
                "count_include_pad": False,
            },
        ),
        ("k2, divisor 3", {"kernel_size": 2, "divisor_override": 3}),
        (
            "k3 s2 p1, divisor 5",
            {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5},
        ),
    ]
    for setting, how in average:
        yield _fn("avg_pool2d", setting, partial(F.avg_pool2d, **how))
    yield _fn("avg_pool1d", "k3 s2 p1", lambda x: F.avg_pool1d(x, 3, 2, 1), LINE)
    yield _fn("avg_pool1d", "k2 s2, ceil", lambda x: F.avg_pool1d(x, 2, ceil_mode=True), LINE)
    yield _fn("avg_pool3d", "k2", lambda x: F.avg_pool3d(x, 2), CUBE)
    yield _fn("avg_pool3d", "k2, ceil", lambda x: F.avg_pool3d(x, 2, ceil_mode=True), CUBE)
    most: list[tuple[str, dict[str, Any]]] = [
        ("k2", {"kernel_size": 2}),
        ("k3 s2 p1", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("k3 s2, ceil", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ("k2 s2, ceil", {"kernel_size": 2, "ceil_mode": True}),
        ("k4 s3 p1, ceil", {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True}),
        ("k3 s1 p1 d2", {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}),
        ("k5 s1 p2", {"kernel_size": 5, "stride": 1, "padding": 2}),
    ]
    for setting, how in most:
        yield _fn("max_pool2d", setting, partial(F.max_pool2d, **how))
    yield _fn("max_pool2d", "k2, with indices, undone", _Index())
    yield _fn("max_pool1d", "k3 s2 p1", lambda x: F.max_pool1d(x, 3, 2, 1), LINE)
    yield _fn("max_pool1d", "k2 s2, ceil", lambda x: F.max_pool1d(x, 2, ceil_mode=True), LINE)
    yield _fn("max_pool3d", "k2", lambda x: F.max_pool3d(x, 2), CUBE)
    yield _fn("max_pool3d", "k2, ceil", lambda x: F.max_pool3d(x, 2, ceil_mode=True), CUBE)
    for sizes in ((1, 1), (5, 6), (3, 13), (11, 1)):
        text = "x".join(map(str, sizes))
        yield _fn(
            "adaptive_avg_pool2d",
            f"11x13 to {text}",
            lambda x, s=sizes: F.adaptive_avg_pool2d(x, s),
        )
        yield _fn(
            "adaptive_max_pool2d",
            f"11x13 to {text}",
            lambda x, s=sizes: F.adaptive_max_pool2d(x, s),
        )
    yield _fn("adaptive_avg_pool1d", "11 to 4", lambda x: F.adaptive_avg_pool1d(x, 4), LINE)
    yield _fn(
        "adaptive_avg_pool3d", "to 1x1x1", lambda x: F.adaptive_avg_pool3d(x, 1).flatten(1), CUBE
    )
    yield _fn("lp_pool2d", "2, k2", lambda x: F.lp_pool2d(x, 2, 2))


def _convolutions() -> Iterator[Case]:
    def conv(kind: Any, setting: str, *args: Any, size: Size = IMAGE, **how: Any) -> Case:
        name = kind.__name__.lower().replace("transpose", "_transpose")
        return Case(name, setting, lambda: kind(WIDTH, *args, **how), size)

    flat: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
        ("k3 s2 p1", (6, 3, 2, 1), {}),
        ("k3 s2", (6, 3, 2), {}),
        ("k4 s2 p1", (6, 4, 2, 1), {}),
        ("k3 d2 p2", (6, 3), {"padding": 2, "dilation": 2}),
        ("k3 s2 p2 d2", (6, 3, 2, 2), {"dilation": 2}),
        ("k3 p1, 2 groups", (6, 3), {"padding": 1, "groups": 2}),
        ("k3 s2 p1, depthwise", (8, 3, 2, 1), {"groups": 8}),
        ("k3 p1, depthwise x3", (24, 3), {"padding": 1, "groups": 8}),
        ("k4, same", (6, 4), {"padding": "same"}),
        ("k2 d3, same", (6, 2), {"padding": "same", "dilation": 3}),
        ("k3, reflect", (6, 3), {"padding": 1, "padding_mode": "reflect"}),
        ("k3, circular", (6, 3), {"padding": 1, "padding_mode": "circular"}),
        ("k3 p1, no bias", (6, 3), {"padding": 1, "bias": False}),
    ]
    for setting, args, how in flat:
        yield conv(nn.Conv2d, setting, *args, **how)
    yield conv(nn.Conv2d, "k1x5 p0x2", 6, (1, 5), padding=(0, 2))
    yield conv(nn.Conv1d, "k3 s2 p1", 6, 3, 2, 1, size=LINE)
    yield conv(nn.Conv1d, "k4, same", 6, 4, padding="same", size=LINE)
    yield conv(nn.Conv1d, "k3 d2 p2, 4 groups", 8, 3, padding=2, dilation=2, groups=4, size=LINE)
    yield conv(nn.Conv3d, "k3 s2 p1", 6, 3, 2, 1, size=CUBE)
    up: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
        ("k2 s2", (6, 2, 2), {}),
        ("k3 s2 p1 op1", (6, 3, 2, 1, 1), {}),
        ("k3 s2 p1", (6, 3, 2, 1), {}),
        ("k5 s2 p2 op1", (6, 5, 2, 2, 1), {}),
        ("k4 s2 p1", (6, 4, 2, 1), {}),
        ("k4 s3", (6, 4, 3), {}),
        ("k2 s3 op2", (6, 2, 3), {"output_padding": 2}),
        ("k3 s1 p1", (6, 3, 1, 1), {}),
        ("k3 s2 p1 d2", (6, 3, 2, 1), {"dilation": 2}),
        ("k3 s2 p1, 2 groups", (6, 3, 2, 1), {"groups": 2}),
        ("k4 s2 p1, depthwise", (8, 4, 2, 1), {"groups": 8}),
        ("k3 s2 p3", (6, 3, 2, 3), {}),
        ("k4 s2 p1, no bias", (6, 4, 2, 1), {"bias": False}),
    ]
    for setting, args, how in up:
        yield conv(nn.ConvTranspose2d, setting, *args, **how)
    yield conv(nn.ConvTranspose2d, "k3x5 s2x1 p1x2", 6, (3, 5), (2, 1), (1, 2))
    for setting, args, how in up[1:6]:
        yield conv(nn.ConvTranspose1d, setting, *args, size=LINE, **how)
    yield conv(nn.ConvTranspose1d, "k4 s2 p1, 2 groups", 6, 4, 2, 1, groups=2, size=LINE)
    yield conv(nn.ConvTranspose3d, "k2 s2", 6, 2, 2, size=CUBE)
    yield Case("linear", "2-D", lambda: nn.Linear(WIDTH, 6), FLAT)
    yield Case("linear", "3-D", lambda: nn.Linear(WIDTH, 6), TOKENS)
    yield Case("bilinear", "", lambda: _Bilinear(), FLAT)


class _Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Bilinear(WIDTH, WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x.flip(1))


def _activations() -> Iterator[Case]:
    plain: dict[str, Function] = {
        "relu": F.relu, "relu6": F.relu6, "hardtanh": F.hardtanh, "elu": F.elu, "selu": F.selu,
        "celu": F.celu, "silu": F.silu, "mish": F.mish, "hardswish": lambda x: F.hardswish(4 * x),
        "hardsigmoid": lambda x: F.hardsigmoid(4 * x), "softplus": F.softplus,
        "softsign": F.softsign, "tanhshrink": F.tanhshrink, "sigmoid": torch.sigmoid,
        "tanh": torch.tanh, "logsigmoid": F.logsigmoid, "erf": torch.erf, "exp": torch.exp,
        "leaky_relu": partial(F.leaky_relu, negative_slope=0.1), "gelu": F.gelu,
        "abs": torch.abs, "neg": torch.neg, "square": torch.square, "sin": torch.sin,
        "cos": torch.cos,
        "atan": torch.atan, "expm1": torch.expm1, "hardshrink": F.hardshrink,
        "softshrink": F.softshrink, "tan": lambda x: torch.tan(x.tanh()), "sinh": torch.sinh,
        "cosh": torch.cosh,
        "asinh": torch.asinh, "asin": lambda x: torch.asin(0.9 * x.tanh()),
        "acos": lambda x: torch.acos(0.9 * x.tanh()),
        "atanh": lambda x: torch.atanh(0.9 * x.tanh()),
        "acosh": lambda x: torch.acosh(1.5 + x.abs()),
        "atan2": lambda x: torch.atan2(x, 0.5 + x.flip(1).abs()),
        "nan_to_num": torch.nan_to_num,
        "isinf": lambda x: x.masked_fill(torch.isinf(x), 0.0) + x,
    }  # fmt: skip
    for name, function in plain.items():
        yield _fn(name, "", function)
    yield _fn("gelu", "tanh", partial(F.gelu, approximate="tanh"))
    yield _fn("softplus", "beta 2, threshold 1", partial(F.softplus, beta=2, threshold=1))
    yield _fn("elu", "alpha 0.5", partial(F.elu, alpha=0.5))
    yield _fn("celu", "alpha 0.5, 2-D", partial(F.celu, alpha=0.5), FLAT)
    yield _fn("threshold", "0.1, -2", lambda x: F.threshold(x, 0.1, -2.0))
    yield _fn("rrelu", "", lambda x: F.rrelu(x))
    yield Case("prelu", "one slope", lambda: nn.PReLU())
    yield Case("prelu", "a slope a channel", lambda: _slopes(nn.PReLU(WIDTH)))
    yield Case("prelu", "a slope a channel, 2-D", lambda: _slopes(nn.PReLU(WIDTH)), FLAT)
    yield _fn("glu", "channels", lambda x: F.glu(x, 1))
    for function in (F.softmax, F.log_softmax, F.softmin):
        yield _fn(function.__name__, "channels", partial(function, dim=1))
        yield _fn(function.__name__, "last axis", partial(function, dim=-1))
    positive = {
        "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal,
        "log1p": torch.log1p, "log2": torch.log2, "log10": torch.log10,
    }  # fmt: skip
    for name, function in positive.items():
        yield _fn(name, "", lambda x, f=function: f(x.abs() + 0.3))
    yield _fn("pow", "square", lambda x: x**2)
    yield _fn("pow", "1.5", lambda x: (x.abs() + 0.1) ** 1.5)
    yield _fn("pow", "scalar base", lambda x: torch.pow(2.0, x))
    yield _fn("pow", "of tensors", lambda x: (x.abs() + 0.2) ** x.flip(1))
    yield _fn("sign", "", lambda x: x * torch.sign(x.flip(1)))
    for function in (torch.floor, torch.ceil, torch.round, torch.trunc):
        yield _fn(function.__name__, "", lambda x, f=function: x + 0.1 * f(3 * x))
    yield _fn("remainder", "0.7", lambda x: x + 0.1 * torch.remainder(3 * x, 0.7))
    yield _fn("fmod", "0.7", lambda x: x + 0.1 * torch.fmod(3 * x, 0.7))
    yield _fn("div", "floor", lambda x: x + 0.1 * torch.div(x, 0.3, rounding_mode="floor"))
    yield _fn("div", "trunc", lambda x: x + 0.1 * torch.div(x, 0.3, rounding_mode="trunc"))


def _slopes(module: nn.PReLU) -> nn.PReLU:
    nn.init.uniform_(module.weight, -0.3, 0.8)
    return module


def _arithmetic() -> Iterator[Case]:
    channel = (1, WIDTH, 1, 1)
    two: dict[str, Function] = {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "minimum": torch.minimum,
        "maximum": torch.maximum,
    }  # fmt: skip
    for name, function in two.items():
        yield _with(name, "buffer", function, channel)
        yield _fn(name, "its mirror image", lambda x, f=function: f(x, x.flip(3)))
        yield _fn(name, "unlike range", lambda x, f=function: f(x, 20 * F.relu(x.flip(1))))
    yield _with("div", "buffer", lambda x, c: x / (c.abs() + 0.5), channel)
    yield _fn("div", "tensor", lambda x: x / (x.flip(1).abs() + 0.5))
    yield _fn("add", "alpha 3", lambda x: torch.add(x, x.flip(1), alpha=3))
    yield _fn("rsub", "", lambda x: 1 - x)
    yield _fn("addcmul", "", lambda x: torch.addcmul(x, x.flip(1), x.flip(2), value=0.5))
    yield _fn("lerp", "0.3", lambda x: torch.lerp(x, x.flip(1), 0.3))
    yield _with("minimum", "constant -9", lambda x, c: torch.minimum(x, 0 * c - 9), channel)
    yield _fn(
        "where", "constant -0.5", lambda x: torch.where(x > 0.05, x, torch.full_like(x, -0.5))
    )
    yield _fn("where", "constant -9", lambda x: torch.where(x > 0.05, x, torch.full_like(x, -9.0)))
    yield _fn("where", "scalar -1", lambda x: torch.where(x > 0.05, x, -1.0))
    yield _with("where", "buffer", lambda x, c: torch.where(x > 0.05, x, c), channel)
    yield _fn("where", "tensors", lambda x: torch.where(x > 0.05, x, 5 * x.flip(1)))
    yield _fn("masked_fill", "-9", lambda x: x.masked_fill(x < 0, -9.0))
    yield _with(
        "masked_fill", "-9, mask in a buffer", lambda x, c: x.masked_fill(c > 0, -9.0), channel
    )
    yield _with(
        "masked_fill",
        "-1e9 before softmax",
        lambda x, c: x.masked_fill(c > 0, -1e9).softmax(1),
        channel,
    )
    yield _fn("clamp", "-0.3, 0.7", lambda x: x.clamp(-0.3, 0.7))
    yield _fn("clamp", "min 0.2", lambda x: x.clamp(min=0.2))
    yield _fn("clamp", "max -1", lambda x: x.clamp(max=-1.0) + x)
    yield _with("clamp", "buffers", lambda x, c: torch.clamp(x, -c.abs(), c.abs()), channel)
    yield _fn("clamp", "0, 6", lambda x: (9 * x).clamp(0, 6))
    compare = {"lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "ne": torch.ne}
    for name, function in compare.items():
        yield _fn(
            name,
            "tensor",
            lambda x, f=function: torch.where(f(x, x.flip(1)), x, x.flip(1)) + 0.1 * x,
        )
        yield _fn(name, "0.1", lambda x, f=function: x * f(x, 0.1).float())
    yield _fn("eq", "integers", lambda x: x * (torch.floor(x) == 0).float())
    for function in (torch.logical_and, torch.logical_or, torch.logical_xor):
        yield _fn(
            function.__name__,
            "",
            lambda x, f=function: F.relu(x) * f(x > 0, x.flip(1) > 0).float() + x,
        )
    yield _fn("logical_not", "", lambda x: x * torch.logical_not(x > 0).float())
    yield _fn("bitwise_and", "", lambda x: F.relu(x) * ((x > 0) & (x.flip(1) > 0)).float() + x)


def _reductions() -> Iterator[Case]:
    for name in ("mean", "sum", "amax", "amin", "std", "var", "prod", "logsumexp"):
        f = getattr(torch, name)
        yield _fn(
            name,
            "space, kept",
            lambda x, f=f, n=name: (
                f(x, 3, keepdim=True) if n == "prod" else f(x, (2, 3), keepdim=True)
            ),
        )
        yield _fn(name, "channels", lambda x, f=f: f(x, 1))
    yield _fn("mean", "all but the batch", lambda x: x.mean((1, 2, 3)))
    yield _fn("mean", "batch kept, axis -1", lambda x: x.mean(-1))
    for ending in ("sigmoid", "softmax", "tanh", "relu"):

        def end(x: Tensor, how: str = ending) -> Tensor:
            return x.softmax(1) if how == "softmax" else getattr(torch, how)(x)

        for name in ("mean", "sum"):
            yield _fn(
                f"{name} over one",
                f"behind {ending}",
                lambda x, e=end, n=name: getattr(e(x)[:, :, :1], n)(2),
            )
            yield _fn(
                f"{name} over one",
                f"behind {ending}, 2-D, kept",
                lambda x, e=end, n=name: getattr(e(x)[:, :1], n)(1, keepdim=True),
                FLAT,
            )
    for order in (1, 2, torch.inf):
        yield _fn(
            "vector_norm",
            f"order {order}, channels",
            lambda x, o=order: torch.linalg.vector_norm(x, o, 1, keepdim=True) + x,
        )
    yield _fn("normalize", "channels", lambda x: F.normalize(x, dim=1))
    yield _fn("cosine_similarity", "channels", lambda x: F.cosine_similarity(x, x.flip(2), dim=1))
    yield _fn("var_mean", "channels", lambda x: torch.var_mean(x, 1, correction=0))
    yield _fn("max", "axis, both results", lambda x: torch.max(x, 1)[0])
    yield _fn("argmax", "channels", lambda x: x.argmax(1))
    yield _fn("argmin", "last axis", lambda x: x.argmin(-1))
    yield _fn("any", "channels", lambda x: (x > 0.5).any(1))
    yield _fn("all", "channels", lambda x: (x > -0.5).all(1))
    yield _fn("cumsum", "last axis", lambda x: x.cumsum(-1))
    yield _fn("cumsum", "channels", lambda x: x.cumsum(1))
    yield _fn("cumprod", "channels", lambda x: x.cumprod(1))
    yield _fn("diff", "last axis", lambda x: x.diff())
    yield _fn("topk", "3 of channels", lambda x: x.topk(3, 1)[0])
    yield _fn("sort", "last axis", lambda x: x.sort(-1)[0])
    yield _fn("sort", "descending", lambda x: x.sort(1, descending=True)[0], FLAT)


def _moving() -> Iterator[Case]:
    for mode in ("reflect", "replicate", "circular"):
        yield _fn("pad", mode, partial(F.pad, pad=(2, 1, 0, 3), mode=mode))
        yield _fn("pad", f"{mode}, 1-D", partial(F.pad, pad=(2, 3), mode=mode), LINE)
    yield _fn("pad", "zero", partial(F.pad, pad=(2, 1, 0, 3)))
    yield _fn("pad", "constant -3", partial(F.pad, pad=(2, 1, 0, 3), value=-3.0))
    yield _fn("pad", "negative amounts", partial(F.pad, pad=(-2, 1, 1, -3)))
    yield _fn("pad", "channels", partial(F.pad, pad=(0, 0, 0, 0, 2, 1)))
    yield _fn("pixel_shuffle", "2", lambda x: F.pixel_shuffle(x, 2))
    yield _fn("pixel_unshuffle", "2", lambda x: F.pixel_unshuffle(x[:, :, :10, :12], 2))
    yield _fn("channel_shuffle", "4", lambda x: F.channel_shuffle(x, 4))
    yield _fn("roll", "2 axes", lambda x: x.roll((3, -2), (2, 3)))
    yield _fn("roll", "channels", lambda x: x.roll(3, 1))
    yield _fn("flip", "2 axes", lambda x: x.flip((2, 3)))
    yield _fn("flip", "channels", lambda x: x.flip(1))
    yield _fn("rot90", "", lambda x: x.rot90(1, (2, 3)))
    yield _fn("tril", "", lambda x: x.tril())
    yield _fn("triu", "1", lambda x: x.triu(1))
    yield _fn("permute", "", lambda x: x.permute(0, 3, 1, 2))
    yield _fn("transpose", "", lambda x: x.transpose(1, 3))
    yield _fn("reshape", "", lambda x: x.reshape(x.shape[0], 4, -1))
    yield _fn("unflatten", "", lambda x: x.unflatten(1, (2, 4)).sum(1))
    yield _fn("squeeze", "", lambda x: x[:, :, :1].squeeze(2))
    yield _fn("unsqueeze", "", lambda x: x.unsqueeze(2).mean(3))
    yield _fn("expand", "", lambda x: x[:, :1].expand(-1, 5, -1, -1))
    yield _fn("expand", "last axis", lambda x: x[..., :1].expand(-1, -1, -1, 5))
    yield _fn("expand", "3-D", lambda x: x[:, :1].expand(-1, 5, -1), LINE)
    yield _fn("expand", "two axes", lambda x: x[:, :, :1, :1].expand(-1, -1, 5, 6))
    yield _fn("expand", "of a mean", lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 5))
    yield _fn("expand", "a new axis", lambda x: x[:, None].expand(-1, 5, -1), FLAT)
    yield _fn("expand", "a new axis in front", lambda x: x.expand(3, *x.shape).sum(0), FLAT)
    yield _with(
        "expand",
        "class token",
        lambda x, c: torch.cat([c.expand(x.shape[0], -1, -1), x], 1),
        (1, 1, WIDTH),
        size=TOKENS,
        trained=True,
    )
    yield _fn("repeat", "", lambda x: x.repeat(1, 2, 1, 3))
    yield _fn("tile", "", lambda x: torch.tile(x, (1, 1, 2, 1)))
    yield _fn("repeat_interleave", "3", lambda x: x.repeat_interleave(3, 2))
    yield _fn("repeat_interleave", "channels", lambda x: x.repeat_interleave(2, 1))
    yield _fn("cat", "channels", lambda x: torch.cat([x, F.relu(x)], 1))
    yield _fn("cat", "last axis", lambda x: torch.cat([x, x[..., :3]], -1))
    yield _fn("cat", "unlike ranges", lambda x: torch.cat([640 * x.sigmoid(), x.softmax(1)], 1))
    yield Case("cat", "unlike ranges, the output", lambda: _Boxes(), IMAGE)
    yield _fn("stack", "", lambda x: torch.stack([x, 2 * x], 1).sum(2))
    yield _fn("chunk", "uneven", lambda x: torch.chunk(x, 3, 1))
    yield _fn("split", "uneven", lambda x: x.split([1, 5, 2], 1))
    yield _fn("split", "5", lambda x: torch.cat(x.split(5, 3)[::-1], 3))
    yield _fn("unbind", "", lambda x: torch.cat(x.unbind(2)[:3], 1)[..., None])
    yield _fn("unbind", "channels", lambda x: torch.stack(x.unbind(1)[::2], 1))
    yield _fn("unbind", "last axis", lambda x: torch.cat(x.unbind(-1)[::3], -1)[:, None], IMAGE)
    yield _fn("select", "two, joined", lambda x: torch.cat([x[:, :, 1], x[:, :, 4]], 1))
    yield _fn("tensor_split", "all of 3", lambda x: torch.cat(torch.tensor_split(x, 3, 2)[::-1], 2))
    yield _fn("tensor_split", "3", lambda x: torch.tensor_split(x, 3, 2)[1])
    yield _fn("slice", "step 2", lambda x: x[:, :, 1::2, ::3])
    yield _fn("slice", "from the end", lambda x: x[:, -3:, :-2])
    yield _fn("select", "last", lambda x: x[:, :, -1])
    yield _fn("narrow", "", lambda x: x.narrow(2, 3, 5))
    yield _fn("index_select", "", lambda x: x.index_select(2, torch.tensor([3, 0, 7])))
    yield _fn("index", "one tensor", lambda x: x[:, torch.tensor([3, 0, 7])])
    yield _fn(
        "index", "two tensors", lambda x: x[:, torch.tensor([3, 0, 7]), torch.tensor([1, 2, 3])]
    )
    yield _fn("index", "negative", lambda x: x[:, :, torch.tensor([-1, 0, -2])])
    yield _fn("index", "mask", lambda x: x[:, torch.tensor([True, False] * 4)])
    yield _fn("gather", "last axis", lambda x: x.gather(3, (x[..., :4].relu() * 0).long() + 2))
    yield _fn("take_along_dim", "sorted", lambda x: torch.take_along_dim(x, x.argsort(1), 1), FLAT)
    yield _fn(
        "scatter", "channels", lambda x: x.scatter(1, (x[:, :2] * 0).long() + 3, 2 * x[:, :2])
    )
    yield _fn(
        "scatter_add", "", lambda x: x.scatter_add(1, (x[:, :2] * 0).long() + 3, 2 * x[:, :2])
    )
    yield _fn("index_add", "", lambda x: x.index_add(1, torch.tensor([1, 1, 3]), x[:, :3]))
    yield _fn(
        "scatter_reduce",
        "amax",
        lambda x: x.scatter_reduce(1, (x[:, :2] * 0).long() + 3, 2 * x[:, :2], "amax"),
    )
    yield _fn("index_put", "", _put)
    yield _fn("index_put", "added", partial(_put, added=True))
    yield _fn("slice_scatter", "", _assign)
    yield _fn("copy_", "assigned in place", _assign_in_place)
    yield _fn("unfold", "axis", lambda x: x.unfold(3, 4, 3).sum(-1))
    yield _fn("im2col", "k3 s2 p1", lambda x: F.unfold(x, 3, stride=2, padding=1))
    yield _fn(
        "col2im",
        "k2 s2",
        lambda x: F.fold(F.unfold(x[:, :, :10, :12], 2, stride=2), (10, 12), 2, stride=2),
    )
    yield _fn(
        "col2im", "k3 s1 p1", lambda x: F.fold(F.unfold(x, 3, padding=1), (11, 13), 3, padding=1)
    )
    yield _fn(
        "col2im",
        "k3 s2 p1",
        lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2), (11, 13), 3, padding=1, stride=2),
    )
    for mode in ("bilinear", "nearest"):
        for corners in (False, True):
            yield Case(
                "grid_sample",
                f"{mode}, {'aligned corners' if corners else 'half pixels'}",
                lambda m=mode, c=corners: _With(
                    partial(_sample, m, c), torch.rand(1, 5, 6, 2) * 2 - 1
                ),
            )
    yield _fn(
        "meshgrid",
        "",
        lambda x: x + torch.meshgrid(torch.arange(11.0), torch.arange(13.0), indexing="ij")[0],
    )


class _Boxes(nn.Module):
    """Boxes beside scores, with no layer behind them."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (
            torch.cat([640 * x[:, :4].sigmoid(), x[:, 4:].sigmoid()], 1).flatten(2).mT[..., :1],
        )


def _put(x: Tensor, added: bool = False) -> Tensor:
    places = torch.arange(x.shape[0])[:, None], torch.tensor([1, 3])
    if added:
        return x.index_put(places, x[:, :2], accumulate=True)
    y = x.clone()
    y[:, places[1]] = 2.0
    return y


def _assign(x: Tensor) -> Tensor:
    return torch.slice_scatter(x, 2 * x[:, :, :3], 2, 4, 7)


def _assign_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 2:5] = 3 * x[:, :, :3]
    return y


def _sample(mode: str, corners: bool, x: Tensor, grid: Tensor) -> Tensor:
    grid = grid.expand(x.shape[0], -1, -1, -1)
    return F.grid_sample(x, grid, mode=mode, align_corners=corners)


def _norms() -> Iterator[Case]:
    yield Case("batch_norm", "after a convolution", lambda: _measured(nn.BatchNorm2d(WIDTH)))
    yield Case(
        "batch_norm", "alone", lambda: nn.Sequential(nn.GELU(), _measured(nn.BatchNorm2d(WIDTH)))
    )
    yield Case(
        "batch_norm",
        "3-D",
        lambda: nn.Sequential(nn.Tanh(), _measured(nn.BatchNorm1d(WIDTH))),
        LINE,
    )
    yield Case("group_norm", "2 groups", lambda: nn.GroupNorm(2, WIDTH))
    yield Case("group_norm", "1-D, 4 groups", lambda: nn.GroupNorm(4, WIDTH), LINE)
    yield Case("group_norm", "2-D", lambda: nn.GroupNorm(4, WIDTH), FLAT)
    yield Case("instance_norm", "", lambda: nn.InstanceNorm2d(WIDTH))
    yield Case("instance_norm", "affine, 1-D", lambda: nn.InstanceNorm1d(WIDTH, affine=True), LINE)
    yield Case(
        "instance_norm",
        "running statistics",
        lambda: nn.InstanceNorm2d(WIDTH, track_running_stats=True),
    )
    yield Case("layer_norm", "last axis", lambda: nn.LayerNorm(WIDTH), TOKENS)
    yield Case("layer_norm", "three axes", lambda: nn.LayerNorm((WIDTH, 11, 13)))
    yield Case(
        "layer_norm", "not affine", lambda: nn.LayerNorm(WIDTH, elementwise_affine=False), TOKENS
    )
    yield Case("rms_norm", "last axis", lambda: nn.RMSNorm(WIDTH), TOKENS)
    yield _fn("local_response_norm", "3", lambda x: F.local_response_norm(x, 3))
    yield Case(
        "weight_norm", "", lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(WIDTH, 6, 3))
    )
    yield Case(
        "spectral_norm", "", lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(WIDTH, 6, 3))
    )


def _measured(module: Any) -> Any:
    module.running_mean.normal_(0, 0.2)
    module.running_var.uniform_(0.3, 1.5)
    return module


def _sequences() -> Iterator[Case]:
    for kind in (nn.LSTM, nn.GRU):
        name = kind.__name__.lower()
        yield Case(name, "one layer", lambda k=kind: _First(k(WIDTH, 6, batch_first=True)), TOKENS)
        yield Case(
            name,
            "bidirectional",
            lambda k=kind: _First(k(WIDTH, 6, batch_first=True, bidirectional=True)),
            TOKENS,
        )
        yield Case(
            name, "two layers", lambda k=kind: _First(k(WIDTH, 6, 2, batch_first=True)), TOKENS
        )
    yield Case("rnn_tanh", "one layer", lambda: _First(nn.RNN(WIDTH, 6, batch_first=True)), TOKENS)
    yield Case("lstm_cell", "", lambda: _First(nn.LSTMCell(WIDTH, 6)), FLAT)
    yield Case("embedding", "", lambda: nn.Embedding(50, 12), (9,), 50)
    yield Case("embedding", "padding index", lambda: nn.Embedding(50, 12, padding_idx=0), (9,), 50)
    yield Case("embedding_bag", "mean", lambda: nn.EmbeddingBag(50, 12), (9,), 50)
    yield Case("embedding_bag", "sum", lambda: nn.EmbeddingBag(50, 12, mode="sum"), (9,), 50)
    yield Case("embedding_bag", "max", lambda: nn.EmbeddingBag(50, 12, mode="max"), (9,), 50)
    yield Case(
        "embedding_bag", "padding index", lambda: nn.EmbeddingBag(50, 12, padding_idx=0), (9,), 50
    )
    yield Case("one_hot", "", lambda: lambda ids: F.one_hot(ids, 20).float(), (9,), 20)
    yield Case("arange", "positions", lambda: _Positions(), (9,), 20)

    def attend(setting: str, function: Function) -> Case:
        return _fn("scaled_dot_product_attention", setting, function, TOKENS)

    attention = F.scaled_dot_product_attention
    yield attend(
        "4-D", lambda x: attention(*[_heads(y) for y in (x, 2 * x, x.flip(1))]).flatten(1, 2)
    )
    yield attend("3-D", lambda x: attention(x, 2 * x, x.flip(1)))
    yield attend(
        "causal", lambda x: attention(*[_heads(y) for y in (x, x, x)], is_causal=True).flatten(1, 2)
    )
    yield attend(
        "scale", lambda x: attention(*[_heads(y) for y in (x, x, x)], scale=0.9).flatten(1, 2)
    )
    yield attend(
        "grouped heads",
        lambda x: attention(_heads(x), *[_heads(x)[:, :1]] * 2, enable_gqa=True).flatten(1, 2),
    )
    yield _with(
        "scaled_dot_product_attention",
        "added mask",
        lambda x, m: attention(*[_heads(x)] * 3, attn_mask=m).flatten(1, 2),
        (7, 7),
        size=TOKENS,
    )
    yield _with(
        "scaled_dot_product_attention",
        "boolean mask",
        lambda x, m: attention(
            *[_heads(x)] * 3, attn_mask=(m > 0) | torch.eye(7, dtype=torch.bool)
        ).flatten(1, 2),
        (7, 7),
        size=TOKENS,
    )
    yield attend(
        "causal mask of -inf",
        lambda x: attention(
            *[_heads(x)] * 3, attn_mask=torch.full((7, 7), -torch.inf).triu(1)
        ).flatten(1, 2),
    )
    yield attend(
        "boolean mask, a row attends nothing",
        lambda x: attention(
            *[_heads(x)] * 3, attn_mask=torch.ones(7, 7, dtype=torch.bool).tril(-1)
        ).flatten(1, 2),
    )
    yield attend(
        "boolean mask of the input, 3-D",
        lambda x: attention(x, x, x, attn_mask=x[:, None, :, 0] > -0.4),
    )
    yield attend("causal, 3-D, scale", lambda x: attention(x, x, x, is_causal=True, scale=0.5))
    yield Case("multi_head_attention", "", lambda: _Attention(), TOKENS)


class _Positions(nn.Module):
    """Token and position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, 12), nn.Embedding(9, 12)

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids) + self.places(torch.arange(ids.shape[1]))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, WIDTH // 2)).transpose(1, 2)


def _products() -> Iterator[Case]:
    def squares(operator: str, setting: str, function: Function) -> Case:
        """Of a tensor with itself: its range has a long tail, which few samples don't show. They
        are as many as the command line takes."""
        return Case(operator, setting, lambda: function, TOKENS, calibration=256)

    yield squares("matmul", "batched", lambda x: x @ x.mT)
    yield _fn("matmul", "4-D", lambda x: x @ x.mT)
    yield _with("matmul", "buffer on the left", lambda x, c: c @ x, (5, 7), size=TOKENS)
    yield _with("matmul", "parameter", lambda x, c: x @ c, (WIDTH, 5), size=TOKENS, trained=True)
    yield squares("bmm", "", lambda x: torch.bmm(x, x.mT))
    yield squares("baddbmm", "", lambda x: torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5))
    yield _with("mv", "", lambda x, c: (x @ c)[..., None] + x, (WIDTH,), size=TOKENS)
    yield _with(
        "einsum",
        "bnc,dc->bnd",
        lambda x, c: torch.einsum("bnc,dc->bnd", x, c),
        (5, WIDTH),
        size=TOKENS,
    )
    yield squares("einsum", "bnc,bmc->bnm", lambda x: torch.einsum("bnc,bmc->bnm", x, x))
    yield _with(
        "einsum", "nchw,cv->nvhw", lambda x, c: torch.einsum("nchw,cv->nvhw", x, c), (WIDTH, 5)
    )
    yield _fn("outer product", "", lambda x: x[:, :, None] * x[:, None, :], FLAT)
    yield _fn("cdist", "", lambda x: torch.cdist(x, 2 * x), TOKENS)
    yield _fn("fft", "real", lambda x: torch.fft.rfft(x).abs(), LINE)
    yield _fn("fft", "complex", lambda x: torch.fft.fft(x).real, LINE)
    yield _fn(
        "complex", "", lambda x: torch.view_as_real(torch.complex(x, x.flip(1)) ** 2).sum(-1), LINE
    )
    yield _fn(
        "stft",
        "",
        lambda x: torch.stft(
            x.flatten(1), 16, window=torch.hann_window(16), return_complex=True
        ).abs(),
        LINE,
    )


CASES: tuple[Case, ...] = tuple(
    case
    for group in (
        _convolutions,
        _resizing,
        _pooling,
        _activations,
        _arithmetic,
        _reductions,
        _moving,
        _norms,
        _sequences,
        _products,
    )
    for case in group()
)
