# SPDX-License-Identifier: Apache-2.0
import pytest

from edgeprune.figure import Figure, counted
from edgeprune.report import text


def figure(value: float, unit: str, low: float | None = None, high: float | None = None) -> Figure:
    return counted(value, unit, "").model_copy(update={"low": low, "high": high})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (figure(98_600, "B"), "98.6 kB"),
        (figure(0.00036, "s", 0.00035, 0.00038), "360 us (350 to 380)"),
        (figure(0.0123, "s", 0.0120, 1.5), "12.3 ms (12 to 1500)"),
        (figure(91.2, "%", 90.61, 91.8), "91.20 % (90.61 to 91.80)"),
        (figure(-0.3, "points", -1.0, 0.4), "-0.30 points (-1.00 to 0.40)"),
        (figure(272_474, "parameters"), "272 k"),
        (figure(40_551_360, "MACs", 4e7, 4.1e7), "40.6 M (40 M to 41 M)"),
        (figure(0.45, "x", 0.4, 0.5), "0.45x (0.40 to 0.50)"),
        (figure(0, "B"), "0 B"),
        (figure(38.46, "dB"), "38.5 dB"),
        (None, "\u2013"),
    ],
)
def test_spread(value: Figure | None, expected: str) -> None:
    assert text.spread(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (2.2811, "2.28"),
        (950, "950"),
        (999.6, "1 k"),
        (1000, "1 k"),
        (999_600, "1 M"),
        (4.1e9, "4.1 G"),
    ],
)
def test_count(value: float, expected: str) -> None:
    assert text.count(value) == expected


def test_ratio_is_turned_over() -> None:
    assert text.ratio(figure(0.5, "x", 0.4, 0.8)) == "2.00x (1.25 to 2.50)"
    assert text.ratio(figure(2, "x")) == "0.50x"
    assert text.ratio(None) == "\u2013"


@pytest.mark.parametrize(("points", "expected"), [(-2.1, "-2.10"), (0.3, "+0.30"), (-1e-9, "0.00")])
def test_change(points: float, expected: str) -> None:
    assert text.change(points) == expected
