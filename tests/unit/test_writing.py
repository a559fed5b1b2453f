# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or as they were, and where they may go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import OutputError
from edgeprune.writing import check_place, save, write


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
