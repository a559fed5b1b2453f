# SPDX-License-Identifier: Apache-2.0
import time
from typing import Any

import pytest

from edgeprune.measure.rounds import take_turns
from edgeprune.progress import Silent
from edgeprune.recipe import ProfileOptions


class Device:
    """Answers at once, and notes what it was asked."""

    def __init__(self, *, tainted: int = 0, seconds: float = 0.0) -> None:
        self.asked: list[tuple[str, int, float]] = []
        self.tainted = tainted
        self.seconds = seconds

    def measure(self, name: str, turn: int, seconds: float) -> dict[str, Any]:
        self.asked.append((name, turn, seconds))
        time.sleep(self.seconds)
        return {"tainted": ["busy"] if turn < self.tainted else []}


class Counting(Silent):
    steps = 0

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.steps += steps


def test_each_round_has_each_file_once_in_an_order_of_its_own() -> None:
    device, bar = Device(), Counting()
    rounds = take_turns("abc", ProfileOptions(blocks=8), 3, device.measure, bar)
    orders = [[name for name, turn, _ in device.asked if turn == k] for k in range(8)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert [block["turn"] for block in rounds.blocks["b"]] == list(range(8))
    assert (bar.steps, rounds.cut) == (24, False)
    again = Device()
    take_turns("abc", ProfileOptions(blocks=8), 3, again.measure, bar)
    assert [asked[:2] for asked in again.asked] == [asked[:2] for asked in device.asked]


@pytest.mark.parametrize(("tainted", "total"), [(0, 5), (1, 6), (3, 8), (5, 10), (10, 10)])
def test_disturbed_rounds_are_made_up_for(tainted: int, total: int) -> None:
    device, bar = Device(tainted=tainted), Counting()
    rounds = take_turns("ab", ProfileOptions(blocks=5), 0, device.measure, bar)
    assert len(rounds.blocks["a"]) == len(rounds.blocks["b"]) == total
    assert bar.steps == 10
    assert not rounds.cut


def test_the_time_limit_begins_nothing_that_would_pass_it() -> None:
    device = Device(seconds=0.05)
    options = ProfileOptions(blocks=50, time_limit=0.3)
    start = time.monotonic()
    rounds = take_turns("ab", options, 0, device.measure, Silent())
    assert rounds.cut
    assert time.monotonic() - start < 5
    assert 2 <= len(device.asked) <= 6
    assert all(0 < seconds <= 0.3 for _, _, seconds in device.asked)


def test_nothing_to_measure_is_no_round() -> None:
    assert take_turns([], ProfileOptions(), 0, Device().measure, Silent()).blocks == {}
