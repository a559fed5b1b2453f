# SPDX-License-Identifier: Apache-2.0
"""Costs, each against a sum by hand."""

import sys

import pytest
import torch
from torch import nn

from edgeprune.mask import About, Mask, look
from edgeprune.tickets.ledger import Ledger
from tests.unit.finetune.toy import captured

CONV, HEAD = 6 * 2 * 9 * 16, 6 * 3
"""Of a 3x3 convolution from 2 to 6 channels on 4x4, and of a linear layer behind the mean."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(look(captured(Net(), torch.zeros(2, 2, 4, 4))))


@pytest.fixture
def mask() -> Mask:
    """A quarter of the convolution, a third of the head."""
    conv, head = torch.zeros(6, 2, 3, 3, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)
    conv.view(-1)[:27], head[0] = True, True
    return Mask({"conv.weight": conv, "head.weight": head}, About("by hand"))


def test_the_network_is_counted(ledger: Ledger) -> None:
    assert {la.name: la.macs for la in ledger.network.layers} == {
        "conv.weight": CONV,
        "head.weight": HEAD,
    }
    assert (ledger.network.fixed, ledger.network.macs) == (0, CONV + HEAD)


def test_forward_is_two_operations_a_mac(ledger: Ledger, mask: Mask) -> None:
    ledger.forward(5)
    assert (ledger.dense, ledger.sparse) == (10 * (CONV + HEAD), 10 * (CONV + HEAD))
    ledger.forward(5, mask)
    assert ledger.dense == 20 * (CONV + HEAD)
    assert ledger.sparse == pytest.approx(10 * (CONV + HEAD) + 10 * (CONV / 4 + HEAD / 3))
    assert (ledger.steps, ledger.samples) == (0, 0)


def test_a_step_is_three_passes(ledger: Ledger, mask: Mask) -> None:
    ledger.step(8, mask)
    assert ledger.dense == 8 * 6 * (CONV + HEAD)
    assert ledger.sparse == pytest.approx(8 * 6 * (CONV / 4 + HEAD / 3))
    assert (ledger.steps, ledger.samples) == (1, 8)


def test_growing_needs_the_whole_gradient_of_the_weights(ledger: Ledger, mask: Mask) -> None:
    ledger.gradient(8, mask, dense_weights=True)
    kept, whole = CONV / 4 + HEAD / 3, CONV + HEAD
    assert ledger.dense == 8 * 6 * whole
    assert ledger.sparse == pytest.approx(8 * (2 * kept + 2 * kept + 2 * whole))
    assert ledger.steps == 0


def test_relative_to_one_dense_training(ledger: Ledger, mask: Mask) -> None:
    for _ in range(10):
        ledger.step(10)
    for _ in range(20):
        ledger.step(10, mask)
    share = (CONV / 4 + HEAD / 3) / (CONV + HEAD)
    assert ledger.relative(100) == pytest.approx((3, 1 + 2 * share))


def test_a_checkpoint_holds_the_sums(ledger: Ledger, mask: Mask) -> None:
    ledger.step(8, mask)
    other = Ledger(ledger.network)
    other.load(ledger.state())
    assert other == ledger
    assert "network" not in ledger.state()


@pytest.mark.skipif(sys.platform != "linux", reason="no high-water mark of memory to read here")
def test_the_clock_adds_up_and_sees_memory(ledger: Ledger) -> None:
    with ledger.clock():
        torch.zeros(1000).sum()
    first, low = ledger.seconds, ledger.peak_bytes
    assert first > 0
    assert low is not None
    with ledger.clock():
        big = torch.ones(40_000_000)
    del big
    assert ledger.seconds > first
    assert ledger.peak_bytes is not None
    assert ledger.peak_bytes > 150e6
    high = ledger.peak_bytes
    with ledger.clock():
        pass
    assert ledger.peak_bytes == high  # the most of all, not the last


def test_the_clock_counts_what_failed_too(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.clock():
        1 / 0  # noqa: B018
    assert ledger.seconds > 0


def ticking(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day, set by the test."""
    now = [100.0]
    monkeypatch.setattr("edgeprune.tickets.ledger.perf_counter", lambda: now[0])
    return now


def test_a_checkpoint_inside_a_clock_has_its_seconds(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ticking(monkeypatch)
    with ledger.clock():
        now[0] += 5
        first = ledger.state()
        now[0] += 2
        second = ledger.state()
        now[0] += 1
    assert (first["seconds"], second["seconds"], ledger.seconds) == (5, 7, 8)
    if sys.platform == "linux":
        assert first["peak_bytes"] > 0
    now[0] += 50
    assert ledger.state()["seconds"] == 8
    resumed = Ledger(ledger.network)
    resumed.load(second)
    with resumed.clock():
        now[0] += 4
    assert resumed.seconds == 11


def test_a_clock_inside_another_counts_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ticking(monkeypatch)
    with ledger.clock():
        now[0] += 1
        with pytest.raises(ZeroDivisionError), ledger.clock():
            now[0] += 10
            1 / 0  # noqa: B018
        assert ledger.state()["seconds"] == 11
        now[0] += 100
    assert ledger.seconds == 111


def test_sums_that_are_loaded_inside_a_clock_go_on_from_there(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ticking(monkeypatch)
    before = {**ledger.state(), "seconds": 1000.0}
    with ledger.clock():
        now[0] += 7
        ledger.load(before)
        now[0] += 3
    assert ledger.seconds == 1003
