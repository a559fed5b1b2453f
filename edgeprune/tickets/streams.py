# SPDX-License-Identifier: Apache-2.0
"""Random numbers that don't depend on what else is drawn."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["generator"]


def generator(seed: int, *names: object) -> torch.Generator:
    """A stream of random numbers of its own for each seed and names.

    Names say for what and then of which weight: two draws with equal names are the same numbers, so
    that a mask would depend on the weights that it chooses from.
    """
    text = ":".join(map(str, (seed, *names)))
    # Hashed, since torch's CPU generator keeps the low 32 bits of a seed only.
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
    return torch.Generator().manual_seed(number)
