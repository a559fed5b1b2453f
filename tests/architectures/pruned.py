# SPDX-License-Identifier: Apache-2.0
"""Members of the test set captured, analysed and halved."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.channels import Group, Groups, analyse, apply
from edgeprune.channels.groups import Bools
from edgeprune.model import Event, Model, capture
from tests.architectures import ARCHITECTURES

__all__ = ["Subject", "as_tuple", "run"]


def as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """All outputs of a network, as it gives one tensor or several."""
    return (value,) if isinstance(value, Tensor) else tuple(value)


@torch.no_grad()
def run(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """All outputs, without gradient."""
    return as_tuple(module(*inputs))


@dataclass(frozen=True)
class Subject:
    """One architecture on the bench; what costs time is done once, when it is first asked for."""

    name: str

    @cached_property
    def built(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The network and a batch of two."""
        return ARCHITECTURES[self.name].build()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """A batch of two."""
        return self.built[1]

    @cached_property
    def captured(self) -> tuple[Model, tuple[str, ...]]:
        """The carrier and the notes of ``capture``."""
        return capture(*self.built, event=Event("capture"))

    @property
    def model(self) -> Model:
        """The dense model."""
        return self.captured[0]

    @cached_property
    def groups(self) -> Groups:
        """Its groups."""
        return analyse(self.model)

    @cached_property
    def half(self) -> Bools:
        """Half of the channels of each group."""
        return self._half(lambda group: True)

    @cached_property
    def exact(self) -> Bools:
        """Half of those groups over which nothing normalises; the same channels as in ``half``."""
        return self._half(lambda group: not group.renormalises)

    @cached_property
    def halved(self) -> Model:
        """The network without ``half``."""
        return apply(self.model, self.groups, self.half, Event("prune"))

    @cached_property
    def exactly_halved(self) -> Model:
        """The network without ``exact``."""
        if np.array_equal(self.half, self.exact):
            return self.halved
        return apply(self.model, self.groups, self.exact, Event("prune"))

    def _half(self, which: Callable[[Group], bool]) -> Bools:
        random, removed = np.random.default_rng(0), self.groups.keep_all()
        for group in self.groups.groups:
            chosen = random.choice(group.channels, group.size // 2, replace=False)
            removed[chosen] = which(group)
        return removed
