# SPDX-License-Identifier: Apache-2.0
"""Deploying to a folder: what is there afterwards, whatever goes wrong."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.deploy.steps import Wishes, roll_back
from edgeprune.device.local import LocalShell
from edgeprune.device.transfer import part_name
from edgeprune.errors import CheckFailed, DeviceError, InputError
from edgeprune.progress import Silent
from tests.unit.deploy.boards import (
    Watched,
    ask,
    board,
    bring,
    current,
    is_tidy,
    quick_shell,
    release,
    versions,
)

A, B, C, D = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "dddddddddddd"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a 'board'" / "models"


def back(folder: Path, command: str | None = None) -> str:
    return roll_back(board(folder), Wishes(command=command), Silent()).version


def test_the_first_deployment_makes_the_folder(folder: Path, tmp_path: Path) -> None:
    done = bring(folder, release(tmp_path, A))
    assert (current(folder), done.version, done.before) == (A, A, None)
    assert done.sent > 6000
    assert [checked.runtime for checked in done.checked] == ["a test's runtime"] * 2
    assert is_tidy(folder)


def test_again_uploads_nothing(folder: Path, tmp_path: Path) -> None:
    what = release(tmp_path, A)
    bring(folder, what)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    sent: list[int] = []
    shell = Watched(LocalShell(), lambda n, words: sent.append(n) if "cat >>" in words[2] else None)
    assert bring(folder, what, shell=shell).sent == 0
    assert sent == []
    assert current(folder) == A
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_same_run_measured_anew_is_the_same_version(folder: Path, tmp_path: Path) -> None:
    bring(folder, release(tmp_path, A))
    what = release(tmp_path, A)
    what.pieces[-1].path.write_text("{}")
    assert bring(folder, what).sent == 0


def test_versions_come_and_go_back(folder: Path, tmp_path: Path) -> None:
    for name in (A, B, C):
        done = bring(folder, release(tmp_path, name))
    assert (current(folder), done.before) == (C, B)
    assert back(folder) == B == current(folder)
    assert back(folder) == A == current(folder)
    with pytest.raises(InputError, match="no version to go back to: none came before it"):
        back(folder)
    assert current(folder) == A
    assert bring(folder, release(tmp_path, C)).sent == 0
    assert back(folder) == A
    assert is_tidy(folder)


def test_the_oldest_versions_go(folder: Path, tmp_path: Path) -> None:
    for name in (A, B, C):
        bring(folder, release(tmp_path, name))
    done = bring(folder, release(tmp_path, D), keep=3)
    assert done.removed == (A,)
    assert versions(folder) == [B, C, D]
    bring(folder, release(tmp_path, A), keep=2)
    assert versions(folder) == [A, D]
    assert back(folder) == D


def test_a_version_that_is_unfit_never_becomes_current(folder: Path, tmp_path: Path) -> None:
    bring(folder, release(tmp_path, A))
    links: list[str] = []
    shell = Watched(LocalShell(), after=lambda n, words: links.append(str(current(folder))))
    with pytest.raises(
        CheckFailed, match=rf"model\.onnx, output y: off by up to 1;.*{A} stays current"
    ):
        bring(folder, release(tmp_path, B, b"bad"), shell=shell)
    assert set(links) == {A}
    with pytest.raises(CheckFailed, match="nothing is current, as before"):
        bring(folder.parent / "other", release(tmp_path, B, b"bad"))
    assert current(folder.parent / "other") is None


def unfit_when_current(remote: str, inputs: Path, outputs: Path) -> str:
    """As a board whose program holds the memory that the new version needs."""
    if "/current/" in remote:
        raise InputError("the runtime refuses it")
    return ask(remote, inputs, outputs)


def test_what_fails_after_the_switch_is_taken_back(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="refuses it; nothing is current, as before"):
        bring(folder, release(tmp_path, A), check=unfit_when_current)
    assert current(folder) is None
    bring(folder, release(tmp_path, A))
    with pytest.raises(CheckFailed, match=f"doesn't run there: .* refuses it; {A} is current"):
        bring(folder, release(tmp_path, B), check=unfit_when_current)
    assert current(folder) == A
    assert is_tidy(folder)


def test_a_failing_command_takes_it_back(folder: Path, tmp_path: Path) -> None:
    command = "pwd -P; test -f model.onnx && echo no camera >&2 && exit 3"
    bring(folder, release(tmp_path, A), command="test -f model.onnx")
    with pytest.raises(
        CheckFailed, match=f"the health command ended with 3: no camera; {A} is current again"
    ):
        bring(folder, release(tmp_path, B), command=command)
    assert current(folder) == A
    bring(folder, release(tmp_path, B))
    with pytest.raises(CheckFailed, match=f"ended with 1; {B} is current again"):
        back(folder, "false")
    assert current(folder) == B
    with pytest.raises(DeviceError, match=f"took more than 1 s and was stopped; {B} is current"):
        bring(folder, release(tmp_path, C), command="sleep 30", command_timeout=1.0)


def test_a_version_that_was_proven_before_is_not_taken_back(folder: Path, tmp_path: Path) -> None:
    for name in (A, B):
        bring(folder, release(tmp_path, name))
    with pytest.raises(CheckFailed, match="it was current before and stays so"):
        bring(folder, release(tmp_path, B), command="false")
    assert current(folder) == B


def test_a_connection_lost_after_the_switch_is_made_good_by_the_next_run(
    folder: Path, tmp_path: Path
) -> None:
    what = release(tmp_path, B)
    bring(folder, release(tmp_path, A))

    def lose(number: int, words: Any) -> None:
        if (folder / "current").readlink().name == B:
            raise DeviceError("the connection broke")

    with pytest.raises(DeviceError, match=f"{B} is current and healthy, but the end is missing"):
        bring(folder, what, shell=Watched(LocalShell(), lose))
    assert roll_back(board(folder), Wishes(force_unlock=True), Silent()).version == A
    with pytest.raises(DeviceError, match=f"broke; and going back to {A} failed too.*whole"):
        bring(folder, what, shell=Watched(LocalShell(), lose), command="true")
    assert current(folder) == B
    assert board(folder).look().unproven
    with pytest.raises(CheckFailed, match=f"refuses it; {A} is current again"):
        bring(folder, what, check=unfit_when_current, force_unlock=True)
    assert current(folder) == A
    bring(folder, what)
    assert current(folder) == B
    assert is_tidy(folder)


def test_without_health_data_only_no_health_goes(folder: Path, tmp_path: Path) -> None:
    what = replace(release(tmp_path, A), health=None)
    with pytest.raises(InputError, match=r"model\.onnx, model\.tflite .*--no-health"):
        bring(folder, what)
    assert not folder.exists()
    assert bring(folder, what, check=None).checked == ()
    assert current(folder) == A


def test_a_cut_upload_goes_on(folder: Path, tmp_path: Path) -> None:
    what = release(tmp_path, A, size=200_000)
    first = what.pieces[0]
    remote = f"{folder}/incoming/{A}/{first.name}"
    part = Path(part_name(remote, first.sha256))
    part.parent.mkdir(parents=True)
    part.write_bytes(first.path.read_bytes()[:150_000])
    sent: list[bytes] = []

    class Counting(LocalShell):
        def run(self, words: Any, *, stdin: Any = None, **options: Any) -> Any:
            if stdin is not None:
                stdin = stdin.read()
                sent.append(stdin)
            return super().run(words, stdin=stdin, **options)

    done = bring(folder, what, shell=Counting())
    assert current(folder) == A
    assert len(sent[0]) == 50_000
    assert done.sent == sum(map(len, sent))


def test_a_damaged_part_is_sent_anew(folder: Path, tmp_path: Path) -> None:
    what = release(tmp_path, A)
    first = what.pieces[0]
    part = Path(part_name(f"{folder}/incoming/{A}/{first.name}", first.sha256))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    bring(folder, what)
    assert current(folder) == A


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def test_what_is_damaged_after_its_upload_is_found_and_removed(
    folder: Path, tmp_path: Path
) -> None:
    what = release(tmp_path, B)
    bring(folder, release(tmp_path, A))
    incoming = folder / "incoming" / B

    def spoil(number: int, words: Any) -> None:
        if "for wanted in" in words[2]:  # the step that compares all hashes
            damage(incoming / "model.onnx")

    with pytest.raises(DeviceError, match=r"model\.onnx: arrived damaged"):
        bring(folder, what, shell=Watched(LocalShell(), spoil))
    assert current(folder) == A
    assert not (incoming / "model.onnx").exists()
    assert (incoming / "model.tflite").exists()
    bring(folder, what)
    assert current(folder) == B


def test_a_version_damaged_on_the_board_is_replaced_beside_it(folder: Path, tmp_path: Path) -> None:
    what = release(tmp_path, A)
    bring(folder, what)
    damage(folder / "versions" / A / "model.onnx")
    done = bring(folder, what)
    assert done.version == what.spare != A
    assert current(folder) == what.spare
    with pytest.raises(CheckFailed, match=f"{A} is damaged there, so {what.spare} stays"):
        back(folder)
    assert current(folder) == what.spare
    damage(folder / "versions" / what.spare / "model.onnx")
    with pytest.raises(InputError, match="both on the board, damaged"):
        bring(folder, what)


def test_foreign_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (folder / "versions" / "not ours\n").mkdir(parents=True)
    (folder / "versions" / "mine").mkdir()
    (folder / "notes.txt").write_text("mine")
    for name in (A, B, C):
        bring(folder, release(tmp_path, name), keep=2)
    assert versions(folder) == sorted([B, C, "mine", "not ours\n"])
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "outside", "dangling", "odd", "file"])
def test_another_kind_of_current_is_refused(folder: Path, tmp_path: Path, kind: str) -> None:
    folder.mkdir(parents=True)
    link = folder / "current"
    if kind == "folder":
        link.mkdir()
    elif kind == "file":
        link.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        texts = {"outside": tmp_path / "elsewhere", "dangling": f"versions/{A}"}
        link.symlink_to(texts.get(kind, "versions/a\nlink lock x"))
    with pytest.raises(InputError, match="current"):
        bring(folder, release(tmp_path, A))
    assert [path.name for path in folder.iterdir()] == ["current"]


@pytest.mark.parametrize("name", ["versions", "incoming", "previous"])
def test_folders_that_are_links_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir(parents=True)
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"'{name}' wasn't made by edgeprune"):
        bring(folder, release(tmp_path, A))
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder"):
        bring(tmp_path / "file", release(tmp_path, A))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.text(st.sampled_from("'\"\\$`;&|<>()*?~# \t\n-=%{}[]é"), min_size=1, max_size=12),
            st.sampled_from(
                ["-rf", "--", "$(touch x)", "a; rm -rf .", " -> versions", "...", "\n"]
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_folder_name_is_just_a_name(tmp_path: Path, names: list[str]) -> None:
    shell = quick_shell(tmp_path)
    with tempfile.TemporaryDirectory(dir=tmp_path) as place:
        folder = Path(place, *names)
        for version in (A, B):
            bring(folder, release(tmp_path, version), check=None, shell=shell)
            assert current(folder) == version
        wishes = Wishes(command="test -f model.onnx")
        assert roll_back(board(folder, shell), wishes, Silent()).version == A == current(folder)
        assert is_tidy(folder)
        assert [path.name for path in Path(place).iterdir()] == [Path(names[0]).parts[0]]


def test_previous_survives_an_interrupted_switch(folder: Path, tmp_path: Path) -> None:
    for name in (A, B):
        bring(folder, release(tmp_path, name))
    real = (folder / "current").lstat().st_ino

    def die(number: int, words: Any) -> None:
        if "unproven.new" in words[2]:
            raise KeyboardInterrupt

    with pytest.raises(DeviceError, match=f"interrupted; {B} is current again"):
        bring(folder, release(tmp_path, C), shell=Watched(LocalShell(), die))
    assert (folder / "current").lstat().st_ino == real
    assert back(folder) == A


def test_nothing_there_is_nothing_to_go_back_to(folder: Path) -> None:
    with pytest.raises(InputError, match="nothing is deployed there"):
        back(folder)
    assert not folder.exists()
