# SPDX-License-Identifier: Apache-2.0
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.device.adb import Phone
from edgeprune.errors import DeviceError, InputError
from tests.unit.device.fake_adb import PROPERTIES, SERIAL, FakePhone, elf, make_phone


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    return make_phone(tmp_path, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "my $(touch pwned) 'model'.tflite"
    path.write_bytes(b"TFL3")
    return path


def run(phone: FakePhone, model: Path, cores: str | None = None) -> float:
    with Phone(SERIAL).visit(phone.benchmark_model, {"model.tflite": model}) as visit:
        options = {"num_threads": 4, "enable_op_profiling": True}
        return visit.run("model.tflite", options, cores=cores, timeout=20).load


def test_a_run_pushes_runs_and_cleans_up(phone: FakePhone, model: Path) -> None:
    with Phone(SERIAL).visit(phone.benchmark_model, {"a": model, "b": model}) as visit:
        there = {path.name for path in phone.left() if path.is_file()}
        assert there == {"benchmark_model", "m0.tflite", "m1.tflite"}
        assert visit.facts.title == ("Google Pixel 6a (GS101), 8 cores, Android 14, Linux 5.10.177")
        found = visit.run("b", {"num_threads": 4, "dry": False}, cores=None, timeout=20)
        assert found.load == pytest.approx(0.087639)
    assert phone.runs() == ["--graph=m1.tflite --num_threads=4 --dry=false"]
    assert phone.left() == []
    assert not (phone.folder / "edgeprune").exists()


def test_cores_are_chosen_by_taskset_only_if_asked(phone: FakePhone, model: Path) -> None:
    run(phone, model)
    run(phone, model, cores="f0")
    plain = "--graph=m0.tflite --num_threads=4 --enable_op_profiling=true"
    assert phone.runs() == [plain, "taskset f0", plain]


@pytest.mark.parametrize("cores", ["", "big", "f0; rm -rf /", "-a", "f" * 33])
def test_cores_must_be_a_mask(phone: FakePhone, model: Path, cores: str) -> None:
    with pytest.raises(InputError, match="should be a mask in hex"):
        run(phone, model, cores=cores)
    assert phone.left() == []


_WORDS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=("Cs",)), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(arguments=st.lists(_WORDS, max_size=4))
def test_arguments_reach_the_phones_shell_as_they_are(
    phone: FakePhone, arguments: list[str]
) -> None:
    code, said = Phone(SERIAL).script('printf "<%s>" "$@"; exit 7', *arguments)
    assert code == 7
    assert said == "".join(f"<{word}>" for word in arguments or [""])


@pytest.mark.parametrize("word", ["; touch pwned", "$(touch pwned)", "`id`", "-n", "a\nb", "'\"'"])
def test_nothing_in_an_argument_is_run(phone: FakePhone, word: str) -> None:
    assert (
        Phone(SERIAL).script('printf "%s\\n" "$1"; cd "$2"', word, str(phone.folder))[1]
        == word + "\n"
    )
    assert not (phone.folder / "pwned").exists()


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        ("", "adb knows no such device; it knows none"),
        ("A1\tdevice\nB2\toffline\n", r"it knows A1 \(device\), B2 \(offline\)"),
        (f"{SERIAL}\tunauthorized\n", "accept the question on its screen"),
        (f"{SERIAL}\toffline\n", "it is offline"),
        (f"{SERIAL}\tno permissions (missing udev rules? user is in plugdev)\n", "udev rule"),
        (f"{SERIAL}\trecovery\n", "its state is 'recovery', not device"),
        (f"{SERIAL}\tdevice\n{SERIAL}\tdevice\n", "2 devices of this serial number"),
    ],
)
def test_a_phone_that_is_not_ready_says_why(
    phone: FakePhone, model: Path, devices: str, text: str
) -> None:
    (phone.folder / "devices").write_text(devices)
    with pytest.raises(DeviceError, match=rf"^adb:{SERIAL}: .*{text}") as caught:
        run(phone, model)
    assert "\n" not in str(caught.value)


def test_without_adb_its_package_is_named(
    phone: FakePhone, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(phone.folder / "nothing"))
    with pytest.raises(DeviceError, match=r"adb isn't installed; Debian's package is adb"):
        run(phone, model)


def test_the_wrong_abi_is_seen_before_anything_is_pushed(
    phone: FakePhone, model: Path, tmp_path: Path
) -> None:
    for machine, bits, name in ((62, 2, "x86_64"), (3, 1, "x86"), (8, 1, "machine 8")):
        program = elf(tmp_path / "other", machine, bits)
        with (
            pytest.raises(DeviceError, match=f"is built for {name}, this phone runs arm64-v8a, "),
            Phone(SERIAL).visit(program, {"m": model}),
        ):
            pass
    assert not (phone.folder / "edgeprune").exists()
    with Phone(SERIAL).visit(elf(tmp_path / "other", 40, 1), {"m": model}) as visit:
        assert "armeabi-v7a" in visit.facts.abis


def test_an_old_phone_has_no_list_of_abis(phone: FakePhone, model: Path) -> None:
    old = re.sub("ro.product.cpu.abilist=.*\n|ro.soc.*\n", "", PROPERTIES)
    (phone.folder / "properties").write_text(old)
    with Phone(SERIAL).visit(phone.benchmark_model, {"m": model}) as visit:
        assert visit.facts.abis == ("arm64-v8a",)
        assert visit.facts.title.startswith("Google Pixel 6a, ")


def test_bad_files_of_the_user(phone: FakePhone, model: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    cases = [
        (tmp_path / "absent", model, r"absent: can't be read: No such file"),
        (tmp_path, model, "can't be read: Is a directory"),
        (script, model, "isn't a program for Android"),
        (phone.benchmark_model, tmp_path / "no.tflite", r"no\.tflite: can't be read"),
    ]
    for program, file, text in cases:
        with pytest.raises(InputError, match=text), Phone(SERIAL).visit(program, {"m": file}):
            pass
    assert phone.left() == []


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        ("ERROR: Failed to allocate tensors!\nERROR: Benchmarking failed.\n", 1, "exit code 1"),
        ("ERROR: Failed to allocate tensors!\nERROR: Benchmarking failed.\n", 1, "allocate tens"),
        ("sh: ./benchmark_model: not executable: 64-bit ELF file\n", 126, "built for Android, arm"),
        ("sh: ./benchmark_model: No such file or directory\n", 127, "built for Android, arm64"),
        ('CANNOT LINK EXECUTABLE "./benchmark_model": library "libc.so.6" not found\n', 1, "built"),
        ("", 137, "was killed, most likely for want of memory"),
        ("INFO: STARTING!\n", 0, "didn't get to its end: INFO: STARTING!"),
    ],
)
def test_a_run_that_fails_says_why_and_leaves_nothing(
    phone: FakePhone, model: Path, said: str, code: int, text: str
) -> None:
    phone.says(said, code=code)
    with pytest.raises(DeviceError, match=re.escape(text)) as caught:
        run(phone, model)
    assert str(caught.value).startswith("model.tflite: ")
    assert f"adb:{SERIAL}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert phone.left() == []


def test_a_hung_run_is_stopped(phone: FakePhone, model: Path) -> None:
    (phone.folder / "slow").touch()
    with (
        pytest.raises(DeviceError, match="adb shell took more than 1 s and was stopped"),
        Phone(SERIAL).visit(phone.benchmark_model, {"m": model}) as visit,
    ):
        visit.run("m", {}, cores=None, timeout=1)
    assert phone.left() == []


def test_a_full_phone_is_left_as_it_was(phone: FakePhone, model: Path) -> None:
    (phone.folder / "full").touch()
    with pytest.raises(DeviceError, match=r"can't be pushed: .*No space left on device"):
        run(phone, model)
    assert phone.left() == []


def test_a_phone_that_is_unplugged_meanwhile(phone: FakePhone, model: Path) -> None:
    with (
        pytest.raises(DeviceError, match=f"connection broke: error: device '{SERIAL}' not found"),
        Phone(SERIAL).visit(phone.benchmark_model, {"m": model}) as visit,
    ):
        (phone.folder / "gone").touch()
        visit.run("m", {}, cores=None, timeout=20)


def test_the_folder_of_another_run_is_left_alone(phone: FakePhone, model: Path) -> None:
    other = phone.folder / "edgeprune" / "another"
    other.mkdir(parents=True)
    run(phone, model)
    assert phone.left() == [other]
