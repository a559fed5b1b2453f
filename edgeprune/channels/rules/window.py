# SPDX-License-Identifier: Apache-2.0
"""Space: pooling, resizing, windows, and what moves channels into space and back."""

import numpy as np
import torch

from edgeprune.channels.atoms import Axis, Dims
from edgeprune.channels.op import Op, Rule, Value

__all__ = ["RULES"]


def spatial(op: Op) -> Value:
    """Pooling and resizing: the last dimensions are space, the others pass."""
    dims = op.dims(op.source)
    count = next((int(c) for c in op.name if c.isdigit()), 2)
    keep = len(dims) - count
    for axis in dims[keep:]:
        op.freeze(axis, "space")
    value = op.node.meta.get("val")
    out: Dims = (*dims[:keep], *(None,) * count)
    if isinstance(value, torch.Tensor):
        return out
    return [out for _ in value or ()]


def grid_sampler(op: Op) -> Value:
    """Sampling at given places: samples and channels pass, the grid stays."""
    for axis in op.dims(op.argument("grid")):
        op.freeze(axis, "sampling grid")
    dims = op.dims(op.source)
    for axis in dims[2:]:
        op.freeze(axis, "space")
    return (*dims[:2], *(None,) * (len(dims) - 2))


def pixel_shuffle(op: Op) -> Value:
    """Channels become space: the r*r channels of one output channel live together."""
    dims = op.dims(op.source)
    factor = op.argument("upscale_factor")
    axis = dims[-3]
    if axis is not None:
        axis = op.atoms.fold(axis, (axis.size // factor**2, factor**2), 0)
    return (*dims[:-3], axis, None, None)


def pixel_unshuffle(op: Op) -> Value:
    """Space becomes channels: each channel r*r times in a row."""
    dims = op.dims(op.source)
    return (*dims[:-3], _repeated(dims[-3], op.argument("downscale_factor") ** 2), None, None)


def channel_shuffle(op: Op) -> Value:
    """Channels of ``groups`` groups are dealt out in turn; the same places in each group go."""
    dims = op.dims(op.source)
    axis, groups = dims[1], op.argument("groups")
    if axis is None:
        return dims
    op.atoms.fold(axis, (groups, axis.size // groups), 1)
    return (dims[0], np.ascontiguousarray(axis.reshape(groups, -1).T).reshape(-1), *dims[2:])


def im2col(op: Op) -> Value:
    """Sliding windows laid out as columns: each channel once for each place of the kernel."""
    dims = op.dims(op.source)
    return (*dims[:-3], _repeated(dims[-3], _kernel(op)), None)


def col2im(op: Op) -> Value:
    """The reverse of ``im2col``, overlaps added."""
    dims = op.dims(op.source)
    axis, places = dims[-2], _kernel(op)
    op.freeze(dims[-1], "space")
    if axis is not None:
        axis = op.atoms.fold(axis, (axis.size // places, places), 0)
    return (*dims[:-2], axis, None, None)


def _kernel(op: Op) -> int:
    return int(np.prod(op.argument("kernel_size")))


def _repeated(axis: Axis | None, times: int) -> Axis | None:
    return None if axis is None else np.repeat(axis, times)


def unfold(op: Op) -> Value:
    """``Tensor.unfold``: windows along one dimension, which must stay."""
    dims = op.dims(op.source)
    place = op.argument("dimension") % len(dims)
    op.freeze(dims[place], "space")
    return (*dims[:place], None, *dims[place + 1 :], None)


def spectrum(op: Op) -> Value:
    """Fourier transforms: the dimensions transformed stay."""
    dims = op.dims(op.source)
    chosen = op.argument("dim")
    over = range(len(dims)) if chosen is None else np.atleast_1d(chosen)
    places = {int(d) % len(dims) for d in over}
    for place in places:
        op.freeze(dims[place], "Fourier transform")
    return tuple(None if i in places else axis for i, axis in enumerate(dims))


_FOURIER = [f"fft_{kind}{tail}" for tail in ("", "2", "n")
            for kind in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")]  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [f"{kind}{n}d{tail}" for n in (1, 2, 3) for kind, tail in (
            ("max_pool", ""), ("max_pool", "_with_indices"), ("avg_pool", ""),
            ("adaptive_avg_pool", ""), ("adaptive_max_pool", ""), ("_adaptive_avg_pool", ""),
            ("upsample_nearest", ""), ("_upsample_nearest_exact", ""),
            ("reflection_pad", ""), ("replication_pad", ""))]
        + ["upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d",
           "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"],
        spatial,
    ),
    **dict.fromkeys(["grid_sampler", "grid_sampler_2d", "grid_sampler_3d"], grid_sampler),
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "im2col": im2col,
    "col2im": col2im,
    "unfold": unfold,
    **dict.fromkeys(_FOURIER, spectrum),
    **dict.fromkeys(["fft_fftshift", "fft_ifftshift"], spectrum),
}  # fmt: skip
