# SPDX-License-Identifier: Apache-2.0
"""What an artifact's inputs and outputs are called, and how they lie."""

from edgeprune.model import Input, Model

__all__ = ["is_image", "output_names"]


def is_image(spec: Input) -> bool:
    """Whether an input is a batch of images or feature maps: four dimensions, floating point."""
    return len(spec.shape) == 4 and spec.dtype.is_floating_point


def output_names(model: Model) -> tuple[str, ...]:
    """``output``, or ``output_0``, ``output_1`` ... of a model with several."""
    count = len(model.program.graph_signature.user_outputs)
    return ("output",) if count == 1 else tuple(f"output_{place}" for place in range(count))
