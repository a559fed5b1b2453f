# SPDX-License-Identifier: Apache-2.0
"""Dividing samples into parts: deterministic, and evenly over the classes."""

import numpy as np

from edgeprune.data.pool import Rows

__all__ = ["divide", "generator", "pick"]


def generator(*numbers: int) -> np.random.Generator:
    """Random numbers that depend on ``numbers`` (0 or more each) and nothing else."""
    return np.random.default_rng(np.random.SeedSequence(list(numbers)))


def divide(
    rows: Rows, labels: Rows | None, count: int, random: np.random.Generator
) -> tuple[Rows, Rows]:
    """Split ``rows`` into ``count`` chosen ones and the rest, both in their old order.

    Of each class the share that is chosen differs from ``count / len(rows)`` by less than one
    sample: the rows, shuffled and then sorted by class, are chosen at even distances.

    Args:
        rows: Numbers to divide, ``[N]``.
        labels: The class of each sample that ``rows`` may name; ``None``: one class.
        count: At most ``N``.
        random: Drawn from once.
    """
    order = random.permutation(len(rows))
    if labels is not None:
        order = order[np.argsort(labels[rows][order], kind="stable")]
    place = np.arange(len(rows))
    even = (place + 1) * count // max(1, len(rows)) > place * count // max(1, len(rows))
    chosen = np.zeros(len(rows), np.bool_)
    chosen[order[even]] = True
    return rows[chosen], rows[~chosen]


def pick(rows: Rows, labels: Rows | None, count: int, random: np.random.Generator) -> Rows:
    """At most ``count`` of ``rows``, evenly over the classes, in random order."""
    chosen, _ = divide(rows, labels, min(count, len(rows)), random)
    return random.permutation(chosen)
