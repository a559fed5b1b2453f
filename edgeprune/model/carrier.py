# SPDX-License-Identifier: Apache-2.0
"""The carrier: what every stage takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.export import ExportedProgram

from edgeprune.recipe import Numerics

__all__ = ["Event", "Input", "Model"]


@dataclass(frozen=True)
class Input:
    """An input of the model. ``shape[0]`` is the batch where ``dynamic_batch`` says so."""

    name: str
    shape: tuple[int, ...]
    """With the example batch size at index 0."""
    dtype: torch.dtype
    dynamic_batch: bool


@dataclass(frozen=True)
class Event:
    """One step of a model's history: the stage, its options, and facts that are the same each time
    (no clock, no path), so that equal runs save equal files."""

    stage: str
    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A captured network: a ``torch.export`` program in training IR (eval mode), and its history.

    ``numerics`` says how its weights and activations are to be stored: ``int8`` models hold
    quantize/dequantize nodes, the other reduced ones hold weights already rounded to their grid.
    """

    program: ExportedProgram
    inputs: tuple[Input, ...]
    history: tuple[Event, ...] = ()
    numerics: Numerics = "fp32"

    @property
    def dynamic_batch(self) -> bool:
        """Whether any batch size is accepted."""
        return all(i.dynamic_batch for i in self.inputs)

    def module(self) -> torch.fx.GraphModule:
        """A fresh, runnable copy in eval mode; its parameters are copies too."""
        raise NotImplementedError

    def evolve(
        self, program: ExportedProgram, event: Event, numerics: Numerics | None = None
    ) -> Model:
        """The next model of this history."""
        return replace(
            self,
            program=program,
            history=(*self.history, event),
            numerics=numerics or self.numerics,
        )
