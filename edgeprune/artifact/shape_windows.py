# SPDX-License-Identifier: Apache-2.0
"""Shapes of convolutions and pooling. Layout is (batch, channels, spatial ...)."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.artifact.call import Call, Rule, Shape, Unknown, integers

__all__ = ["WINDOWS"]


def _conv(call: Call, weight: int = 1) -> tuple[Shape, ...]:
    shape, kernel = call.shape(0), call.sizes(weight)
    return ((shape[0], kernel[0], *_slide(call, shape[2:], kernel[2:])),)


def _pool(call: Call) -> tuple[Shape, ...]:
    shape, kernel = call.shape(0), call.row("kernel_shape")
    if kernel is None:
        raise Unknown("the size of its window isn't known")
    out = (*shape[:2], *_slide(call, shape[2:], kernel))
    return (out, out)


def _global_pool(call: Call) -> tuple[Shape, ...]:
    shape = call.shape(0)
    if call.integer("channels_last", 0):
        return ((shape[0], *(1 for _ in shape[1:-1]), shape[-1]),)
    return ((*shape[:2], *(1 for _ in shape[2:])),)


def _slide(call: Call, spatial: Shape, kernel: tuple[int, ...]) -> Shape:
    rank = len(kernel)
    strides = call.row("strides") or (1,) * rank
    dilations = call.row("dilations") or (1,) * rank
    auto = call.text("auto_pad", "NOTSET")
    pads = call.row("pads") or (0,) * 2 * rank
    if auto == "VALID":
        pads = (0,) * 2 * rank
    result: list[int | None] = []
    for at, (size, window) in enumerate(zip(spatial, kernel, strict=True)):
        stride, span = strides[at], (window - 1) * dilations[at] + 1
        if size is None:
            result.append(None)
        elif auto.startswith("SAME"):
            result.append(-(-size // stride))
        else:
            padded = size + pads[at] + pads[at + rank]
            result.append(_steps(padded, span, stride, call, size + pads[at]))
    return tuple(result)


def _steps(padded: int, span: int, stride: int, call: Call, start: int) -> int:
    if padded < span:
        raise Unknown(f"its window of {span} is larger than its input of {padded}")
    if not call.integer("ceil_mode", 0):
        return (padded - span) // stride + 1
    steps = -(-(padded - span) // stride) + 1
    # A window may not begin in the padding behind the end.
    return steps - 1 if (steps - 1) * stride >= start else steps


def _deconv(call: Call, weight: int = 1) -> tuple[Shape, ...]:
    shape, kernel = call.sizes(0), call.sizes(weight)
    rank, spatial = len(kernel) - 2, call.row("output_shape")
    if spatial is None:
        strides = call.row("strides") or (1,) * rank
        dilations = call.row("dilations") or (1,) * rank
        extra = call.row("output_padding") or (0,) * rank
        pads = call.row("pads") or (0,) * 2 * rank
        auto = call.text("auto_pad", "NOTSET")
        if auto.startswith("SAME"):
            spatial = tuple(shape[2 + at] * strides[at] for at in range(rank))
        else:
            pads = (0,) * 2 * rank if auto == "VALID" else pads
            spatial = tuple(
                (shape[2 + at] - 1) * strides[at]
                + extra[at]
                + (kernel[2 + at] - 1) * dilations[at]
                + 1
                - pads[at]
                - pads[at + rank]
                for at in range(rank)
            )
    return ((shape[0], kernel[1] * call.integer("group", 1), *integers(spatial[-rank:])),)


def _unpool(call: Call) -> tuple[Shape, ...]:
    if call.has(2):
        return (call.numbers(2),)
    shape, kernel = call.sizes(0), call.row("kernel_shape") or ()
    rank = len(kernel)
    strides, pads = call.row("strides") or (1,) * rank, call.row("pads") or (0,) * 2 * rank
    spatial = (
        (shape[2 + at] - 1) * strides[at] + kernel[at] - pads[at] - pads[at + rank]
        for at in range(rank)
    )
    return ((*shape[:2], *spatial),)


WINDOWS: Mapping[str, Rule] = {
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _deconv,
    "DeformConv": _conv,
    "GlobalAveragePool": _global_pool,
    "GlobalLpPool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LpPool": _pool,
    "MaxPool": _pool,
    "MaxUnpool": _unpool,
    "QLinearConv": lambda call: _conv(call, 3),
    "com.microsoft.FusedConv": _conv,
    "com.microsoft.QLinearAveragePool": _pool,
    "com.microsoft.QLinearConvTranspose": lambda call: _deconv(call, 3),
    "com.microsoft.QLinearGlobalAveragePool": _global_pool,
}
