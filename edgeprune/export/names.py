# SPDX-License-Identifier: Apache-2.0
"""How an artifact's inputs lie."""

from edgeprune.model import Input

__all__ = ["is_image"]


def is_image(spec: Input) -> bool:
    """Whether an input is a batch of images or feature maps: four dimensions, floating point."""
    return len(spec.shape) == 4 and spec.batch_axis == 0 and spec.dtype.is_floating_point
