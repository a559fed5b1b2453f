# SPDX-License-Identifier: Apache-2.0
"""Which weights live: one boolean tensor a parameter, and the algebra of such sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.mask.layers import Layer, look
from edgeprune.model import Model

__all__ = ["About", "Mask", "Structure"]

Structure = Literal["unstructured", "n:m", "channels"]


@dataclass(frozen=True)
class About:
    """Where a mask comes from."""

    method: str
    """``imp``, ``snip`` ..., or ``by hand``."""
    seed: int = 0
    model: str = ""
    """``Model.fingerprint()`` of the network that it was found on; empty where there was none."""
    structure: Structure = "unstructured"
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How it was found, as JSON: the density asked for, the allocation, the options."""


@dataclass(frozen=True, eq=False)
class Mask:
    """True for each weight that lives.

    What it doesn't name is dense. Never write into its tensors: make another mask.
    """

    keep: Mapping[str, Tensor]
    """By parameter, of its shape and of type ``bool``, on the CPU."""
    about: About

    def __post_init__(self) -> None:
        for name, kept in self.keep.items():
            if kept.dtype != torch.bool:
                raise InputError(f"mask of '{name}': is {kept.dtype}, not bool")

    @classmethod
    def full(cls, shapes: Mapping[str, tuple[int, ...]], about: About) -> Mask:
        """The mask that keeps everything."""
        return cls(
            {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}, about
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters that it covers."""
        return {name: tuple(kept.shape) for name, kept in self.keep.items()}

    @cached_property
    def size(self) -> int:
        """How many weights it covers."""
        return sum(kept.numel() for kept in self.keep.values())

    @cached_property
    def kept(self) -> int:
        """How many of them live."""
        return sum(int(kept.sum()) for kept in self.keep.values())

    @cached_property
    def density(self) -> float:
        """The share that lives, of all that it covers."""
        return self.kept / self.size if self.size else 1.0

    @cached_property
    def densities(self) -> dict[str, float]:
        """The share that lives, by parameter."""
        return {n: int(k.sum()) / k.numel() if k.numel() else 1.0 for n, k in self.keep.items()}

    def __and__(self, other: Mask) -> Mask:
        return self._with(other, torch.logical_and)

    def __or__(self, other: Mask) -> Mask:
        return self._with(other, torch.logical_or)

    def __xor__(self, other: Mask) -> Mask:
        return self._with(other, torch.logical_xor)

    def __sub__(self, other: Mask) -> Mask:
        return self._with(other, lambda a, b: a & ~b)

    def __invert__(self) -> Mask:
        return replace(self, keep={name: ~kept for name, kept in self.keep.items()})

    def __le__(self, other: Mask) -> bool:
        """Whether all that lives here lives there."""
        self._check_alike(other)
        return all(bool((~k | other.keep[n]).all()) for n, k in self.keep.items())

    def digest(self) -> str:
        """The sha256 (hex) of which weights live; where the mask comes from doesn't count."""
        found = sha256()
        for name in sorted(self.keep):
            kept = self.keep[name]
            found.update(f"{name} {tuple(kept.shape)}\n".encode())
            found.update(kept.contiguous().numpy().tobytes())
        return found.hexdigest()

    def same(self, other: Mask) -> bool:
        """Whether the same weights live; where the masks come from doesn't count."""
        return self.shapes == other.shapes and all(
            torch.equal(kept, other.keep[name]) for name, kept in self.keep.items()
        )

    def hamming(self, other: Mask) -> float:
        """The share of weights on which two masks differ (the normalised Hamming distance; You et
        al. 2020, Drawing Early-Bird Tickets).

        Raises:
            InputError: They cover other parameters.
        """
        self._check_alike(other)
        differing = sum(int((k ^ other.keep[n]).sum()) for n, k in self.keep.items())
        return differing / self.size if self.size else 0.0

    def overlap(self, other: Mask) -> float:
        """Weights that live in both, as a share of those that live in either (Jaccard's index).

        Raises:
            InputError: They cover other parameters.
        """
        either = (self | other).kept
        return (self & other).kept / either if either else 1.0

    def check(self, model: Model) -> None:
        """Refuse a model that this mask doesn't fit.

        Raises:
            InputError: A parameter is missing or of another shape, or the mask is for a network
                that had fewer.
        """
        state, buffers = model.program.state_dict, model.program.graph_signature.buffers
        for name, kept in self.keep.items():
            if name not in state or name in buffers:
                raise InputError(
                    f"the mask is for another network: it has no parameter '{name}'; "
                    "`edgeprune ticket apply` carries a mask over by order"
                )
            if state[name].shape != kept.shape:
                raise InputError(
                    f"the mask is for another network: '{name}' has shape "
                    f"{tuple(state[name].shape)} there, {tuple(kept.shape)} in the mask; "
                    "`edgeprune ticket stretch` fits it to another depth"
                )
        # What is carried to another network leaves its head out.
        carried = {"stretched", "transferred"} & self.about.facts.keys()
        if self.found_whole and not carried:
            self.check_covers(look(model).layers)

    @property
    def found_whole(self) -> bool:
        """Whether it was found to cover every weight that a mask may cover, all but by channels."""
        options = self.about.facts.get("options")
        whole = isinstance(options, Mapping) and not options.get("exclude", True)
        return whole and self.about.structure != "channels"

    def check_covers(self, layers: Iterable[Layer]) -> None:
        """Refuse layers that it doesn't cover.

        Raises:
            InputError: There is one.
        """
        for layer in layers:
            if layer.name not in self.keep:
                raise InputError(
                    f"the mask is for another network: it has no mask for '{layer.name}' of shape "
                    f"{layer.shape}; `edgeprune ticket stretch` fits it to another depth"
                )

    def masked(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state`` with zeros where the mask is; what it doesn't cover is shared."""
        return {
            name: torch.where(self.keep[name], value, torch.zeros_like(value))
            if name in self.keep
            else value
            for name, value in state.items()
        }

    def _with(self, other: Mask, operation: Callable[[Tensor, Tensor], Tensor]) -> Mask:
        self._check_alike(other)
        return replace(
            self, keep={name: operation(kept, other.keep[name]) for name, kept in self.keep.items()}
        )

    def _check_alike(self, other: Mask) -> None:
        mine, theirs = self.shapes, other.shapes
        if mine == theirs:
            return
        name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
        raise InputError(
            f"two masks of different networks: '{name}' has shape {mine.get(name, 'none')} in one, "
            f"{theirs.get(name, 'none')} in the other"
        )
