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
from edgeprune.evaluate import Judge, mean_interval, paired_interval, wilson_interval
from edgeprune.tasks import Ending

Runner = Callable[[tuple[Any, ...]], tuple[Any, ...]]
COUNT = 40
SOFTMAX = (Ending("softmax", 1, (4,)),)


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
        return (np.eye(classes, dtype=np.float32)[answer],)

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
    assert judge.metric == "accuracy"
    looked = dense.samples  # at training samples, to tell what the output is
    figures = judge.figures(other)
    assert other.samples == COUNT
    assert figures == {"score": judge.score(other), "drop": judge.drop(other)}
    assert dense.samples == looked + COUNT


def test_without_labels_it_is_agreement_never_accuracy(tmp_path: Path) -> None:
    judge = Judge(data(tmp_path, labels=False), right_but_for(1), endings=SOFTMAX)
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
def test_positions_count_with_their_share(
    tmp_path: Path, axes: tuple[int, ...], axis: int, positions: int
) -> None:
    ends = (Ending("softmax", axis, (5,)),)
    judge = Judge(data(tmp_path, labels=False), shaped(*axes, axis=axis), endings=ends)
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


def values(*noise: float, broken: int | None = None) -> Runner:
    """Outputs that aren't classes, ``noise`` of their deviation away from what they should be."""

    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        index = inputs[0][:, 0].astype(int)
        found = []
        for place, off in enumerate(noise):
            random = np.random.default_rng(place)
            exact, error = random.normal(size=(2, COUNT, 256)).astype(np.float32)
            output = 100 * place + 10 * (exact + off * error)
            if place == broken:
                output[0, 3] = np.nan
            found.append(output[index])
        return tuple(found)

    return run


@pytest.mark.parametrize("labels", [True, False])
def test_an_embedding_is_judged_by_what_is_kept_of_its_variance(
    tmp_path: Path, labels: bool
) -> None:
    judge = Judge(data(tmp_path, labels=labels), values(0))
    assert judge.metric == "fidelity to the dense model"
    assert judge.dense() is None
    figures = judge.figures(values(0.1))
    assert figures["score"].value == pytest.approx(99.0, abs=0.2)
    assert figures["drop"].value == pytest.approx(100 - figures["score"].value)
    assert figures["score"].unit == "%"
    assert "accuracy" not in figures["score"].origin.how
    assert "agreement" not in figures["score"].origin.how
    for figure in figures.values():
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < figure.value < figure.high
    assert judge.score(values(0)).value == 100
    answers_the_mean = judge.score(lambda inputs: (np.zeros((len(inputs[0]), 256), np.float32),))
    assert answers_the_mean.value == pytest.approx(0, abs=2)


def test_the_worst_of_several_outputs_counts(tmp_path: Path) -> None:
    judge = Judge(data(tmp_path, labels=False), values(0, 0, 0))
    figures = judge.figures(values(0, 0.5, 0.1))
    assert figures["score"].value == pytest.approx(75, abs=3)
    assert figures["drop"].value == pytest.approx(25, abs=3)
    assert "of output 1, which lost most" in figures["drop"].origin.how


def test_outputs_without_labels_count_beside_accuracy(tmp_path: Path) -> None:
    def both(first: Runner, second: Runner) -> Runner:
        return lambda inputs: (*first(inputs), *second(inputs))

    judge = Judge(data(tmp_path), both(right_but_for(), values(0)), endings=(*SOFTMAX, Ending()))
    assert judge.metric == "accuracy"
    figures = judge.figures(both(right_but_for(1), values(0.5)))
    assert figures["score"].value == pytest.approx(97.5)
    assert figures["drop"].value == pytest.approx(25, abs=3)
    assert "fidelity" in figures["drop"].origin.how


def test_nan_equals_nothing(tmp_path: Path) -> None:
    judge = Judge(data(tmp_path, labels=False), values(0))
    assert judge.drop(values(0, broken=0)).value == pytest.approx(100 / COUNT)
    judge = Judge(data(tmp_path, labels=False), values(0, broken=0))
    assert judge.drop(values(0, broken=0)).value == pytest.approx(100 / COUNT)


def test_a_slice_with_a_range_of_its_own_is_measured_by_it(tmp_path: Path) -> None:
    """Boxes in pixels beside scores below one, as a detector gives them, scores lost."""

    def run(lost: bool) -> Runner:
        def answer(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            index = inputs[0][:, 0].astype(int)
            output = np.random.default_rng(0).random((COUNT, 7, 12))
            output[:, :4] *= 640
            output[:, 4:] *= not lost
            return (output[index].astype(np.float32),)

        return answer

    judge = Judge(data(tmp_path, labels=False), run(False))
    assert judge.drop(run(True)).value > 100


def test_a_decision_from_nan_is_wrong(tmp_path: Path) -> None:
    def run(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        output = right_but_for()(inputs)[0]
        output[inputs[0][:, 0] < 4, 0] = np.nan
        return (output,)

    for labels in (True, False):
        judge = Judge(data(tmp_path, labels), right_but_for(), endings=SOFTMAX)
        assert judge.score(run).value == pytest.approx(90.0)
        judge = Judge(data(tmp_path, labels), run, endings=SOFTMAX)
        assert judge.score(run).value == pytest.approx(90.0)
    assert judge.drop(run).value == pytest.approx(10.0)  # it doesn't agree with itself


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


def test_the_interval_of_a_mean() -> None:
    low, high = mean_interval(np.array([0.0, 1.0] * 50))
    assert (low, high) == pytest.approx((0.5 - 0.0985, 0.5 + 0.0985), abs=1e-4)
