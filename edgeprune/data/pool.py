# SPDX-License-Identifier: Apache-2.0
"""What a source gives: pools of samples that are chosen from first and read afterwards."""

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.data.spec import Layout, Preprocessing
from edgeprune.errors import DataError
from edgeprune.progress import Bar, Progress

__all__ = ["Found", "Pool", "Rows", "SampleError", "Samples", "watched"]

Rows = NDArray[np.int64]
T = TypeVar("T")
_PATIENCE = 2.0
"""Seconds of loading after which a progress bar is worth its line."""


class SampleError(DataError):
    """One sample that can't be read; left out where the spec says ``on_error = "skip"``."""


class Samples(Protocol):
    """Samples that are ready to be taken, numbered from 0."""

    @property
    def labels(self) -> Rows | None:
        """The class of each sample, ``[N]``."""

    def __len__(self) -> int:
        """Count of samples."""

    def take(self, rows: Rows) -> tuple[tuple[Tensor, ...], Rows]:
        """The stored inputs of ``rows`` along their own axes, and the rows that they are of.

        The rows given back are fewer only where a sample proves corrupt and the spec skips those.

        Raises:
            DataError: A sample can't be read.
        """

    def notes(self) -> tuple[str, ...]:
        """What was left out so far, in words."""


class Pool(Protocol):
    """All samples of a split, before any is read."""

    @property
    def labels(self) -> Rows | None:
        """The class of each sample, ``[N]``."""

    @property
    def sample_bytes(self) -> int:
        """Memory that one sample takes once read."""

    def __len__(self) -> int:
        """Count of samples."""

    def load(self, rows: Rows, *, keep: bool, progress: Progress) -> Samples:
        """Read ``rows``: all now into memory (``keep``), or each when it is taken.

        Raises:
            DataError: A sample can't be read and the spec doesn't skip those.
        """


@dataclass(frozen=True)
class Found:
    """A source that was opened: its splits, and what is known of their content."""

    train: Pool
    evaluation: Pool | None
    """``None``: a share of ``train`` is to be split off."""
    classes: tuple[str, ...] | None
    shape: tuple[int, ...]
    """Of one stored sample of the first input."""
    eight_bit: bool
    """Whether the first input is images of 8 bits a value."""
    layout: Layout | None
    """Axes of the first stored input, with the samples' axis, where it is images."""
    preprocessing: Preprocessing | None
    facts: tuple[str, ...]
    """What identifies the content: names and sizes, or hashes of arrays. No absolute path."""
    notes: tuple[str, ...] = ()
    axes: tuple[int | None, ...] | None = None
    """The axis of the samples of each input as it is taken; ``None``: the first of each."""


def watched(items: Collection[T], title: str, progress: Progress) -> Iterator[T]:
    """Go through ``items``; once that has taken two seconds a progress bar shows how far it is."""
    start = time.monotonic()
    bar: Bar | None = None
    with ExitStack() as stack:
        for done, item in enumerate(items):
            if bar is not None:
                bar.advance()
            elif time.monotonic() - start > _PATIENCE:
                bar = stack.enter_context(progress.bar(title, len(items)))
                bar.advance(done)
            yield item
        if bar is not None:
            bar.advance()
