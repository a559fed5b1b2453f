# SPDX-License-Identifier: Apache-2.0
"""How good a model is on the evaluation data, and how much it lost against the dense one.

With labels and an output ``[N, C]`` the measure is top-1 accuracy. Else it is the agreement with
the dense model: the share of decisions that are the same. A decision is

- for outputs ``[N, C]`` and ``[N, C, H, W]`` (and more spatial axes): the largest along axis 1;
- for ``[N, T, C]``, as token classifiers and language models give it: the largest along axis 2;
- for integer outputs: the output itself.

A sample with several decisions (pixels, tokens) counts with the share of them that is right.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.data import Batch, Data
from edgeprune.errors import CheckFailed, DataError
from edgeprune.figure import Figure, measured
from edgeprune.progress import Progress, Silent

__all__ = ["Judge", "Metric", "Runner", "paired_interval", "wilson_interval"]

Arrays = tuple[NDArray[Any], ...]
Runner = Callable[[Arrays], Arrays]
Metric = Literal["accuracy", "agreement with the dense model"]

_Z = 1.959963984540054
"""The 97.5 % point of the normal distribution: 95 % intervals."""
_NO_DECISION = -1


@dataclass(frozen=True)
class _Dense:
    """What the dense model says of each evaluation sample."""

    decisions: tuple[NDArray[np.int64], ...]
    """By batch, ``[n, ...]``."""
    axis: int
    """Of the classes, as ``class_axis`` gives it."""
    labels: NDArray[np.int64] | None
    """Of all samples, where the measure is accuracy."""
    reason: str | None
    """Why there is no measure; ``None`` where there is one."""


class Judge:
    """Holds models against the evaluation data and the dense model.

    The dense model is run once, when it is first needed.

    Args:
        data: Its evaluation part is used.
        dense: Runs the dense model on a batch of numpy arrays.
        batch_size: Of the evaluation batches.
        where: The machine, for the figures' origin.
        when: ISO date, for the figures' origin; ``None``: the day of the call (UTC).
        progress: Shows a bar over the batches.
    """

    def __init__(
        self,
        data: Data,
        dense: Runner,
        batch_size: int = 64,
        *,
        where: str = "this machine",
        when: str | None = None,
        progress: Progress = Silent(),  # noqa: B008  (it has no state)
    ) -> None:
        self._data = data
        self._run_dense = dense
        self._size = batch_size
        self._where = where
        self._when = when
        self._progress = progress

    @property
    def metric(self) -> Metric | None:
        """What ``score`` counts; ``None`` where ``reason`` says why nothing can be.

        Raises:
            DataError: A label is outside the classes of the model's output.
        """
        if self._dense.reason is not None:
            return None
        return "agreement with the dense model" if self._dense.labels is None else "accuracy"

    @property
    def reason(self) -> str | None:
        """Why there is no measure for this model; ``None`` where there is one."""
        return self._dense.reason

    def figures(self, run: Runner) -> dict[str, Figure]:
        """``score`` and ``drop`` from one run over the data; empty where ``reason`` says why.

        Raises:
            CheckFailed: The output has another shape than the dense model's.
            DataError: A label is outside the classes of the model's output.
        """
        if self._dense.reason is not None:
            return {}
        right = self._right(run)
        return {"score": self._score(right), "drop": self._drop(right)}

    def score(self, run: Runner) -> Figure:
        """Percent of the evaluation samples that a model gets right, or decides as the dense one.

        The interval is Wilson's (``wilson_interval``) with one observation a sample, however many
        decisions a sample has: those of one sample aren't independent. A decision from a value that
        isn't finite counts as wrong.

        Raises:
            CheckFailed: The output has another shape than the dense model's.
            DataError: A label is outside the classes of the model's output, or there is no metric.
        """
        return self._score(self._right(run))

    def drop(self, run: Runner) -> Figure:
        """Points that a model lost against the dense one, with a paired interval.

        Both see the same samples, so the interval comes from the samples on which they differ
        (``paired_interval``) and is narrower than that of two separate scores. Negative: it is
        better than the dense one.

        Raises:
            CheckFailed: The output has another shape than the dense model's.
            DataError: A label is outside the classes of the model's output, or there is no metric.
        """
        return self._drop(self._right(run))

    def dense(self) -> Figure | None:
        """The dense model's own accuracy; ``None`` where the measure is agreement with it."""
        return None if self._dense.labels is None else self._score(self._dense_right)

    def _score(self, right: NDArray[np.float64]) -> Figure:
        count = len(right)
        share = float(right.mean())
        low, high = wilson_interval(share, count)
        how = f"{self.metric} on {self._data.name}; 95 % interval of Wilson (1927)"
        return self._figure(share, (low, high), "%", how, count)

    def _drop(self, right: NDArray[np.float64]) -> Figure:
        lost = self._dense_right - right
        how = (
            f"dense minus this model, {self.metric} on {self._data.name}; "
            "paired 95 % interval of Agresti and Min (2005)"
        )
        return self._figure(float(lost.mean()), paired_interval(lost), "points", how, len(lost))

    def _figure(
        self, share: float, interval: tuple[float, float], unit: str, how: str, count: int
    ) -> Figure:
        return measured(
            100 * share,
            unit,
            how,
            where=self._where,
            when=self._when or datetime.now(UTC).date().isoformat(),
            runs=count,
            low=100 * interval[0],
            high=100 * interval[1],
        )

    @cached_property
    def _dense(self) -> _Dense:
        decisions: list[NDArray[np.int64]] = []
        axis: int | None = None
        labels: list[NDArray[np.int64]] = []
        reason: str | None = None
        accuracy = self._data.labelled
        for batch, output in self._outputs(self._run_dense, "evaluating the dense model"):
            axis = class_axis(output) if axis is None else axis
            if axis is None:
                reason = (
                    f"the model's first output has shape {list(output.shape)} and type "
                    f"{output.dtype}: no classes to compare"
                )
                break
            found = decide(output, axis)
            accuracy = accuracy and found.ndim == 1
            if accuracy:
                self._check_labels(output)
            decisions.append(found)
            if batch.labels is not None:
                labels.append(batch.labels.numpy())
        known = np.concatenate(labels) if accuracy and reason is None else None
        return _Dense(tuple(decisions), axis or 0, known, reason)

    @cached_property
    def _dense_right(self) -> NDArray[np.float64]:
        decisions = self._dense.decisions
        if self._dense.labels is None:
            return np.concatenate([_share(part != _NO_DECISION) for part in decisions])
        return _share(np.concatenate(decisions) == self._dense.labels)

    def _check_labels(self, output: NDArray[Any]) -> None:
        largest = self._data.largest_label
        if output.ndim == 2 and largest is not None and largest >= output.shape[1]:
            classes = self._data.classes
            name = f" ('{classes[largest]}')" if classes and largest < len(classes) else ""
            raise DataError(
                f"data {self._data.name}: label {largest}{name} is outside the model's output, "
                f"which has {output.shape[1]} classes (0 to {output.shape[1] - 1})"
            )

    def _outputs(self, run: Runner, title: str) -> Iterator[tuple[Batch, NDArray[Any]]]:
        steps = math.ceil(self._data.sizes["evaluation"] / self._size)
        with self._progress.bar(title, steps) as bar:
            for batch in self._data.evaluation(self._size):
                yield batch, run(tuple(part.numpy() for part in batch.inputs))[0]
                bar.advance()

    def _right(self, run: Runner) -> NDArray[np.float64]:
        """Share of each sample's decisions that are right, ``[N]``."""
        if self._dense.reason is not None:
            raise DataError(f"data {self._data.name}: {self._dense.reason}")
        right: list[NDArray[np.float64]] = []
        start = 0
        outputs = self._outputs(run, "evaluating")
        for wanted, (_, output) in zip(self._dense.decisions, outputs, strict=True):
            found = decide(output, self._dense.axis) if output.ndim > self._dense.axis else output
            if found.shape != wanted.shape:
                raise CheckFailed(
                    f"the model's first output has shape {list(output.shape)}; its decisions can't "
                    f"be held against the dense model's, of shape {list(wanted.shape)}"
                )
            if self._dense.labels is not None:
                wanted = self._dense.labels[start : start + len(found)]
            start += len(found)
            right.append(_share((found == wanted) & (found != _NO_DECISION)))
        return np.concatenate(right)


def class_axis(output: NDArray[Any]) -> int | None:
    """The axis of an output's classes (see the module); 0 where the output is decisions itself.

    ``None`` where there are no classes: no axis beside the samples', or only one class.
    """
    if output.dtype.kind in "iu":
        return 0
    axis = 2 if output.ndim == 3 else 1
    return axis if output.ndim > axis and output.shape[axis] > 1 else None


def decide(output: NDArray[Any], axis: int) -> NDArray[np.int64]:
    """Class decisions along ``axis`` of ``class_axis``: the output's shape without that axis.

    A decision among values that aren't all finite is -1.
    """
    if axis == 0:
        return output.astype(np.int64)
    found = np.asarray(output.argmax(axis), np.int64)
    found[~np.isfinite(output).all(axis)] = _NO_DECISION
    return found


def _share(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each sample's decisions, ``[N, ...]`` to ``[N]``."""
    return np.asarray(right.reshape(len(right), -1).mean(1), np.float64)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share seen in ``count`` samples: Wilson's score interval.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), from E. B. Wilson, "Probable inference, the
    law of succession, and statistical inference", Journal of the American Statistical Association
    22 (1927).
    """
    z2 = _Z * _Z
    middle = share + z2 / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    scale = 1 + z2 / count
    # Rounding may pass the ends, where the formula gives exactly 0, 1 or the share itself.
    low = max(0.0, min(share, (middle - half) / scale))
    return low, min(1.0, max(share, (middle + half) / scale))


def paired_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, each in -1..1.

    With b samples right only for the first model and c only for the second, of n, this is the
    adjusted Wald interval of A. Agresti and Y. Min, "Simple improved confidence intervals for
    comparing matched proportions", Statistics in Medicine 24 (2005): half a sample is added to each
    of the four cells, giving (b-c)/(n+2) ± z √((b+c+1) - (b-c)²/(n+2)) / (n+2). For shares of
    decisions b-c and b+c are the sums of the differences and of their squares.
    """
    count = len(differences) + 2
    difference = float(differences.sum())
    differing = float((differences * differences).sum()) + 1
    middle = difference / count
    half = _Z * math.sqrt(differing - difference * difference / count) / count
    return max(-1.0, middle - half), min(1.0, middle + half)
