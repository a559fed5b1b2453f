# SPDX-License-Identifier: Apache-2.0
"""Batches: the same for the same seed, epoch and step, however they are reached."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data import Batch, Data
from edgeprune.data.arrays import ArrayPool
from edgeprune.data.transform import Transform, flip_shift
from edgeprune.errors import DataError


def samples(count: int, first: int = 0) -> ArrayPool:
    """Images whose top left pixel is their number; classes 0, 1, 2 in turn."""
    images = np.zeros((count, 1, 8, 8), np.float32)
    images += np.arange(first, first + count, dtype=np.float32)[:, None, None, None]
    return ArrayPool((images,), np.arange(count) % 3)


def data(count: int = 20, **changes: Any) -> Data:
    made = Data(
        name="toy",
        classes=None,
        preprocessing=None,
        fingerprint="",
        training=samples(count),
        holding=samples(4, 100),
        evaluating=samples(7, 200),
        transform=Transform("NCHW", identity=True),
        augment="none",
        seed=0,
    )
    return replace(made, **changes)


def seen(batches: Iterable[Batch]) -> list[int]:
    return [int(image.max()) for batch in batches for image in batch.inputs[0]]


@given(count=st.integers(2, 40), size=st.integers(1, 12), epoch=st.integers(0, 3))
@settings(max_examples=40)
def test_an_epoch_takes_each_sample_once(count: int, size: int, epoch: int) -> None:
    found = list(data(count).train(size, seed=1, epoch=epoch))
    assert len(found) == data(count).train_steps(size)
    numbers = seen(found)
    assert len(set(numbers)) == len(numbers)
    left_out = count - len(numbers)
    assert left_out == (1 if size > 1 and count % size == 1 else 0)
    assert size == 1 or all(len(batch) > 1 for batch in found)
    for batch in found:
        assert batch.labels is not None
        assert batch.labels.tolist() == [n % 3 for n in seen([batch])]


@given(
    first=st.integers(0, 7), size=st.integers(2, 7), augment=st.sampled_from(["none", "flip-shift"])
)
@settings(max_examples=30)
def test_resuming_gives_the_tail(first: int, size: int, augment: Any) -> None:
    whole = list(data().train(size, seed=3, epoch=2, augment=augment))
    tail = list(data().train(size, seed=3, epoch=2, first_step=first, augment=augment))
    assert len(tail) == max(0, len(whole) - first)
    for a, b in zip(whole[first:], tail, strict=True):
        assert torch.equal(a.inputs[0], b.inputs[0])
        assert torch.equal(a.labels, b.labels)  # type: ignore[arg-type]


def test_epochs_and_seeds_shuffle_anew() -> None:
    orders = {
        tuple(seen(data().train(5, seed=seed, epoch=epoch))) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_the_fixed_parts_stay_in_order_without_augmentation() -> None:
    found = data(augment="flip-shift")
    assert seen(found.holdout(3)) == [100, 101, 102, 103]
    assert seen(found.evaluation(3)) == list(range(200, 207))
    assert [len(batch) for batch in found.evaluation(3)] == [3, 3, 1]
    assert all(float(b.inputs[0].min()) > 0 for b in found.evaluation(3))


@pytest.mark.parametrize("augment", ["auto", "flip-shift"])
def test_augmentation_is_the_specs_or_asked_for(augment: Any) -> None:
    found = data(augment="flip-shift" if augment == "auto" else "none")
    changed = next(found.train(20, seed=0, epoch=0, augment=augment)).inputs[0]
    plain = next(found.train(20, seed=0, epoch=0, augment="none")).inputs[0]
    assert not torch.equal(changed, plain)
    assert torch.equal(changed.amax((1, 2, 3)), plain.amax((1, 2, 3)))


def test_augmentation_needs_images() -> None:
    with pytest.raises(DataError, match="'flip-shift' needs images"):
        data(transform=Transform(None)).train(4, seed=0, epoch=0, augment="flip-shift")


def test_calibration_is_a_balanced_fixed_part_of_training() -> None:
    found = data(30)
    first = seen(found.calibration(4, 9))
    assert first == seen(found.calibration(4, 9))
    assert set(first) <= set(range(30))
    assert sorted(n % 3 for n in first) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(seen(found.calibration(4, 999))) == 30
    assert len(seen(replace(found, calibration_limit=5).calibration(4, 9))) == 5


def test_samples_of_training_follow_the_seed() -> None:
    found = data(30)
    assert seen(found.sample_train(4, 9, 1)) == seen(found.sample_train(4, 9, 1))
    assert seen(found.sample_train(4, 9, 1)) != seen(found.sample_train(4, 9, 2))


def test_the_example_is_two_training_samples() -> None:
    (images,) = data().example()
    assert images.shape == (2, 1, 8, 8)
    assert images.amax((1, 2, 3)).tolist() == [0, 1]


def test_the_largest_label_is_of_any_part() -> None:
    assert data().largest_label == 2
    high = replace(samples(3), labels=np.array([0, 9, 1]))
    assert data(holding=high).largest_label == 9


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_something(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        data().evaluation(size)


class Unreadable(ArrayPool):
    """Samples whose even rows prove corrupt."""

    def take(self, rows: Any) -> Any:
        kept = rows[rows % 2 == 1]
        return super().take(kept)


def test_what_cant_be_read_is_missing_from_its_batch_with_its_label() -> None:
    part = samples(8)
    found = data(evaluating=Unreadable(part.inputs, part.labels))
    batches = list(found.evaluation(4))
    assert [seen([batch]) for batch in batches] == [[1, 3], [5, 7]]
    assert [batch.labels.tolist() for batch in batches if batch.labels is not None] == [
        [1, 0],
        [2, 1],
    ]
    with pytest.raises(DataError, match="none of 1 images of a batch can be read"):
        next(found.evaluation(1))


@pytest.mark.parametrize("side", [8, 32])
def test_a_shift_moves_within_its_bounds_and_fills_with_zeros(side: int) -> None:
    images = torch.arange(1, side * side + 1).reshape(1, side, side, 1).repeat(200, 1, 1, 1)
    moved = flip_shift(images, np.random.default_rng(0))[..., 0]
    most = min(4, side // 8)
    place = images[0, :, :, 0].numpy()
    shifts = set()
    for image in moved.numpy():
        rows, columns = np.nonzero(image)
        values = image[rows, columns] - 1
        down, across = rows - values // side, columns - values % side
        if len(set(across.tolist())) > 1:  # flipped
            across = side - 1 - columns - values % side
        assert len(set(down.tolist())) == len(set(across.tolist())) == 1
        shifts.add((int(down[0]), int(across[0])))
        assert len(rows) == (side - abs(down[0])) * (side - abs(across[0]))
    assert {abs(shift) for pair in shifts for shift in pair} == set(range(most + 1))
    assert place.min() == 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_axes_and_constants(layout: Any, channels_last: bool) -> None:
    channels = 1 if layout == "NHW" else 2
    nhwc = np.random.default_rng(0).integers(0, 256, (3, 4, 5, channels)).astype(np.uint8)
    stored = {"NHWC": nhwc, "NCHW": nhwc.transpose(0, 3, 1, 2), "NHW": nhwc[..., 0]}[layout]
    mean, std = (0.5, 0.25)[:channels], (2.0, 4.0)[:channels]
    made = Transform(layout, 1 / 255, mean, std, channels_last)
    (found,) = made((torch.from_numpy(np.ascontiguousarray(stored)),), None)
    wanted = (nhwc / 255 - np.array(mean)) / np.array(std)
    wanted = wanted if channels_last else wanted.transpose(0, 3, 1, 2)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert np.allclose(found.numpy(), wanted, atol=1e-6)
