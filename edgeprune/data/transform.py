# SPDX-License-Identifier: Apache-2.0
"""From stored values to the tensors that a model takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.data.spec import Layout, largest_shift

__all__ = ["Transform", "flip_shift"]


@dataclass(frozen=True)
class Transform:
    """``(value * scale - mean) / std`` for the first input, and its axes in the model's order.

    With ``layout`` ``None`` the first input is no image: only the constants apply to it.
    """

    layout: Layout | None
    """Axes of the stored images."""
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels_last: bool = False
    """The model takes NHWC."""
    identity: bool = False
    """The values are given to the model as they are stored."""
    dtype: torch.dtype | None = None
    """What the model takes; ``None``: integer pictures stay as they are, others are float32."""

    def __call__(
        self, inputs: tuple[Tensor, ...], random: np.random.Generator | None
    ) -> tuple[Tensor, ...]:
        """Prepare a batch; with ``random`` its images are flipped and shifted."""
        first = inputs[0]
        if self.layout is not None:
            first = self._image(first, random)
        elif not self.identity:
            first = self._scaled(first)
        return (first.contiguous(), *inputs[1:])

    def _image(self, images: Tensor, random: np.random.Generator | None) -> Tensor:
        if self.layout == "NHW":
            images = images.unsqueeze(3)
        elif self.layout == "NCHW":
            images = images.permute(0, 2, 3, 1)
        if random is not None:
            images = flip_shift(images, random)
        if not self.identity:
            images = self._scaled(images)
        elif self.dtype is not None:
            images = images.to(self.dtype)
        return images if self.channels_last else images.permute(0, 3, 1, 2)

    def _scaled(self, values: Tensor) -> Tensor:
        """Scale and normalise; channels are the last axis."""
        values = values.to(torch.float32) * self.scale
        if self.mean:
            values = (values - torch.tensor(self.mean)) / torch.tensor(self.std)
        return values if self.dtype is None else values.to(self.dtype)


def flip_shift(images: Tensor, random: np.random.Generator) -> Tensor:
    """Flip each image left to right with probability 1/2, and shift it; zeros move in.

    Each shift is drawn evenly from -s..s pixels a side, s as ``largest_shift`` gives it: the
    augmentation usual for CIFAR (He et al. 2015, section 4.2).

    Args:
        images: ``[N, H, W, C]`` of any type.
        random: Drawn from three times.
    """
    count, height, width, _ = images.shape
    down, across = largest_shift(height), largest_shift(width)
    flips = random.integers(0, 2, count).astype(np.bool_)
    tops = random.integers(0, 2 * down + 1, count)
    lefts = random.integers(0, 2 * across + 1, count)
    columns = np.arange(width)
    columns = np.where(flips[:, None], columns[::-1], columns) + lefts[:, None]
    rows = np.arange(height) + tops[:, None]
    padded = F.pad(images, (0, 0, across, across, down, down))
    index: tuple[Any, ...] = (np.arange(count)[:, None, None], rows[:, :, None], columns[:, None])
    return padded[tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in index)]
