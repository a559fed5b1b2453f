# SPDX-License-Identifier: Apache-2.0
"""Outputs are classes only where they evidently are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeprune.data import Data, open_data
from edgeprune.errors import DataError
from edgeprune.tasks import Arrays, Classes, Ending, Probabilities, Runner, Values, read

COUNT = 120
OPEN = Ending()


def data(folder: Path, classes: int = 0) -> Data:
    """Samples ``[number, label]``, labelled where there are classes."""
    number = np.arange(COUNT)
    labels = number % max(classes, 1)
    arrays: dict[str, NDArray[Any]] = {"x": np.stack([number, labels], 1).astype(np.float32)}
    if classes:
        arrays["y"] = labels
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return open_data(str(folder / "data.npz"), seed=0)


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(COUNT, *shape)).astype(np.float32)


def gives(*outputs: NDArray[Any], knows: int | None = None) -> Runner:
    """A model of these outputs; the one that knows the labels says them."""

    def run(inputs: Arrays) -> Arrays:
        number, label = inputs[0].astype(int).T
        found = [output[number].copy() for output in outputs]
        if knows is not None:
            found[knows][np.arange(len(label)), label] += 5
        return tuple(found)

    return run


@pytest.mark.parametrize("shape", [(256,), (4,), (10, 40), (40, 10), (3, 8, 8), (1,), ()])
def test_without_labels_or_an_ending_nothing_is_classes(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    (kind,) = read(data(tmp_path), gives(noise(*shape))).outputs
    assert isinstance(kind, Values)


def test_endings_and_whole_numbers_are_evident(tmp_path: Path) -> None:
    outputs = noise(5), noise(40, 10), noise(3), noise(4) > 0, np.arange(COUNT)
    ends = Ending("log_softmax", 1, (5,)), Ending("softmax", 2, (10,)), Ending("sigmoid")
    kinds = read(data(tmp_path), gives(*outputs), (*ends, OPEN, OPEN)).outputs
    assert kinds[:2] == (Classes(1, (5,)), Classes(2, (10,)))
    assert isinstance(kinds[2], Probabilities)
    assert kinds[3:] == (Classes(None), Classes(None))


def test_probabilities_of_an_own_formula_are_seen_by_their_sum(tmp_path: Path) -> None:
    powers = np.exp(noise(6))
    (kind,) = read(data(tmp_path), gives(powers / powers.sum(1, keepdims=True))).outputs
    assert kind == Classes(1, (6,), normalised=True)


def test_labels_belong_to_an_output_of_as_many_classes(tmp_path: Path) -> None:
    task = read(data(tmp_path, 10), gives(noise(10)))
    assert task.outputs == (Classes(1, (), labelled=True),)
    assert task.notes == ()


def test_more_outputs_than_classes_must_know_the_labels(tmp_path: Path) -> None:
    given = data(tmp_path, 10)
    assert read(given, gives(noise(256), knows=0)).labelled == (0,)
    task = read(given, gives(noise(256)))  # an embedding
    assert isinstance(task.outputs[0], Values)
    assert task.notes == (
        "labels not used: 10 classes aren't evidently what the model's outputs ([32, 256]) tell",
    )
    assert read(given, gives(noise(256)), only_labels=True).labelled == (0,)


@pytest.mark.parametrize("knows", [0, 1])
def test_of_two_that_fit_the_one_that_knows_has_the_labels(tmp_path: Path, knows: int) -> None:
    """Boxes of four numbers beside four classes."""
    assert read(data(tmp_path, 4), gives(noise(4), noise(4), knows=knows)).labelled == (knows,)


@pytest.mark.parametrize(
    ("score", "end", "labels"),
    [
        (noise(2), Ending("softmax", 1, (2,)), None),
        (noise(1), Ending("sigmoid"), "binary"),
        (noise(), Ending("sigmoid"), "binary"),
    ],
)
def test_of_a_face_network_the_probability_has_the_labels(
    tmp_path: Path, score: NDArray[Any], end: Ending, labels: str | None
) -> None:
    run = gives(noise(4), noise(10), score)
    task = read(data(tmp_path, 2), run, (OPEN, OPEN, end))
    assert task.labelled == (2,)
    assert isinstance(task.outputs[0], Values)
    assert isinstance(task.outputs[1], Values)
    kind = task.outputs[2]
    assert isinstance(kind, Probabilities if labels else Classes)
    assert getattr(kind, "labels", None) == labels


def test_a_label_outside_the_only_output_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"label 4 is outside the model's output, .* 4 classes"):
        read(data(tmp_path, 5), gives(noise(4)))


def test_slices_of_unlike_ranges_have_variances_of_their_own(tmp_path: Path) -> None:
    output = np.concatenate([640 * noise(4, 9), noise(3, 9)], 1)
    (kind,) = read(data(tmp_path), gives(output)).outputs
    assert isinstance(kind, Values)
    assert kind.variance.shape == (1, 7, 1)
    assert np.sqrt(kind.variance.ravel()) == pytest.approx([640] * 4 + [1] * 3, rel=0.15)
    (kind,) = read(data(tmp_path), gives(noise(7, 9))).outputs
    assert isinstance(kind, Values)
    assert kind.variance.shape == (1, 1, 1)
