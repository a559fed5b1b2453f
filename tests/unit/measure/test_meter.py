# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import DataError
from edgeprune.measure.meter import Meter, read_meter

ANSWER: dict[str, Any] = {
    "meter": None,
    "reason": "none here",
    "idle": {"start": 100.0, "end": 102.0},
    "busy": {"start": 110.0, "end": 120.0, "runs": 50},
}


def recorded(idle: float, busy: float, shift: float = 0.0) -> Meter:
    times = tuple(90 + 0.5 * k for k in range(80))
    watts = tuple(busy if 109 <= time <= 121 else idle for time in times)
    return Meter("m.csv", tuple(time - shift for time in times), watts, shift)


@given(st.floats(0, 5), st.floats(0.1, 20), st.floats(-1e4, 1e4))
def test_the_idle_power_is_taken_off(idle: float, more: float, shift: float) -> None:
    found = recorded(idle, idle + more, shift).weigh(ANSWER)
    assert found["joules_per_inference"] == pytest.approx(more * 10 / 50, rel=1e-6)
    assert found["idle"]["watts"] == pytest.approx(idle, rel=1e-6, abs=1e-9)
    assert found["busy"]["joules"] == pytest.approx((idle + more) * 10, rel=1e-6)


def test_a_ramp_between_readings_is_a_trapezoid() -> None:
    meter = Meter("m.csv", (0.0, 100.0, 101.0, 102.0, 110, 115, 120), (0, 0, 0, 0, 0, 10, 0))
    assert meter.weigh(ANSWER)["busy"]["joules"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("meter", "message"),
    [
        (Meter("m.csv", (0.0, 1.0, 2.0), (1, 1, 1)), "m.csv has 0 readings of the idle 2 s"),
        (recorded(5, 5), "took no more power than the idle 5 W"),
        (recorded(5, 4), "took no more power"),
    ],
)
def test_what_it_did_not_see_is_absent(meter: Meter, message: str) -> None:
    found = meter.weigh(ANSWER)
    assert found["joules_per_inference"] is None
    assert message in found["reason"]


def test_reads_seconds_and_dates(tmp_path: Path) -> None:
    path = tmp_path / "power.csv"
    path.write_text("time,W\n1767225600,1.5\n\n2026-01-01T00:00:01+00:00, 2.5 ,x\n1767225602,3\n")
    meter = read_meter(path)
    assert meter.times == (1767225600, 1767225601, 1767225602)
    assert meter.watts == (1.5, 2.5, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,W\n1,2\n2,x\n", "line 3: should be time"),
        ("1,2\n1,2\n3,4\n", "line 2: its time isn't after"),
        ("1,2\n2,nan\n", "line 2: should be"),
        ("1,2\n2\n", "line 2: should be"),
        ("1,2\n", "has 1 readings"),
        ("\0\xff", "has 0 readings|no CSV|line"),
    ],
)
def test_refuses_what_is_no_recording(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "power.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=rf"power\.csv: .*({message})"):
        read_meter(path)
    with pytest.raises(DataError, match="can't be read"):
        read_meter(tmp_path / "none.csv")


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("1,2\n2,3\n3,4\n4,")
    assert read_meter(path).times == (1, 2, 3)
    path.write_text("1,2\n2,3\n3,4")
    assert read_meter(path).times == (1, 2, 3)


def test_one_that_has_only_begun_can_be_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("t,W\n")
    assert read_meter(path, fewest=0).times == ()
