# SPDX-License-Identifier: Apache-2.0
"""What a layer reads of a channel: APoZ (Hu et al. 2016, Network Trimming) and Wanda (Sun et al.
2024, A Simple and Effective Pruning Approach for Large Language Models)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.gradients import runnable, watch
from edgeprune.prune.criteria.inputs import Reader, find_readers, look_at
from edgeprune.prune.layers import Layer

__all__ = ["apoz", "wanda"]


def apoz(subject: Subject) -> Scores:
    """The share of positions at which a channel is positive where a layer reads it (1 - APoZ, eq.
    1), mean over all that read it. Channels that no layer reads, and branches, get NaN.

    Raises:
        DataError: An index in the data is outside the model's table.
    """
    positive = _read(subject, "apoz", lambda x: (x > 0).double())
    total, count = np.zeros((2, subject.groups.channels + len(subject.branches)))
    for reader, share in positive:
        _add(total, reader, share)
        _add(count, reader, torch.ones_like(share))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def wanda(subject: Subject) -> Scores:
    """The sum of |weight| times the norm of its input (eq. 1; the root of the mean square) over the
    layers that read a channel. Channels that no layer reads, and branches, get NaN.

    Raises:
        DataError: An index in the data is outside the model's table.
    """
    total, count = np.zeros((2, subject.groups.channels + len(subject.branches)))
    for reader, square in _read(subject, "wanda", lambda x: x.double().square()):
        _add(total, reader, square.sqrt() * reader.weight.abs().sum(2))
        _add(count, reader, torch.ones_like(square))
    return np.where(count > 0, total, np.nan)


def _read(
    subject: Subject, name: str, value: Callable[[Tensor], Tensor]
) -> list[tuple[Reader, Tensor]]:
    """For each layer the mean over positions of ``value`` of its inputs, ``[G, K]``."""
    module = runnable(subject).requires_grad_(False)
    readers = find_readers(subject, module)
    sums = [torch.zeros(reader.weight.shape[:2], dtype=torch.float64) for reader in readers]
    rows = [0] * len(readers)

    def take(number: int) -> Callable[[Layer, Tensor, Tensor], None]:
        def seen(_: Layer, x: Tensor, __: Tensor) -> None:
            sums[number] += value(x).sum(1)
            rows[number] += x.shape[1]

        return seen

    looks = {
        node: look
        for number, reader in enumerate(readers)
        for node, look in look_at(subject, reader, take(number)).items()
    }
    for _ in watch(subject, module, name, looks):
        pass
    return [(r, s / max(1, n)) for r, s, n in zip(readers, sums, rows, strict=True)]


def _add(total: Scores, reader: Reader, values: Tensor) -> None:
    labels = reader.labels.reshape(-1)
    np.add.at(total, labels[labels >= 0], values.reshape(-1).numpy()[labels >= 0])
