# SPDX-License-Identifier: Apache-2.0
"""The rounds, with processes that are made up: what is measured when, and what ends it."""

from collections.abc import Callable
from typing import Any

import pytest

from edgeprune.profiler import latency
from edgeprune.profiler.latency import Limits, measure_latency, taints
from edgeprune.profiler.spawn import Ended
from edgeprune.profiler.stats import ENOUGH

QUIET = {"now": [], "boot": []}


def block(p50: float = 1.0, wall: float = 1.0, waited: float | None = 0.0, **more: Any) -> dict:
    return {
        "runtime": "some 1.0",
        "p50": p50,
        "wall": wall,
        "cpu": 1.0,
        "waited": waited,
        "frequency_hz": [None, None],
        "temperature_c": [None, None],
        **more,
    }


class Board:
    """Answers with made-up blocks, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, make: Callable[[str, int], Any]) -> None:
        self.now, self.make = 0.0, make
        self.asked: list[tuple[str, dict[str, Any], float]] = []
        self.told: list[tuple[int, int, str]] = []
        monkeypatch.setattr(latency.time, "monotonic", lambda: self.now)

    def ask(self, path: str, job: dict[str, Any], seconds: float) -> Ended:
        mine = sum(asked[0] == path for asked in self.asked)
        self.asked.append((path, job, seconds))
        made = self.make(path, mine)
        if made is None:  # it hangs
            self.now += seconds
            return Ended({"runtime": "some 1.0"}, -9, True, "")
        self.now += 1.0
        return made if isinstance(made, Ended) else Ended(made, 0, False, "")

    def measure(self, *paths: str, seed: int = 0, **limits: Any) -> list[latency.Measured]:
        return measure_latency(
            paths,
            Limits(**limits),
            seed=seed,
            ask=self.ask,
            state=lambda: QUIET,
            tell=lambda *words: self.told.append(words),
        )


def test_five_quiet_rounds_that_agree_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block(1 + 0.001 * k))
    found = board.measure("a", "b", "c")
    assert [file.path for file in found] == ["a", "b", "c"]
    assert all([block["turn"] for block in file.blocks] == [0, 1, 2, 3, 4] for file in found)
    rounds = [[path for path, _, _ in board.asked[3 * k : 3 * k + 3]] for k in range(5)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert found[0].runtime == "some 1.0"
    assert all(file.cut is None and file.killed is None for file in found)


def test_the_order_follows_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for seed in (1, 1, 2):
        board = Board(monkeypatch, lambda path, k: block())
        board.measure("a", "b", "c", seed=seed)
        orders.append([path for path, _, _ in board.asked])
    assert orders[0] == orders[1] != orders[2]


def test_disturbed_blocks_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block(wall=2.0 if k in (1, 3) else 1.0))
    (file,) = board.measure("a")
    assert len(file.blocks) == 7
    assert [bool(block["tainted"]) for block in file.blocks] == [
        *(False, True, False, True, False, False, False),
    ]


def test_a_file_that_is_done_stays_in_the_rounds_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that they can be compared round by round."""
    board = Board(monkeypatch, lambda path, k: block(wall=2.0 if path == "a" and k < 2 else 1.0))
    one, other = board.measure("a", "b")
    assert len(one.blocks) == len(other.blocks) == 7


def test_where_all_is_disturbed_it_does_not_go_on_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board(monkeypatch, lambda path, k: block(wall=2.0))
    (file,) = board.measure("a")
    assert len(file.blocks) == 10


def test_blocks_that_differ_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block(1.0 + 0.1 * (k % 2)))
    (file,) = board.measure("a")
    assert len(file.blocks) == ENOUGH
    (file,) = board.measure("a", max_blocks=8)
    assert len(file.blocks) == 8


def test_a_few_disturbed_ones_may_use_all_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block(wall=1.0 if k % 6 == 0 else 2.0))
    (file,) = board.measure("a")
    assert len(file.blocks) == 25  # the fifth undisturbed one
    (file,) = board.measure("a", max_blocks=14)
    assert len(file.blocks) == 10  # in 14 there can't be five


def test_the_time_limit_ends_it_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block())
    one, other = board.measure("a", "b", time_limit=5.5)
    assert len(one.blocks) + len(other.blocks) == 5
    assert board.now <= 5.5
    assert "the time limit of 5.5 s" in str(one.cut)
    board = Board(monkeypatch, lambda path, k: block(1.0 + 0.1 * (k % 2)))
    (file,) = board.measure("a", time_limit=7.0)
    assert len(file.blocks) >= 5
    assert file.cut is None  # what was asked for is there


def test_a_block_gets_no_more_seconds_than_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block())
    board.measure("a", time_limit=3.2, blocks=3)
    assert [seconds for _, _, seconds in board.asked] == pytest.approx([3.2, 2.2, 1.2])
    assert all(job["max_seconds"] <= seconds for _, job, seconds in board.asked)


def test_a_file_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: None if path == "a" else block())
    one, other = board.measure("a", "b", time_limit=100.0)
    assert one.blocks == []
    assert "didn't end within 50.0 s" in str(one.cut) or "didn't end within 49.5" in str(one.cut)
    assert len(other.blocks) == 5
    assert sum(path == "a" for path, _, _ in board.asked) == 1


def test_a_killed_block_ends_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: Ended({}, -9, False, "") if path == "a" else block())
    one, other = board.measure("a", "b")
    assert (one.killed, one.blocks, one.cut) == (9, [], None)
    assert len(other.blocks) == 5


def test_progress_never_passes_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, lambda path, k: block(wall=2.0))
    board.measure("a", "b")
    done = [number for number, _, _ in board.told]
    assert done == list(range(20))
    assert all(number < total for number, total, _ in board.told)


@pytest.mark.parametrize(
    ("changes", "before", "after", "reason"),
    [
        ({}, QUIET, QUIET, None),
        ({"wall": 1.05}, QUIET, QUIET, None),
        ({"wall": 1.2}, QUIET, QUIET, "had to wait for a core"),
        # with two threads the CPU time hides it, what the kernel counts doesn't
        ({"cpu": 1.9, "waited": 0.3}, QUIET, QUIET, "had to wait for a core"),
        ({"waited": None}, QUIET, QUIET, None),
        ({"frequency_hz": [1.5e9, 1.5e9]}, QUIET, QUIET, None),
        ({"frequency_hz": [1.5e9, 6e8]}, QUIET, QUIET, "the frequency fell from 1.50 to 0.60 GHz"),
        ({"frequency_hz": [6e8, 1.5e9]}, QUIET, QUIET, None),
        ({}, QUIET, {"now": ["throttled"], "boot": ["throttled"]}, "throttled"),
        ({}, QUIET, {"now": [], "boot": ["under-voltage"]}, "under-voltage"),
        ({}, {"now": [], "boot": ["x"]}, {"now": [], "boot": ["x"]}, None),
        ({}, {"now": None, "boot": None}, {"now": None, "boot": None}, None),
    ],
)
def test_what_disturbs_a_block(
    changes: dict, before: dict, after: dict, reason: str | None
) -> None:
    found = taints({**block(), **changes}, before, after)
    assert (found == []) if reason is None else (len(found) == 1 and reason in found[0])
