# SPDX-License-Identifier: Apache-2.0
"""Optimizer and learning rate."""

import math
from collections.abc import Callable

import torch
from torch import nn

from edgeprune.recipe import FinetuneOptions

__all__ = ["base_rate", "cosine_with_warmup", "make_optimizer"]


def base_rate(options: FinetuneOptions, batch_size: int) -> float:
    """The highest learning rate of the run.

    A default rate belongs to the default batch: where the model's own fixed batch is smaller, it
    shrinks in proportion (the linear scaling rule of Goyal et al. 2017). A rate that was asked for
    is used as it is.
    """
    if options.learning_rate is not None:
        return options.learning_rate
    rate = 0.02 if options.optimizer == "sgd" else 0.0005
    return rate * min(1.0, batch_size / options.batch_size)


def make_optimizer(module: nn.Module, options: FinetuneOptions) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW. Only parameters of two or more dimensions decay: biases
    and the scales of norms are left to the loss alone."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0)
    momentum = options.momentum
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0)


def cosine_with_warmup(peak: float, steps: int, warmup: float) -> Callable[[int], float]:
    """Rate by step number (from 0): a line up to ``peak`` over the share ``warmup`` of all
    ``steps``, then half a cosine that would reach zero one step after the last (Loshchilov and
    Hutter 2017)."""
    rise = round(warmup * steps)

    def rate(step: int) -> float:
        if step < rise:
            return peak * (step + 1) / rise
        return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))

    return rate
