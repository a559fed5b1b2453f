# SPDX-License-Identifier: Apache-2.0
import platform
import socket
from pathlib import Path

from edgeprune import __version__
from edgeprune.profiler.machine import describe, versions
from edgeprune.profiler.memory import parse_status


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_a_board_is_named_by_its_firmware(tmp_path: Path) -> None:
    write(tmp_path / "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
    text = describe(tmp_path)
    assert text.startswith("Raspberry Pi 4 Model B Rev 1.4, ")
    assert text.endswith(", governor ondemand")


def test_a_pc_is_named_by_its_cpu(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n")
    assert describe(tmp_path).startswith("Some CPU @ 2 GHz, ")


def test_nothing_known_is_no_failure(tmp_path: Path) -> None:
    assert describe(tmp_path).startswith(f"{platform.machine()}, ")


def test_no_host_name() -> None:
    name = socket.gethostname()
    assert name not in describe().split() or name in (platform.machine(), "Linux")


def test_versions_are_of_what_is_installed() -> None:
    found = versions()
    assert found["edgeprune"] == __version__
    assert found["python"] == platform.python_version()
    assert "onnxruntime" in found
    assert list(found) == sorted(found)


def test_status_in_bytes() -> None:
    text = "Name:\tpython\nVmHWM:\t   1024 kB\nRssAnon:\t  12 kB\nThreads:\t1\n"
    assert parse_status(text) == {"VmHWM": 1048576, "RssAnon": 12288}
