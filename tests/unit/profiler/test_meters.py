# SPDX-License-Identifier: Apache-2.0
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeprune.profiler import energy, meters
from edgeprune.profiler.meters import Ina3221, Pmic, Power, Rapl, find_meter, integrate, parse_pmic
from tests.unit.profiler.tree import plant, program

RAPL = "sys/class/powercap/intel-rapl"
RANGE = 262143328850

# Written after the known format (rails shortened), with indented lines and without.
PI5 = """\
 3V7_WL_SW_A current(0)=0.00390372A
   3V3_SYS_A current(1)=0.05660394A
  VDD_CORE_A current(7)=1.02538300A
 3V7_WL_SW_V volt(8)=3.68513300V
   3V3_SYS_V volt(9)=3.31525700V
  VDD_CORE_V volt(15)=0.72022800V
     EXT5V_V volt(24)=5.15098000V
      BATT_V volt(25)=0.00000000V
"""
PI5_WATTS = 0.00390372 * 3.685133 + 0.05660394 * 3.315257 + 1.025383 * 0.720228


def rapl(root: Path, package: int = 0, core: int = 0, dram: int | None = None) -> Path:
    zones: dict[str, str | int] = {
        f"{RAPL}:0/name": "package-0\n",
        f"{RAPL}:0/energy_uj": package,
        f"{RAPL}:0/max_energy_range_uj": RANGE,
        f"{RAPL}:0:0/name": "core\n",  # a part of the package
        f"{RAPL}:0:0/energy_uj": core,
        f"{RAPL}:0:0/max_energy_range_uj": RANGE,
    }
    if dram is not None:
        zones |= {
            f"{RAPL}:0:1/name": "dram\n",
            f"{RAPL}:0:1/energy_uj": dram,
            f"{RAPL}:0:1/max_energy_range_uj": 65712999613,
        }
    return plant(root, zones)


def ina3221(root: Path, chip: int, rails: dict[int, tuple[str, int, int]]) -> Path:
    place = f"sys/class/hwmon/hwmon{chip}"
    files: dict[str, str | int] = {f"{place}/name": "ina3221\n"}
    for number, (label, millivolts, milliamperes) in rails.items():
        files |= {
            f"{place}/in{number}_label": f"{label}\n",
            f"{place}/in{number}_input": millivolts,
            f"{place}/curr{number}_input": milliamperes,
        }
    return plant(root, files)


def test_rapl_counts_packages_and_memory_but_no_part_twice(tmp_path: Path) -> None:
    meter = Rapl(rapl(tmp_path, package=1_000_000, core=500_000, dram=100_000))
    assert "package-0 + dram" in meter.how
    rapl(tmp_path, package=3_000_000, core=1_500_000, dram=200_000)
    assert meter.joules() == pytest.approx(2.1)
    assert meter.joules() == 0


@given(st.integers(0, RANGE - 1), st.integers(0, RANGE - 1))
def test_rapls_counter_starts_again_from_zero(
    tmp_path_factory: pytest.TempPathFactory, start: int, step: int
) -> None:
    root = rapl(tmp_path_factory.mktemp("rapl"), package=start)
    meter = Rapl(root)
    rapl(root, package=(start + step) % RANGE)
    assert meter.joules() == pytest.approx(step * 1e-6)


def test_rapl_that_only_root_may_read_says_so(tmp_path: Path) -> None:
    rapl(tmp_path)
    counter = tmp_path / f"{RAPL}:0/energy_uj"
    counter.chmod(0)
    if os.access(counter, os.R_OK):
        counter.unlink()
        counter.mkdir()  # root reads all files, so let it be none
        assert "energy_uj can't be read" in str(find_meter("rapl", tmp_path)[1])
    else:
        assert "may be read by root only" in str(find_meter("rapl", tmp_path)[1])


@pytest.mark.parametrize(
    "text", [PI5, PI5.replace(" ", "").replace("cur", " cur").replace("vo", " vo")]
)
def test_a_pi_5s_rails_are_multiplied_and_summed(tmp_path: Path, text: str) -> None:
    command = program(tmp_path / "vcgencmd", {"pmic_read_adc": text})
    meter = Pmic([str(command)])
    assert meter.watts() == pytest.approx(PI5_WATTS)
    assert "losses" in meter.how


@pytest.mark.parametrize(
    "text", ["", "EXT5V_V volt(24)=5.15V\n", "VDD_A current(1)=?A\nVDD_V 1V\n"]
)
def test_text_without_a_whole_rail_is_no_power(text: str) -> None:
    assert parse_pmic(text) is None


def test_a_pi_4_has_no_meter(tmp_path: Path) -> None:
    command = program(tmp_path / "vcgencmd", {"get_throttled": "throttled=0x0"})
    meter, reason = find_meter("pmic", tmp_path, [str(command)])
    assert meter is None
    assert "a Raspberry Pi 5 has it" in str(reason)


def test_a_jetsons_input_is_taken_and_not_its_parts(tmp_path: Path) -> None:
    rails = {
        1: ("VDD_IN", 5040, 1000),
        2: ("VDD_CPU_GPU_CV", 5040, 400),
        3: ("VDD_SOC", 5040, 300),
    }
    meter = Ina3221(ina3221(tmp_path, 3, rails))
    assert meter.watts() == pytest.approx(5.04)
    assert "VDD_IN" in meter.how
    assert "SOC" not in meter.how


def test_without_an_input_all_channels_of_all_chips_count(tmp_path: Path) -> None:
    ina3221(tmp_path, 1, {1: ("GPU", 12000, 500), 2: ("CPU", 12000, 250)})
    ina3221(tmp_path, 2, {1: ("SYS5V", 5000, 1000)})
    plant(tmp_path, {"sys/class/hwmon/hwmon0/name": "nvme\n"})
    plant(tmp_path, {"sys/class/hwmon/hwmon2/in2_input": 5000})  # a channel that isn't connected
    assert Ina3221(tmp_path).watts() == pytest.approx(6 + 3 + 5)


def test_a_channel_that_goes_away_is_no_zero(tmp_path: Path) -> None:
    meter = Ina3221(ina3221(tmp_path, 1, {1: ("A", 1000, 1000), 2: ("B", 1000, 1000)}))
    (tmp_path / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    with pytest.raises(meters.Absent, match="can't be read any more"):
        meter.watts()


def test_auto_takes_the_boards_meter_first(tmp_path: Path) -> None:
    assert find_meter("auto", tmp_path, ())[0] is None
    rapl(tmp_path)
    found, reason = find_meter("auto", tmp_path, ())
    assert isinstance(found, Rapl)
    assert reason is None
    ina3221(tmp_path, 0, {1: ("VDD_IN", 5000, 100)})
    assert isinstance(find_meter("auto", tmp_path, ())[0], Ina3221)
    assert isinstance(find_meter("rapl", tmp_path, ())[0], Rapl)


def test_where_there_is_none_each_reason_is_told(tmp_path: Path) -> None:
    _, reason = find_meter("auto", tmp_path, ())
    assert all(f"{name}: " in str(reason) for name in meters.METERS)


def line(times: list[float], at: Callable[[float], float]) -> list[Power]:
    return [Power(time, at(time)) for time in times]


@given(
    st.lists(st.floats(0, 10), min_size=3, max_size=40, unique=True).map(sorted),
    st.floats(0, 5),
    st.floats(-0.4, 0.4),
)
def test_a_straight_line_is_integrated_exactly(
    times: list[float], level: float, slope: float
) -> None:
    start, end = times[0], times[-1]
    steps = [times[k + 1] - times[k] for k in range(len(times) - 1)]
    assume(max(steps) <= 2.5)
    assume(min(steps) > 1e-6)
    low, high = start + (end - start) * 0.1, start + (end - start) * 0.8
    found = integrate(line(times, lambda t: level + slope * t), low, high)
    wanted = level * (high - low) + slope * (high**2 - low**2) / 2
    assert found == pytest.approx(wanted, abs=1e-6)


def test_what_was_not_seen_is_not_guessed() -> None:
    seen = [Power(float(k), 2.0) for k in range(20)]
    assert integrate(seen, 1, 18) == pytest.approx(34)
    assert integrate(seen, -1, 18) is None
    assert integrate(seen, 1, 19.5) is None
    assert integrate(seen[:5] + seen[9:], 1, 18) is None
    assert integrate([], 0, 1) is None
    assert integrate(seen[:1], 0, 0) is None


class Clock:
    """Time that passes when it is waited for, and a board that draws power meanwhile."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        self.now, self.busy, self.joules = 1_000_000.0, False, 0.0
        self.root, self.how = root, how
        monkeypatch.setattr(energy.time, "time", lambda: self.now)
        self.show()

    @property
    def watts(self) -> float:
        return 5.0 if self.busy else 2.0

    def show(self) -> None:
        if self.how == "rapl":
            rapl(self.root, package=int(self.joules * 1e6) % RANGE)
        elif self.how == "ina3221":
            ina3221(self.root, 0, {1: ("VDD_IN", 5000, int(self.watts * 200))})

    def wait(self, seconds: float, tick: Callable[[], None]) -> None:
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            self.joules += self.watts * 0.05
            self.show()
            tick()

    def run(self, watching: tuple[float, Callable[[], None]]) -> dict[str, Any]:
        self.wait(1, watching[1])  # it loads
        self.busy = True
        self.wait(0.5, watching[1])
        start = self.now
        self.wait(4, watching[1])
        end = self.now
        self.wait(0.3, watching[1])
        return {"runtime": "some 1.0", "start": start, "end": end, "runs": 100}


@pytest.mark.parametrize("how", ["rapl", "ina3221"])
def test_an_inference_costs_what_busy_takes_more_than_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    clock = Clock(tmp_path, monkeypatch, how)
    result = energy.measure_energy(4.0, how, clock.run, clock.wait, tmp_path)
    assert (result["meter"], result["reason"]) == (how, None)
    assert result["idle"]["watts"] == pytest.approx(2.0, rel=1e-3)
    assert result["busy"]["joules"] == pytest.approx(20.0, rel=1e-3)
    assert result["joules_per_inference"] == pytest.approx(0.12, rel=1e-2)
    assert math.isclose(result["busy"]["end"] - result["busy"]["start"], 4)


def test_no_more_power_than_idle_is_no_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch, "ina3221")
    monkeypatch.setattr(Clock, "watts", 2.0)
    result = energy.measure_energy(4.0, "auto", clock.run, clock.wait, tmp_path)
    assert result["joules_per_inference"] is None
    assert "no more power" in result["reason"]


def test_a_meter_that_goes_away_in_between_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch, "ina3221")

    def run(watching: tuple[float, Callable[[], None]]) -> dict[str, Any]:
        (tmp_path / "sys/class/hwmon/hwmon0/curr1_input").unlink()
        clock.how = "none"
        return clock.run(watching)

    result = energy.measure_energy(4.0, "auto", run, clock.wait, tmp_path)
    assert result["joules_per_inference"] is result["busy"]["joules"] is None
    assert "can't be read any more" in result["reason"]
    assert result["idle"]["watts"] == pytest.approx(2.0, rel=1e-3)


def test_without_a_meter_only_the_times_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch, "none")
    result = energy.measure_energy(4.0, "auto", clock.run, clock.wait, tmp_path)
    assert result["meter"] is result["how"] is result["joules_per_inference"] is None
    assert result["idle"]["watts"] is result["busy"]["joules"] is None
    assert result["idle"]["end"] - result["idle"]["start"] == pytest.approx(4)
