# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgeprune.data import Data, open_data
from edgeprune.errors import CheckFailed, DataError
from edgeprune.evaluate import Judge, class_axis, decide, paired_interval, wilson_interval

Runner = Callable[[tuple[Any, ...]], tuple[Any, ...]]
COUNT = 40


def data(tmp_path: Path, labels: bool = True, classes: int = 4) -> Data:
    """Inputs ``[n, label]`` of 40 evaluation samples."""
    index = np.arange(COUNT)
    y = index % classes
    x = np.stack([index, y], 1).astype(np.float32)
    arrays = {"x_train": x, "x_test": x}
    if labels:
        arrays |= {"y_train": y, "y_test": y}
    np.savez(tmp_path / "toy.npz", **arrays)  # type: ignore[arg-type]
    return open_data(str(tmp_path / "toy.npz"), seed=0)


def right_but_for(*wrong: int, classes: int = 4) -> Runner:
    """A model that is right on all samples but the ones given."""

    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        index, label = inputs[0].astype(int).T
        answer = np.where(np.isin(index, wrong), (label + 1) % classes, label)
        return (np.eye(classes, dtype=np.float32)[answer], np.zeros(3))

    return run


class Counting:
    """A runner that counts its samples."""

    def __init__(self, run: Runner) -> None:
        self.run = run
        self.samples = 0

    def __call__(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self.samples += len(inputs[0])
        return self.run(inputs)


def test_accuracy_counts_what_is_right(tmp_path: Path) -> None:
    judge = Judge(data(tmp_path), right_but_for(1), 7, where="a board", when="2026-01-02")
    assert judge.metric == "accuracy"
    score = judge.score(right_but_for(1, 2, 3, 4))
    assert score.value == pytest.approx(90.0)
    assert score.unit == "%"
    assert (score.origin.kind, score.origin.runs) == ("measured", COUNT)
    assert (score.origin.where, score.origin.when) == ("a board", "2026-01-02")
    assert score.origin.how.startswith("accuracy on toy.npz")
    dense = judge.dense()
    assert dense is not None
    assert dense.value == pytest.approx(97.5)


def test_the_drop_is_paired(tmp_path: Path) -> None:
    judge = Judge(data(tmp_path), right_but_for(1, 2))
    drop = judge.drop(right_but_for(2, 3, 4, 5))
    assert drop.unit == "points"
    assert drop.value == pytest.approx(100 * 2 / COUNT)
    assert drop.low is not None
    assert drop.high is not None
    # b = 3 (3, 4, 5) and c = 1 (1), by hand from Agresti and Min's formula
    middle, half = 2 / 42, 1.96 * np.sqrt(5 - 4 / 42) / 42
    assert drop.low == pytest.approx(100 * (middle - half), abs=0.01)
    assert drop.high == pytest.approx(100 * (middle + half), abs=0.01)
    assert judge.drop(right_but_for()).value == pytest.approx(-5.0)


def test_one_run_gives_both_and_the_dense_model_runs_once(tmp_path: Path) -> None:
    dense, other = Counting(right_but_for(1)), Counting(right_but_for(1, 2))
    judge = Judge(data(tmp_path), dense)
    assert dense.samples == 0
    figures = judge.figures(other)
    assert other.samples == COUNT
    assert figures == {"score": judge.score(other), "drop": judge.drop(other)}
    assert dense.samples == COUNT


def test_without_labels_it_is_agreement_never_accuracy(tmp_path: Path) -> None:
    judge = Judge(data(tmp_path, labels=False), right_but_for(1))
    assert judge.metric == "agreement with the dense model"
    assert judge.dense() is None
    figures = judge.figures(right_but_for(1, 2, 3))
    assert figures["score"].value == pytest.approx(95.0)
    assert figures["drop"].value == pytest.approx(5.0)
    assert "accuracy" not in figures["score"].origin.how
    assert judge.score(right_but_for(1)).value == 100


def shaped(*axes: int, wrong: tuple[int, ...] = (), axis: int) -> Runner:
    """Outputs of some shape whose first position is wrong for some samples."""

    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        index = inputs[0][:, 0].astype(int)
        random = np.random.default_rng(3)
        every = random.normal(size=(COUNT, *axes)).astype(np.float32)
        for sample in wrong:
            positions = np.moveaxis(every[sample], axis - 1, -1).reshape(-1, axes[axis - 1])
            positions[0] = -positions[0]
            every[sample] = np.moveaxis(
                positions.reshape(np.moveaxis(every[sample], axis - 1, -1).shape), -1, axis - 1
            )
        return (every[index],)

    return run


@pytest.mark.parametrize(
    ("axes", "axis", "positions"), [((5, 2, 3), 1, 6), ((4, 5), 2, 4), ((5,), 1, 1)]
)
@pytest.mark.parametrize("labels", [True, False])
def test_positions_count_with_their_share(
    tmp_path: Path, axes: tuple[int, ...], axis: int, positions: int, labels: bool
) -> None:
    judge = Judge(data(tmp_path, labels=labels and len(axes) > 1), shaped(*axes, axis=axis))
    assert judge.metric == "agreement with the dense model"
    score = judge.score(shaped(*axes, wrong=(0, 9), axis=axis))
    assert score.value == pytest.approx(100 * (1 - 2 / COUNT / positions))
    assert score.origin.runs == COUNT


def test_integer_outputs_are_decisions(tmp_path: Path) -> None:
    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (right_but_for(0)(inputs)[0].argmax(1),)

    judge = Judge(data(tmp_path), run)
    assert judge.metric == "accuracy"
    assert judge.score(run).value == pytest.approx(97.5)


def test_quantized_outputs_are_compared_by_the_dense_models_classes(tmp_path: Path) -> None:
    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return ((right_but_for(0)(inputs)[0] * 127).astype(np.int8),)

    assert Judge(data(tmp_path), right_but_for()).score(run).value == pytest.approx(97.5)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_output_without_classes_has_no_metric(tmp_path: Path, shape: tuple[int, ...]) -> None:
    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (np.zeros((len(inputs[0]), *shape), np.float32),)

    judge = Judge(data(tmp_path), run)
    assert judge.metric is None
    assert judge.reason is not None
    assert "no classes to compare" in judge.reason
    assert judge.figures(run) == {}
    with pytest.raises(DataError, match="no classes to compare"):
        judge.score(run)


def test_a_decision_from_nan_is_wrong(tmp_path: Path) -> None:
    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        output = right_but_for()(inputs)[0]
        output[inputs[0][:, 0] < 4, 0] = np.nan
        return (output,)

    for labels in (True, False):
        judge = Judge(data(tmp_path, labels), right_but_for())
        assert judge.score(run).value == pytest.approx(90.0)
        assert Judge(data(tmp_path, labels), run).score(run).value == pytest.approx(90.0)


def test_a_label_outside_the_output_is_named(tmp_path: Path) -> None:
    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (np.zeros((len(inputs[0]), 4), np.float32),)

    judge = Judge(data(tmp_path, classes=5), run)
    with pytest.raises(DataError, match=r"label 4 is outside the model's output, .* 4 classes"):
        judge.score(run)


def test_another_shape_is_a_failed_check(tmp_path: Path) -> None:
    def other(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (np.zeros((len(inputs[0]), 2, 3), np.float32),)

    with pytest.raises(CheckFailed, match="shape"):
        Judge(data(tmp_path), right_but_for()).score(other)


@given(right=st.integers(0, 50), wrong=st.integers(0, 50))
def test_wilsons_interval_is_scipys(right: int, wrong: int) -> None:
    count = right + wrong
    if count == 0:
        return
    wanted = binomtest(right, count).proportion_ci(method="wilson")
    low, high = wilson_interval(right / count, count)
    assert low == pytest.approx(wanted.low, abs=1e-12)
    assert high == pytest.approx(wanted.high, abs=1e-12)
    assert low <= right / count <= high


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, 0.5, -0.25]), min_size=1, max_size=60))
def test_the_paired_interval_holds_the_difference(differences: list[float]) -> None:
    found = np.array(differences)
    low, high = paired_interval(found)
    assert -1 <= low <= found.mean() <= high <= 1
    assert low < high
    assert paired_interval(-found) == pytest.approx((-high, -low))


def test_the_paired_interval_of_agresti_and_min() -> None:
    """With b = 16, c = 4 of n = 100: (12 / 102) -+ 1.96 sqrt(21 - 144 / 102) / 102."""
    found = np.array([1.0] * 16 + [-1.0] * 4 + [0.0] * 80)
    assert paired_interval(found) == pytest.approx((0.032607, 0.202687), abs=1e-5)


def test_the_class_axis() -> None:
    assert class_axis(np.zeros((2, 5))) == 1
    assert class_axis(np.zeros((2, 7, 5))) == 2
    assert class_axis(np.zeros((2, 5, 7, 7))) == 1
    assert class_axis(np.zeros((2, 5, 7, 7, 7))) == 1
    assert class_axis(np.zeros(2)) is None
    assert class_axis(np.zeros((2, 1))) is None
    assert class_axis(np.zeros((2, 9), np.int64)) == 0
    assert decide(np.array([[0.0, 2.0, 1.0]]), 1).tolist() == [1]
