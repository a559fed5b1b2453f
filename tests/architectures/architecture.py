# SPDX-License-Identifier: Apache-2.0
"""What one member of the test set is, and how its weights are made to matter."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Architecture", "Built", "architecture", "image", "tokens"]

Built = tuple[nn.Module, tuple[Tensor, ...]]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Architecture:
    """One network of the test set. ``build()`` gives it in eval mode with a batch of two inputs;
    each call gives equal ones and leaves the caller's random state as it was."""

    name: str
    family: str
    build: Callable[[], Built]


def image(size: int = 64, channels: int = 3) -> Callable[[], tuple[Tensor, ...]]:
    """A batch of square images."""
    return lambda: (torch.randn(2, channels, size, size),)


def tokens(length: int = 12, vocabulary: int = 90) -> Callable[[], tuple[Tensor, ...]]:
    """A batch of token ids."""
    return lambda: (torch.randint(0, vocabulary, (2, length)),)


def architecture(
    name: str,
    family: str,
    make: Callable[[], nn.Module],
    inputs: Callable[[], tuple[Tensor, ...]],
) -> Architecture:
    """The member whose network ``make()`` makes, with random weights, seeded."""

    def build() -> Built:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = make().eval()
            example = inputs()
            _enliven(module, example)
        return module, example

    return Architecture(name, family, build)


@torch.no_grad()
def _enliven(module: nn.Module, example: tuple[Tensor, ...]) -> None:
    """Draw each parameter so that signals neither die out nor explode, and no default (a zero bias,
    a layer scale of 1e-5, a scale of one) hides a mistake; then set what is measured from data."""
    for name, parameter in module.named_parameters():
        fan = parameter[0].numel() if parameter.ndim else 1
        if parameter.ndim > 1 and fan > 1:
            parameter.normal_(0, 1.2 / math.sqrt(fan))
        elif "bias" in name:
            parameter.normal_(0, 0.1)
        else:
            parameter.uniform_(0.5, 1.5)
    measured = [part for part in module.modules() if _is_measured(part)]
    if measured:
        for part in measured:
            part.training = True
        module(*example)
        for part in measured:
            part.training = False


def _is_measured(part: nn.Module) -> bool:
    """Whether its buffers are found by running it in train mode."""
    if isinstance(part, _BATCH_NORMS):
        part.momentum = 0.9
        return True
    return type(part).__name__ == "_SpectralNorm"
