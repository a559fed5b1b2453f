# SPDX-License-Identifier: Apache-2.0
"""Masks by channels: what goes whole from a network that is cut, and is zero in one that isn't."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.channels import Groups
from edgeprune.channels.atoms import Axis, Dims
from edgeprune.errors import InputError
from edgeprune.mask.mask import About, Mask

__all__ = ["channel_mask", "removed_channels"]

Bools = NDArray[np.bool_]

_OTHER = "the channel mask is for another network: "


def channel_mask(groups: Groups, removed: Bools, about: About) -> Mask:
    """The mask whose zeros are the slices that the removed channels own: what
    ``channels.masked`` sets to zero, of the parameters.

    Args:
        groups: Of the network.
        removed: One boolean for each channel of ``groups``.
        about: Where the mask comes from; its structure becomes ``channels``.

    Returns:
        Over each parameter of which a channel of ``groups`` owns a slice, whether it goes or not;
        but not over one that the network divides by (a direction of weight norm).
    """
    gone = groups.gone(removed)
    keep = {name: _kept(dims, gone) for name, dims in _owned(groups)}
    return Mask(keep, replace(about, structure="channels"))


def removed_channels(groups: Groups, mask: Mask) -> Bools:
    """The channels of which nothing lives in ``mask``, one boolean for each channel of ``groups``:
    what ``channels.apply`` takes.

    Raises:
        InputError: The mask isn't by whole channels of this network.
    """
    owned = dict(_owned(groups))
    _check(mask, {name: tuple(map(_length, dims)) for name, dims in owned.items()})
    masked, alive = groups.keep_all(), groups.keep_all()
    for name, dims in owned.items():
        kept = mask.keep[name].numpy()
        for dim, axis in enumerate(dims):
            if axis is None:
                continue
            others = tuple(d for d in range(kept.ndim) if d != dim)
            channels = groups.channel_of[axis]
            masked[channels[channels >= 0]] = True
            alive[channels[kept.any(axis=others) & (channels >= 0)]] = True
    removed = masked & ~alive
    whole = channel_mask(groups, removed, mask.about)
    for name, wanted in whole.keep.items():
        if not torch.equal(wanted, mask.keep[name]):
            count = int((wanted & ~mask.keep[name]).sum())
            raise InputError(
                f"{_OTHER}in '{name}' {count} masked weights are of channels that live elsewhere, "
                "as with other --attention or --grouped"
            )
    return removed


def _owned(groups: Groups) -> Iterator[tuple[str, Dims]]:
    """The parameters that a mask by channels covers."""
    for name, dims in groups.walk.states.items():
        here = (groups.channel_of[axis] for axis in dims if axis is not None)
        if (
            name in groups.trainable
            and name not in groups.walk.divisors
            and any((channels >= 0).any() for channels in here)
        ):
            yield name, dims


def _kept(dims: Dims, gone: Bools) -> Tensor:
    kept = torch.ones(tuple(map(_length, dims)), dtype=torch.bool)
    for dim, axis in enumerate(dims):
        if axis is not None:
            kept.index_fill_(dim, torch.from_numpy(np.flatnonzero(gone[axis])), False)
    return kept


def _length(axis: Axis | None) -> int:
    return 0 if axis is None else axis.size  # of a parameter each dimension is tracked


def _check(mask: Mask, whole: dict[str, tuple[int, ...]]) -> None:
    if mask.about.structure != "channels":
        raise InputError(
            f"the mask is {mask.about.structure}, not by channels: none can be removed"
        )
    for name in [*whole, *mask.keep]:
        if name not in whole or name not in mask.keep:
            where = "the mask" if name in mask.keep else "the model"
            raise InputError(f"{_OTHER}only {where} has channels in '{name}'")
        mine, theirs = mask.shapes[name], whole[name]
        if mine != theirs:
            raise InputError(
                f"{_OTHER}'{name}' has shape {theirs} in the model, {mine} in the mask"
            )
