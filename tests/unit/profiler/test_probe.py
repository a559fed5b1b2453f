# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from edgeprune.profiler.emulation import emulated
from edgeprune.profiler.machine import fingerprint
from edgeprune.profiler.probe import probe
from tests.unit.profiler.tree import plant

PI4 = {
    "proc/cpuinfo": "".join(
        f"processor\t: {k}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n\n"
        for k in range(4)
    )
    + "Revision\t: c03112\nModel\t\t: Raspberry Pi 4 Model B Rev 1.2\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.2\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/meminfo": "MemTotal:        3884376 kB\nMemFree:         2000000 kB\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
}
MAPS = "55a-55b r-xp 00000000 fe:00 123  {}\n7f0-7f1 rw-p 00000000 00:00 0\n"


def test_a_raspberry_pi(tmp_path: Path) -> None:
    found = probe(plant(tmp_path, dict(PI4)))
    assert found["board"] == "Raspberry Pi 4 Model B Rev 1.2"
    assert found["cpu"] == "Cortex-A72"
    assert found["soc"] == "brcm,bcm2711"
    assert found["isa"] == ["fp", "asimd", "evtstrm", "crc32", "cpuid"]
    assert found["ram"] == 3884376 * 1024
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["governor"] == "ondemand"
    assert found["temperature_c"] == 48.312
    assert found["emulated"] is None
    assert found["energy_meters"] == []


def test_big_and_little_cores_are_both_named(tmp_path: Path) -> None:
    cores = ["0xd05"] * 4 + ["0xd0b"] * 2 + ["0xfff"]
    text = "".join(f"CPU implementer\t: 0x41\nCPU part\t: {part}\n\n" for part in cores)
    plant(tmp_path, {"proc/cpuinfo": text})
    assert fingerprint(tmp_path)["cpu"] == (
        "Cortex-A55 + Cortex-A76 + ARM core 0xfff of implementer 0x41"
    )


def test_a_pc_is_named_by_its_maker(tmp_path: Path) -> None:
    dmi = "sys/class/dmi/id"
    text = "model name\t: Some  CPU @ 2 GHz\nflags\t\t: fpu sse avx2\n"
    names = {f"{dmi}/sys_vendor": "Maker\n", f"{dmi}/product_name": "Box 3\n"}
    found = probe(plant(tmp_path, {"proc/cpuinfo": text, **names}))
    assert (found["board"], found["cpu"]) == ("Maker Box 3", "Some CPU @ 2 GHz")
    assert found["isa"] == ["fpu", "sse", "avx2"]


def test_what_is_not_told_is_none(tmp_path: Path) -> None:
    found = probe(tmp_path)
    for key in ("board", "cpu", "soc", "ram", "os", "governor", "frequency_hz", "temperature_c"):
        assert found[key] is None
    assert found["isa"] == []


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("/usr/bin/qemu-aarch64-static", "qemu-user"),
        ("/usr/bin/qemu-x86_64", "qemu-user"),
        ("/usr/bin/qemu-arm", "qemu-user"),
        ("/home/me/qemu-notes/python3.11", None),
        ("/usr/lib/libqemu-aarch64.so", None),
        ("/usr/bin/python3.11", None),
    ],
)
def test_qemu_shows_in_the_maps_of_a_thread(
    tmp_path: Path, program: str, answer: str | None
) -> None:
    plant(tmp_path, {"proc/self/maps": MAPS.format("/usr/bin/python3.11")})
    plant(tmp_path, {"proc/self/task/77/maps": MAPS.format(program)})
    assert emulated(tmp_path) == answer


def test_an_emulated_machine_is_told_from_a_virtual_one(tmp_path: Path) -> None:
    clocks = "sys/devices/system/clocksource/clocksource0/available_clocksource"
    vendor = {"sys/class/dmi/id/sys_vendor": "QEMU\n"}
    assert emulated(plant(tmp_path / "a", {**vendor, clocks: "tsc hpet\n"})) == "qemu-system"
    assert emulated(plant(tmp_path / "b", {**vendor, clocks: "kvm-clock tsc\n"})) is None
    tree = {"proc/device-tree/compatible": "linux,dummy-virt\0"}
    assert emulated(plant(tmp_path / "c", tree)) == "qemu-system"
