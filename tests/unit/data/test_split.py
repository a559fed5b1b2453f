# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.data.split import divide, generator, pick

LABELS = st.none() | st.lists(st.integers(0, 4), min_size=1, max_size=60)


def numbers(labels: list[int] | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Every second row of a longer pool, so that rows and places differ."""
    if labels is None:
        return np.arange(17) * 2, None
    return np.arange(len(labels)) * 2, np.repeat(np.array(labels), 2)


@given(labels=LABELS, share=st.floats(0, 1), seed=st.integers(0, 9))
def test_the_parts_share_nothing_and_lose_nothing(
    labels: list[int] | None, share: float, seed: int
) -> None:
    rows, classes = numbers(labels)
    count = round(share * len(rows))
    chosen, rest = divide(rows, classes, count, generator(1, seed))
    assert len(chosen) == count
    assert sorted([*chosen, *rest]) == rows.tolist()
    assert sorted(chosen) == chosen.tolist()


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), seed=st.integers(0, 9))
def test_each_class_gives_its_share(labels: list[int], seed: int) -> None:
    rows, classes = numbers(labels)
    assert classes is not None
    count = len(rows) // 3
    chosen, _ = divide(rows, classes, count, generator(1, seed))
    for label in set(labels):
        expected = labels.count(label) * count / len(rows)
        assert abs((classes[chosen] == label).sum() - expected) < 1


@given(count=st.integers(0, 40), seed=st.integers(0, 9))
def test_picking_is_at_most_and_repeatable(count: int, seed: int) -> None:
    rows, classes = numbers([0, 1, 2] * 10)
    first = pick(rows, classes, count, generator(2, seed))
    assert len(first) == len(set(first)) == min(count, 30)
    assert np.array_equal(first, pick(rows, classes, count, generator(2, seed)))


def test_other_seeds_choose_others() -> None:
    rows = np.arange(100)
    found = {tuple(divide(rows, None, 50, generator(1, seed))[0]) for seed in range(5)}
    assert len(found) == 5
