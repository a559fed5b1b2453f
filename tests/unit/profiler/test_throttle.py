# SPDX-License-Identifier: Apache-2.0
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.profiler import throttle
from tests.unit.profiler.tree import plant, program

CPU = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"


def test_frequency_is_of_the_fastest_core_that_may_be_used(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    other = max(os.sched_getaffinity(0)) + 1  # of another one's cores
    plant(
        tmp_path,
        {
            f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq": 1500000,
            f"{CPU}/cpu{other}/cpufreq/scaling_cur_freq": 2400000,
            f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
        },
    )
    assert throttle.frequency(tmp_path) == 1.5e9
    assert throttle.governor(tmp_path) == "ondemand"


def test_temperature_is_the_processors_where_a_zone_is_named_so(tmp_path: Path) -> None:
    plant(tmp_path, {f"{THERMAL}/thermal_zone0/temp": 71000})
    plant(tmp_path, {f"{THERMAL}/thermal_zone0/type": "battery\n"})
    assert throttle.temperature(tmp_path) == 71
    plant(tmp_path, {f"{THERMAL}/thermal_zone1/temp": 48312})
    plant(tmp_path, {f"{THERMAL}/thermal_zone1/type": "cpu-thermal\n"})
    assert throttle.temperature(tmp_path) == 48.312


def test_what_is_not_told_is_none(tmp_path: Path) -> None:
    plant(tmp_path, {f"{THERMAL}/thermal_zone0/temp": "", f"{CPU}/cpu0/cpufreq/x": ""})
    assert throttle.frequency(tmp_path) is None
    assert throttle.temperature(tmp_path) is None
    assert throttle.governor(tmp_path) is None
    assert throttle.waited(tmp_path) is None
    assert throttle.switches(tmp_path) == 0
    assert throttle.state(tmp_path, ["/nowhere/vcgencmd"]) == {"now": None, "boot": None}


def test_a_raspberry_pi_tells_its_throttling(tmp_path: Path) -> None:
    command = program(tmp_path / "vcgencmd", {"get_throttled": "throttled=0x50005"})
    assert throttle.state(tmp_path, ["/nowhere/vcgencmd", str(command)]) == {
        "now": ["under-voltage", "throttled"],
        "boot": ["under-voltage", "throttled"],
    }
    command = program(tmp_path / "vcgencmd", {"get_throttled": "throttled=0x0"})
    assert throttle.state(tmp_path, [str(command)]) == {"now": [], "boot": []}


def test_firmware_that_refuses_tells_nothing(tmp_path: Path) -> None:
    command = program(tmp_path / "vcgencmd", {})
    assert throttle.state(tmp_path, [str(command)]) == {"now": None, "boot": None}


@given(st.integers(0, 0xF), st.integers(0, 0xF))
def test_each_bit_is_one_word(now: int, boot: int) -> None:
    found = throttle.parse_throttled(f"throttled={boot << 16 | now:#x}\n")
    assert found is not None
    assert len(found["now"]) == now.bit_count()
    assert len(found["boot"]) == boot.bit_count()


@pytest.mark.parametrize("text", ["", "error=1 error_msg='Command not registered'"])
def test_other_answers_of_the_firmware_are_none(text: str) -> None:
    assert throttle.parse_throttled(text) is None


def test_the_kernels_cooling_counts(tmp_path: Path) -> None:
    cooler = f"{THERMAL}/cooling_device0"
    plant(tmp_path, {f"{cooler}/type": "thermal-cpufreq-0\n", f"{cooler}/cur_state": 0})
    plant(tmp_path, {f"{THERMAL}/cooling_device1/type": "pwm-fan\n"})
    plant(tmp_path, {f"{THERMAL}/cooling_device1/cur_state": 3})
    assert throttle.state(tmp_path, ())["now"] == []
    plant(tmp_path, {f"{cooler}/cur_state": 2})
    assert throttle.state(tmp_path, ())["now"] == ["thermal-cpufreq-0 at step 2"]


def test_intels_count_of_throttling(tmp_path: Path) -> None:
    count = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"
    assert throttle.state(plant(tmp_path, {count: 0}), ())["boot"] == []
    assert throttle.state(plant(tmp_path, {count: 7}), ())["boot"] == [
        "thermal throttling, 7 times"
    ]


def test_waiting_is_summed_over_threads(tmp_path: Path) -> None:
    plant(tmp_path, {f"proc/self/task/{k}/schedstat": f"5000 {k}000000000 9\n" for k in (1, 2)})
    assert throttle.waited(tmp_path) == pytest.approx(3)


def test_this_kernel_counts_waiting_and_switches() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel has no /proc/self/schedstat")
    before = throttle.waited()
    time.sleep(0.01)
    after = throttle.waited()
    assert before is not None
    assert after is not None
    assert after >= before >= 0
    assert throttle.switches() >= 0
