# SPDX-License-Identifier: Apache-2.0
"""What of a mask is alive in name only: layers without a weight, weights on no path.

Tanaka et al. 2020 (SynFlow), section 3, call it layer collapse when a layer loses all its weights
before the density asks for it. Vysogorets and Kempe 2021 (Connectivity Matters: Neural Network
Pruning Through the Lens of Effective Sparsity) count a weight as effective only if it lies on a
path of living weights from an input to an output.
"""

from __future__ import annotations

from dataclasses import replace

from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.tickets.at_init.positive import positive_flows

__all__ = ["collapse_notes", "collapsed", "effective", "effective_density"]

_SHOWN = 3


def collapsed(mask: Mask) -> tuple[str, ...]:
    """The weights of which nothing lives, by name."""
    return tuple(name for name, kept in mask.keep.items() if kept.numel() and not kept.any())


def effective(model: Model, mask: Mask) -> Mask:
    """The living weights that lie on a path of living weights from an input to an output.

    A bias or another constant is no input, so a channel that only has a bias is dead. What reaches
    a channel through the statistics of a norm alone doesn't count, attention masks are taken to
    let everything pass, and a tap of a kernel that only ever sees padding is on no path.

    Args:
        model: Only its graph counts, not its weights.
        mask: Of this model.

    Returns:
        A part of ``mask``.

    Raises:
        InputError: The mask is for another network.
    """
    mask.check(model)
    flows = positive_flows(model, mask)
    keep = {name: kept & (flows[name] != 0) for name, kept in mask.keep.items()}
    return replace(mask, keep=keep)


def effective_density(model: Model, mask: Mask) -> float:
    """The share of all weights that the mask covers which live and lie on a living path.

    Raises:
        InputError: The mask is for another network.
    """
    return effective(model, mask).density


def collapse_notes(model: Model, mask: Mask, alive: Mask | None = None) -> tuple[str, ...]:
    """What a user should know: layers that are gone, no path at all, weights that do nothing.

    Args:
        model: That the mask is for.
        mask: Any.
        alive: ``effective(model, mask)``, if that is known already.

    Raises:
        InputError: The mask is for another network.
    """
    notes: list[str] = []
    gone = collapsed(mask)
    if gone:
        more = f" and {len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
        notes.append(
            f"layer collapse: no weight lives in {', '.join(gone[:_SHOWN])}{more} "
            f"({len(gone)} of {len(mask.keep)} layers)"
        )
    alive = alive or effective(model, mask)
    if alive.kept == 0:
        notes.append("no living path leads from the input to the output")
    elif alive.kept < mask.kept:
        dead = mask.kept - alive.kept
        notes.append(
            f"{dead} of {mask.kept} living weights lie on no living path: effective density "
            f"{alive.density:.4g}, not {mask.density:.4g}"
        )
    return tuple(notes)
