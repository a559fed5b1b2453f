# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or as they were, and where they may go."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeprune.errors import OutputError
from edgeprune.workspace import kept
from edgeprune.writing import check_place, save, save_all, write


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written"):
        check_place(tmp_path / ("y" * 300 + ".svg"), overwrite=False)


def test_a_place_is_checked_before_the_work(tmp_path: Path) -> None:
    check_place(tmp_path / "new.svg", overwrite=False)
    (tmp_path / "old.svg").write_text("")
    check_place(tmp_path / "old.svg", overwrite=True)
    with pytest.raises(OutputError, match="overwrite"):
        check_place(tmp_path / "old.svg", overwrite=False)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't be written"):
        save(tmp_path / ("n" * 300 + ".svg"), "<svg/>")
    assert list(tmp_path.iterdir()) == []


def test_what_ends_in_the_middle_leaves_the_old_file_alone(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    path = tmp_path / "there.bin"
    write(path, [b"ol", memoryview(b"d")])
    with pytest.raises(KeyboardInterrupt):
        write(path, pieces())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_when_told(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "net.txt"
    with pytest.raises(OutputError, match="there is no folder"):
        check_place(path, overwrite=False)
    check_place(path, overwrite=False, parents=True)
    with pytest.raises(OutputError, match=r"net\.txt: can't be written: No such file"):
        save(path, "text")
    save(path, "text\n", parents=True)
    assert path.read_text() == "text\n"


@contextmanager
def read_only() -> Iterator[Path]:
    """A folder that can be looked into but not written, for root too."""
    folder, root = Path(tempfile.mkdtemp()), os.geteuid() == 0
    folder.chmod(0o555)
    try:
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


@pytest.mark.parametrize("below", [".", "new/deep"])
def test_a_folder_that_cannot_be_written_is_seen_before_the_work(below: str) -> None:
    with read_only() as folder:
        path = folder / below / "t.safetensors"
        with pytest.raises(OutputError, match=r"t\.safetensors: can't be written: Permission"):
            check_place(path, overwrite=False, parents=True)


def test_a_lock_that_cannot_be_written_is_told_with_the_name_of_the_file() -> None:
    with read_only() as folder:
        path = folder / "t.safetensors"
        wanted = r"/t\.safetensors: can't be written: Permission denied \(\.t\.safetensors\.lock\)"
        with pytest.raises(OutputError, match=wanted), kept(path, {}, resume=False):
            pass


@pytest.mark.skipif(not Path("/proc/1").exists(), reason="no /proc here")
def test_permission_is_not_all_that_it_takes() -> None:
    with pytest.raises(OutputError, match=r"^/proc/1/t\.json: can't be written"):
        check_place(Path("/proc/1/t.json"), overwrite=False)


@pytest.mark.parametrize("below", [".", "new"])
def test_the_names_of_what_is_made_beside_a_file_have_to_fit(tmp_path: Path, below: str) -> None:
    with pytest.raises(OutputError, match="can't be written: File name too long"):
        check_place(tmp_path / below / ("n" * 250), overwrite=False, parents=True)
    check_place(tmp_path / below / ("n" * 249), overwrite=False, parents=True)
    assert list(tmp_path.iterdir()) == []


def test_files_that_belong_together_appear_after_all_are_written(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        assert not one.exists()
        raise OSError(28, "No space left on device")

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = tmp_path / "a" / "one", tmp_path / "b" / "other"
    other.write_text("old")
    with pytest.raises(OutputError, match=r"b/other: can't be written: No space left"):
        save_all({one: "new", other: pieces()})
    assert (one.exists(), other.read_text()) == (False, "old")
    save_all({one: "new", other: [b"ne", b"w"]})
    assert (one.read_text(), other.read_text()) == ("new", "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "one", "other"]
