# SPDX-License-Identifier: Apache-2.0
"""The carrier: what every stage takes and gives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.export import ExportedProgram

from edgeprune.model.digest import digest
from edgeprune.model.program import unlift
from edgeprune.recipe import Numerics

__all__ = ["Event", "Input", "Model", "Output"]


@dataclass(frozen=True)
class Input:
    """An input of the model."""

    name: str
    shape: tuple[int, ...]
    """With the example batch size at ``batch_axis``."""
    dtype: torch.dtype
    dynamic_batch: bool
    """Whether any batch size is accepted at ``batch_axis``."""
    batch_axis: int | None = 0
    """The axis of the samples; ``None`` where one value serves all samples."""

    @property
    def sample(self) -> tuple[int, ...]:
        """The shape of one sample, without the batch axis."""
        return tuple(size for axis, size in enumerate(self.shape) if axis != self.batch_axis)

    def sized(self, batch: int) -> tuple[int, ...]:
        """The shape with ``batch`` samples, as far as the input has a batch of any size."""
        if not self.dynamic_batch:
            return self.shape
        return tuple(batch if axis == self.batch_axis else n for axis, n in enumerate(self.shape))


@dataclass(frozen=True)
class Output:
    """An output of the model."""

    name: str
    """Its key or field in what the network returned, else ``output``, ``output_0`` and so on."""
    batch_axis: int | None = 0
    """The axis of the samples; ``None`` where there is none."""


@dataclass(frozen=True)
class Event:
    """One step of a model's history: the stage, its options, and facts that are the same each time
    (no clock, no path), so that equal runs save equal files.

    Options and facts are kept as JSON knows them (a tuple becomes a list), so that a history
    read from a file equals the one that was written.

    Raises:
        TypeError: Something that JSON can't say.
        ValueError: A number that isn't finite.
    """

    stage: str
    options: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("options", "facts"):
            plain = json.loads(json.dumps(getattr(self, name), allow_nan=False))
            object.__setattr__(self, name, plain)


@dataclass(frozen=True)
class Model:
    """A captured network: a ``torch.export`` program in training IR (eval mode), and its history.

    ``numerics`` says how its weights and activations are to be stored: ``int8`` models hold
    quantize/dequantize nodes, the other reduced ones hold weights already rounded to their grid.
    """

    program: ExportedProgram
    """Takes its inputs one after the other, gives a tensor or a tuple of tensors. Never edit it or
    its ``state_dict``: edit ``module()`` and capture that again."""
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    history: tuple[Event, ...] = ()
    numerics: Numerics = "fp32"

    @property
    def dynamic_batch(self) -> bool:
        """Whether any batch size is accepted; then all inputs that have a batch share it."""
        return any(i.dynamic_batch for i in self.inputs)

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the model takes; ``None`` where it takes any."""
        if self.dynamic_batch:
            return None
        sizes = (i.shape[i.batch_axis] for i in self.inputs if i.batch_axis is not None)
        return next(sizes, 1)

    @property
    def batch_axes(self) -> tuple[int | None, ...]:
        """The axis of the samples of each input."""
        return tuple(i.batch_axis for i in self.inputs)

    def module(self) -> torch.fx.GraphModule:
        """A fresh, runnable copy in eval mode, without checks of its inputs' shapes.

        Parameters and buffers are copies under their own names (tied ones stay tied), and every
        floating-point parameter requires a gradient. ``train()`` and ``eval()`` raise
        ``NotImplementedError``: use ``set_training``, since the mode is written in the graph.
        """
        return unlift(self.program)

    def fingerprint(self) -> str:
        """The sha256 (hex) of graph, inputs, outputs, parameters, buffers and numerics.

        Equal for equal models, in every process and after ``save`` and ``read``. Names of
        intermediate values and the history don't count.
        """
        inputs = [
            (i.name, i.shape, str(i.dtype), i.dynamic_batch, i.batch_axis) for i in self.inputs
        ]
        outputs = [(o.name, o.batch_axis) for o in self.outputs]
        return digest(self.program, f"{self.numerics}\n{inputs!r}\n{outputs!r}")

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
