# SPDX-License-Identifier: Apache-2.0
"""The parts of an emulated board that need no emulator; ``tests/device`` has the others."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.emulated import python_words, read_board, set_up, setup, tools
from edgeprune.device.emulated.board import MIDR, board_files, features
from edgeprune.device.emulated.counter import SOURCE, read_counts
from edgeprune.device.emulated.tools import find_debian, find_tools, start
from edgeprune.device.emulated.userland import wheels_of
from edgeprune.errors import DeviceError, InputError, OutputError
from edgeprune.profiler.count import EMPTY, MAGIC, WARMUP, count
from edgeprune.profiler.machine import fingerprint
from edgeprune.profiler.probe import probe
from edgeprune.target import Reach, find_target, list_targets

RPI4 = find_target("rpi4")
HWCAP_A72, HWCAP_A76 = 0x8FB, 0x119FFB
"""AT_HWCAP in QEMU 7.2."""


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_the_board_tells_of_itself_what_its_target_says(tmp_path: Path) -> None:
    lay_out(tmp_path, board_files(RPI4, "cortex-a72", ["fp", "asimd", "crc32"]))
    assert fingerprint(tmp_path)["board"] == "Raspberry Pi 4 Model B"
    facts = probe(tmp_path)
    assert facts["cpu"] == "Cortex-A72"
    assert facts["isa"] == ["fp", "asimd", "crc32"]
    assert facts["ram"] == 2**30
    assert (tmp_path / "proc/cpuinfo").read_text().count("processor\t:") == 4
    assert (tmp_path / "sys/devices/system/cpu/possible").read_text() == "0-3\n"


@pytest.mark.parametrize(
    "name", [n for n in list_targets() if find_target(n).reach.emulator is not None]
)
def test_each_emulated_target_names_its_own_core(name: str, tmp_path: Path) -> None:
    """A Jetson's A78AE is stood for by an A76, since QEMU had none; all others by their own."""
    target = find_target(name)
    cpu = target.reach.emulator
    assert cpu is not None
    lay_out(tmp_path, board_files(target, cpu, target.device.isa))
    told = str(fingerprint(tmp_path)["cpu"])
    assert told.lower() == cpu
    assert told in target.device.cpu or name == "jetson-orin-nano"
    assert wheels_of(target)


def test_every_cpu_of_a_target_has_its_register() -> None:
    named = get_args(Reach.model_fields["emulator"].annotation)
    assert set(get_args(named[0])) == set(MIDR)


def test_a_cpu_is_not_said_to_have_what_it_lacks() -> None:
    isa = find_target("rpi5").device.isa
    assert features(isa, HWCAP_A76) == (isa, ())
    has, lacking = features(isa, HWCAP_A72)
    assert lacking == ("atomics", "fphp", "asimdhp", "asimdrdm", "asimddp")
    assert has == ("fp", "asimd", "aes", "crc32")


def test_targets_without_an_emulator_or_a_wheel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="emulated:stm32h7: the target has no"):
        set_up(tmp_path / "board", find_target("stm32h7"))
    with pytest.raises(InputError, match="ST Edge AI Core"):
        wheels_of(find_target("stm32h7"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"mmdebstrap and qemu-aarch64 .*: apt-get install"):
        set_up(tmp_path / "board", RPI4)
    with pytest.raises(InputError, match="no apt-get"):
        find_debian()
    assert list(tmp_path.iterdir()) == []


def test_a_debian_that_apt_does_not_know_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "bookworm-updates http://updates/\n"
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setattr(tools, "start", lambda *_, **__: told)
    with pytest.raises(InputError, match=r"sources\.list"):
        find_debian()
    monkeypatch.setattr(tools, "start", lambda *_, **__: told + "trixie file:/a mirror/\n")
    assert find_debian() == tools.Debian("file:/a mirror/", "trixie")


def test_a_failed_set_up_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a new folder where there was none, nor a broken one where there was one."""
    there = tmp_path / "board"

    def fail(root: Path, *_: object) -> None:
        (root / "usr").mkdir(parents=True)
        raise DeviceError("no network")

    monkeypatch.setattr(setup, "find_tools", lambda: tools.Tools("mmdebstrap", "qemu", "7.2"))
    monkeypatch.setattr(setup, "find_debian", lambda: tools.Debian("file:/", "bookworm"))
    monkeypatch.setattr(setup, "build_userland", fail)
    with pytest.raises(DeviceError, match="no network"):
        set_up(there, RPI4)
    assert list(tmp_path.iterdir()) == []
    there.mkdir()
    (there / "board.json").write_text("{}")
    with pytest.raises(DeviceError, match="no network"):
        set_up(there, RPI4)
    assert [path.name for path in tmp_path.rglob("*")] == ["board", "board.json"]


def test_a_place_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup, "find_tools", lambda: tools.Tools("mmdebstrap", "qemu", "7.2"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        set_up(tmp_path / "file" / "board", RPI4)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"key": 1}', '{"lacking": 3}'])
def test_no_board_is_no_board(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "board.json").write_text(text)
    assert read_board(tmp_path) is None
    with pytest.raises(InputError, match="edgeprune device add emulated:rpi4"):
        python_words(tmp_path, RPI4)


def test_a_board_survives_its_file(tmp_path: Path) -> None:
    facts = {
        "key": "k",
        "title": "Raspberry Pi 4 Model B",
        "cpu": "cortex-a72",
        "qemu": "7.2",
        "debian": "12",
        "python": "3.11.2",
        "versions": {"numpy": "2"},
        "lacking": ["uscat"],
        "uncounted": "there is no C compiler",
    }
    (tmp_path / "board.json").write_text(json.dumps(facts))
    board = read_board(tmp_path)
    assert board is not None
    assert "as cortex-a72, without uscat: Debian 12 arm64" in str(board)
    assert str(board).endswith("instructions can't be counted: there is no C compiler")
    (word,) = python_words(tmp_path, RPI4)
    assert Path(word).is_relative_to(tmp_path)


def test_programs_that_fail_are_quoted(tmp_path: Path) -> None:
    script = "echo one; echo 'E: no such suite' >&2; echo 'I: cleaning' >&2; exit 3"
    with pytest.raises(DeviceError, match=r"^sh failed \(3\): E: no such suite$"):
        start(["sh", "-c", script], timeout=20)
    with pytest.raises(DeviceError, match=r"failed \(127\)"):
        start([str(tmp_path / "nothing")], timeout=20)
    assert start(["sh", "-c", "echo $MARK"], timeout=20, environment={"MARK": "x"}) == "x\n"


class FakeSession:
    runtime = "fake 1"

    def __init__(self) -> None:
        self.runs = 0

    def run(self, arrays: list[object]) -> list[object]:
        self.runs += 1
        return arrays


def test_each_run_stands_between_two_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    seen: list[tuple[int, int]] = []

    def seek(file: int, offset: int, _: int) -> int:
        assert file == -1
        assert offset >> 16 == MAGIC
        seen.append((offset & 0xFFFF, session.runs))
        raise OSError

    monkeypatch.setattr("os.lseek", seek)
    answer = count(session, [], 4)  # type: ignore[arg-type]
    assert answer == {"runtime": "fake 1", "warmup": WARMUP, "empty": EMPTY, "runs": 4}
    assert [number for number, _ in seen] == list(range(2 * (EMPTY + 4)))
    runs = [after - before for (_, before), (_, after) in zip(seen[::2], seen[1::2], strict=True)]
    assert runs == [0] * EMPTY + [1] * 4


@pytest.mark.parametrize("runs", [0, -1, 40000])
def test_runs_that_cannot_be_numbered_are_refused(runs: int) -> None:
    with pytest.raises(InputError, match="--runs"):
        count(FakeSession(), [], runs)  # type: ignore[arg-type]


def test_the_marker_is_the_same_on_both_sides() -> None:
    assert f"#define MAGIC 0x{MAGIC:x}" in SOURCE.read_text(encoding="utf-8")


@given(
    start=st.integers(0, 2**40),
    marking=st.integers(1, 10**5),
    runs=st.lists(st.integers(0, 10**9), min_size=1, max_size=9),
    between=st.integers(0, 10**6),
)
def test_counts_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    start: int,
    marking: int,
    runs: list[int],
    between: int,
) -> None:
    """Whatever the counter had counted before, between the runs, and for the marking itself."""
    total, lines = start, []
    for spent in (*([0] * EMPTY), *runs):
        for step in (between, spent + marking):
            total += step
            lines.append(f"{len(lines)} {total}")
    out = tmp_path_factory.mktemp("counts") / "out.txt"
    out.write_text("\n".join(lines) + "\n")
    assert read_counts(out, EMPTY, len(runs)) == runs


@pytest.mark.parametrize("text", [None, "", "0 5\n", "0 5\n1 6\n3 7\n2 8\n"])
def test_markers_that_were_not_seen_are_no_count(tmp_path: Path, text: str | None) -> None:
    out = tmp_path / "out.txt"
    if text is not None:
        out.write_text(text)
    with pytest.raises(DeviceError, match="of 4 markers"):
        read_counts(out, 1, 1)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here; `apt-get install gcc`")
def test_the_counter_compiles_without_a_warning(tmp_path: Path) -> None:
    words = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-DAPI=1"]
    command = [*words, "-o", str(tmp_path / "count.so"), str(SOURCE)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.skipif(
    not (shutil.which("mmdebstrap") and shutil.which("qemu-aarch64")),
    reason="no mmdebstrap or QEMU here; `apt-get install mmdebstrap qemu-user`",
)
def test_tools_are_found_with_their_version() -> None:
    assert re.fullmatch(r"\d+\.\d+(\.\d+)*", find_tools().version)
