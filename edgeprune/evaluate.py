# SPDX-License-Identifier: Apache-2.0
"""How good a model is on the evaluation data, and how much it lost against the dense one.

What each output is (``edgeprune.tasks``) says by what it is judged. The measure is

- accuracy, where labels are about an output;
- agreement with the dense model, where all outputs are evidently classes;
- fidelity to the dense model elsewhere: the share of the variance of its outputs that is kept. Of
  several outputs the worst counts.

The drop is the most that any output lost, so that outputs without labels count beside accuracy. A
sample with several decisions (pixels, tokens) counts with the share of them that is right.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.data import Batch, Data
from edgeprune.errors import CheckFailed
from edgeprune.figure import Figure, measured
from edgeprune.progress import Progress, Silent
from edgeprune.tasks import AGREEMENT, FIDELITY, Arrays, Ending, Metric, Runner, Task, read

__all__ = ["Judge", "Runner", "mean_interval", "paired_interval", "wilson_interval"]

_Z = 1.959963984540054
"""The 97.5 % point of the normal distribution: 95 % intervals."""
_CACHE = 256 << 20
"""Bytes of dense outputs that are kept; where there are more the dense model is run each time."""

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class _Dense:
    """What the dense model says of the evaluation samples."""

    right: tuple[Shares, ...]
    """By output, a value a sample: of its own labels, or of itself."""
    outputs: tuple[Arrays, ...] | None
    """By batch; ``None`` where they are too many to keep."""


class Judge:
    """Holds models against the evaluation data and the dense model.

    The dense model is run once, when it is first needed.

    Args:
        data: Its evaluation part is used, and training samples to tell what the outputs are.
        dense: Runs the dense model on a batch of numpy arrays.
        batch_size: Of the evaluation batches.
        endings: How the dense model's outputs end (``tasks.endings``).
        only_labels: As for ``tasks.read``.
        where: The machine, for the figures' origin.
        when: ISO date, for the figures' origin; ``None``: the day of the call (UTC).
        progress: Shows a bar over the batches.
    """

    def __init__(  # noqa: PLR0913 - the surroundings of an evaluation
        self,
        data: Data,
        dense: Runner,
        batch_size: int = 64,
        *,
        endings: Sequence[Ending] = (),
        only_labels: bool = False,
        where: str = "this machine",
        when: str | None = None,
        progress: Progress = Silent(),  # noqa: B008  (it has no state)
    ) -> None:
        self._data = data
        self._run_dense = dense
        self._size = batch_size
        self._endings = endings
        self._only_labels = only_labels
        self._where = where
        self._when = when
        self._progress = progress

    @cached_property
    def task(self) -> Task:
        """What the dense model's outputs are.

        Raises:
            DataError: A label is outside the classes of the model's output.
        """
        return read(self._data, self._run_dense, self._endings, only_labels=self._only_labels)

    @cached_property
    def metric(self) -> str:
        """What ``score`` counts.

        Raises:
            DataError: A label is outside the classes of the model's output.
        """
        return self._metric.name

    @property
    def _metric(self) -> Metric:
        kinds = self.task.outputs
        if self.task.labelled:
            return kinds[self.task.labelled[0]].metric
        return AGREEMENT if all(kind.metric == AGREEMENT for kind in kinds) else FIDELITY

    def figures(self, run: Runner) -> dict[str, Figure]:
        """``score`` and ``drop`` from one run over the data.

        Raises:
            CheckFailed: An output has another shape than the dense model's.
            DataError: A label is outside the classes of the model's output.
        """
        right = self._right(run)
        return {"score": self._score(right), "drop": self._drop(right)}

    def score(self, run: Runner) -> Figure:
        """How good a model is, in percent: with labels on the first output that they are about,
        else on the worst of all outputs.

        The interval is Wilson's (``wilson_interval``) where decisions are counted, with one
        observation a sample, however many decisions a sample has: those of one sample aren't
        independent. For fidelity it is that of a mean. What isn't finite is wrong.

        Raises:
            CheckFailed: An output has another shape than the dense model's.
            DataError: A label is outside the classes of the model's output.
        """
        return self._score(self._right(run))

    def drop(self, run: Runner) -> Figure:
        """Points that a model lost against the dense one, on the output that lost most, with a
        paired interval.

        Both see the same samples, so the interval comes from the samples on which they differ
        (``paired_interval``) and is narrower than that of two separate scores. Negative: it is
        better than the dense one.

        Raises:
            CheckFailed: An output has another shape than the dense model's.
            DataError: A label is outside the classes of the model's output.
        """
        return self._drop(self._right(run))

    def dense(self) -> Figure | None:
        """The dense model's own accuracy; ``None`` where the measure is a comparison with it."""
        right = self._dense.right
        return self._score(right) if self.task.labelled else None

    def _score(self, right: Sequence[Shares]) -> Figure:
        labelled = self.task.labelled
        place = labelled[0] if labelled else _worst([1 - part for part in right])
        share, count = float(right[place].mean()), len(right[place])
        name = f"{self.metric} on {self._data.name}"
        if len(right) > 1:
            name += f", of {'output ' + str(place) if labelled else 'the worst output'}"
        if self.task.outputs[place].metric.decisions:
            interval, whose = wilson_interval(share, count), "of Wilson (1927)"
        else:
            interval, whose = mean_interval(right[place]), "of the mean"
            name += f": {self.task.outputs[place].metric.how}"
        return self._figure(share, interval, "%", f"{name}; 95 % interval {whose}", count)

    def _drop(self, right: Sequence[Shares]) -> Figure:
        losses = [dense - mine for dense, mine in zip(self._dense.right, right, strict=True)]
        place = _worst(losses)
        lost, metric = losses[place], self.task.outputs[place].metric
        name = f"dense minus this model, {metric.name} on {self._data.name}"
        if len(losses) > 1:
            name += f", of output {place}, which lost most"
        if metric.decisions:
            interval, whose = (
                paired_interval(lost),
                "paired 95 % interval of Agresti and Min (2005)",
            )
        else:
            interval, whose = mean_interval(lost), "95 % interval of the mean"
        return self._figure(float(lost.mean()), interval, "points", f"{name}; {whose}", len(lost))

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
        kinds, batches = self.task.outputs, []
        right: list[list[Shares]] = [[] for _ in kinds]
        kept = 0
        for batch, outputs in self._outputs(self._run_dense, "evaluating the dense model"):
            labels = _labels(batch)
            for place, kind in enumerate(kinds):
                output = outputs[place]
                own = kind.score(output, output, labels)
                right[place].append(own if kind.labelled else np.ones_like(own))
            kept += sum(output.nbytes for output in outputs)
            if kept <= _CACHE:
                batches.append(outputs)
        return _Dense(_joined(right), tuple(batches) if kept <= _CACHE else None)

    def _outputs(self, run: Runner, title: str) -> Iterator[tuple[Batch, Arrays]]:
        steps = math.ceil(self._data.sizes["evaluation"] / self._size)
        with self._progress.bar(title, steps) as bar:
            for batch in self._data.evaluation(self._size):
                yield batch, run(tuple(part.numpy() for part in batch.inputs))
                bar.advance()

    def _right(self, run: Runner) -> tuple[Shares, ...]:
        """By output, a value a sample."""
        kinds, known = self.task.outputs, self._dense.outputs
        right: list[list[Shares]] = [[] for _ in kinds]
        for number, (batch, outputs) in enumerate(self._outputs(run, "evaluating")):
            if known is None:
                wanted = self._run_dense(tuple(part.numpy() for part in batch.inputs))
            else:
                wanted = known[number]
            _check_shapes(outputs, wanted)
            labels = _labels(batch)
            for place, kind in enumerate(kinds):
                right[place].append(kind.score(outputs[place], wanted[place], labels))
        return _joined(right)


def _labels(batch: Batch) -> NDArray[Any] | None:
    return None if batch.labels is None else batch.labels.numpy()


def _joined(parts: Sequence[Sequence[Shares]]) -> tuple[Shares, ...]:
    return tuple(np.concatenate(part) for part in parts)


def _worst(losses: Sequence[Shares]) -> int:
    """The output that lost most."""
    return int(np.argmax([loss.mean() for loss in losses]))


def _check_shapes(outputs: Arrays, wanted: Arrays) -> None:
    shapes = [[list(output.shape) for output in each] for each in (outputs, wanted)]
    if shapes[0] != shapes[1]:
        raise CheckFailed(
            f"the model's outputs have shapes {shapes[0]}; they can't be held against the dense "
            f"model's, of shapes {shapes[1]}"
        )


def mean_interval(values: Shares) -> tuple[float, float]:
    """95 % interval of the mean of a value a sample: the mean ± z standard errors."""
    mean, count = float(values.mean()), len(values)
    half = _Z * float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    return mean - half, mean + half


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
