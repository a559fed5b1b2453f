# SPDX-License-Identifier: Apache-2.0
import hashlib
import zipfile
from pathlib import Path

import pytest

from edgeprune.data import checksum, tree
from edgeprune.data.pool import SampleError
from edgeprune.data.tree import open_tree
from edgeprune.errors import DataError
from tests.unit.data.pictures import archive, folder

FILES = {"a/1.png": b"one", "a/b/2.png": b"twoo", "3.txt": b"x", ".hidden/4.png": b"h"}
SEEN = {"3.txt": 1, "a/1.png": 3, "a/b/2.png": 4}


def test_folder_and_zip_look_the_same(tmp_path: Path) -> None:
    on_disk = open_tree(folder(tmp_path / "d", FILES))
    zipped = open_tree(archive(tmp_path / "d.zip", {**FILES, "__MACOSX/a/1.png": b"x"}))
    for found in (on_disk, zipped):
        assert found.files == SEEN
        assert list(found.files) == sorted(SEEN)
        assert found.folders == {"a", "a/b"}
        assert found.read("a/b/2.png") == b"twoo"


def test_links_are_followed_but_not_round_in_circles(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a/1.png": b"1"})
    other = folder(tmp_path / "other", {"2.png": b"2"})
    (root / "b").symlink_to(other)
    (root / "a/up").symlink_to(root)
    assert set(open_tree(root).files) == {"a/1.png", "b/2.png"}


def test_a_large_member_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_FILE_LIMIT", 3)
    for found in (
        open_tree(folder(tmp_path / "d", FILES)),
        open_tree(archive(tmp_path / "d.zip", FILES)),
    ):
        assert found.read("a/1.png") == b"one"
        with pytest.raises(SampleError, match=r"a/b/2\.png: larger than"):
            found.read("a/b/2.png")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_ZIP_TOTAL", 10_000)
    bomb = archive(tmp_path / "bomb.zip", {f"{i}.bmp": bytes(1_000_000) for i in range(3)})
    with pytest.raises(DataError, match="zip bomb"):
        open_tree(bomb)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_what_is_no_zip_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.zip: can't be read as a zip"):
        open_tree(path)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a.png", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"changed"))
    with pytest.raises(SampleError, match=r"a\.png: can't be read: Bad CRC"):
        open_tree(path).read("a.png")


def test_checksum_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc")
    assert checksum(path) == hashlib.sha256(b"abc").hexdigest()


def test_checksum_of_a_folder_is_of_its_listing(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", FILES)
    before = checksum(root)
    assert before == hashlib.sha256(b"3.txt\t1\na/1.png\t3\na/b/2.png\t4\n").hexdigest()
    (root / "a/1.png").write_bytes(b"longer")
    assert checksum(root) != before


def test_checksum_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        checksum(tmp_path / "absent")
