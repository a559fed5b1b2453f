# SPDX-License-Identifier: Apache-2.0
"""Zeros that stay zero while the rest is trained, under any optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.mask.mask import Mask

__all__ = ["Held"]


class Held:
    """A mask in force: before each step of the optimizer the gradients of masked weights become
    zero, after it the weights and all that the optimizer keeps of them (momentum, moments).

    ``gradients`` has the gradients of the last step as they were before, where ``watch`` asked for
    them: what growing methods rank.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, mask: Mask) -> None:
        """Put the mask in force at once.

        Raises:
            InputError: The module lacks a parameter of the mask, or has it in another shape.
        """
        named = dict(module.named_parameters(remove_duplicate=False))
        for name, kept in mask.keep.items():
            if name not in named or named[name].shape != kept.shape:
                found = tuple(named[name].shape) if name in named else "none"
                raise InputError(
                    f"the mask is for another network: '{name}' has shape {tuple(kept.shape)} in "
                    f"the mask, {found} in the model"
                )
        self.parameters = {name: named[name] for name in mask.keep}
        self.optimizer = optimizer
        self.watch = False
        self.gradients: dict[str, Tensor] = {}
        self.mask = mask
        self._hooks = (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        )
        self.enforce()

    def change(self, mask: Mask) -> None:
        """Put another mask of the same parameters in force; weights that begin to live are zero.

        Raises:
            InputError: It covers other parameters.
        """
        if mask.shapes != self.mask.shapes:
            raise InputError("a mask in force can only give way to one of the same parameters")
        self.mask = mask
        self.enforce()

    def release(self) -> None:
        """End it: from here on every weight is trained."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def enforce(self) -> None:
        """Make weights, and what the optimizer keeps of them, zero where the mask is."""
        for name, parameter in self.parameters.items():
            dead = ~self.mask.keep[name]
            parameter.masked_fill_(dead, 0)
            for value in self.optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(dead, 0)

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        self.gradients = {}
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            if self.watch:
                self.gradients[name] = parameter.grad.clone()
            parameter.grad.masked_fill_(~self.mask.keep[name], 0)

    def _after(self, *_: Any) -> None:
        self.enforce()
