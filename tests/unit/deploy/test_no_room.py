# SPDX-License-Identifier: Apache-2.0
"""A full disk and one that can't be written: small file systems of their own, so root is needed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import DeviceError
from tests.unit.deploy.boards import bring, current, is_tidy, release

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root: run the tests with sudo")
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=1m", "none", str(place))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here ({error}): run it where root may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_old_version_and_room_finishes_it(
    disk: Path, tmp_path: Path
) -> None:
    folder = disk / "models"
    bring(folder, release(tmp_path, A, size=100_000))
    what = release(tmp_path, B, size=600_000)
    with pytest.raises(DeviceError, match="no space"):
        bring(folder, what)
    assert current(folder) == A
    mount("-o", "remount,size=8m", str(disk))
    done = bring(folder, what)
    assert current(folder) == B
    assert done.sent < what.bytes  # the first file had arrived
    assert is_tidy(folder)


def test_a_disk_without_a_byte_left_is_said_so(disk: Path, tmp_path: Path) -> None:
    folder = disk / "models"
    bring(folder, release(tmp_path, A))
    with (disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096) == 4096:
            if not os.statvfs(disk).f_bavail:
                break
    with pytest.raises(DeviceError, match="no space"):
        bring(folder, release(tmp_path, B, size=50_000))
    assert current(folder) == A
    (disk / "filler").unlink()
    bring(folder, release(tmp_path, B, size=50_000))
    assert current(folder) == B


def test_a_read_only_folder_is_said_so(disk: Path, tmp_path: Path) -> None:
    folder = disk / "models"
    bring(folder, release(tmp_path, A))
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(DeviceError, match="on a read-only file system"):
        bring(folder, release(tmp_path, B))
    assert current(folder) == A
    with pytest.raises(DeviceError, match="on a read-only file system"):
        bring(disk / "new", release(tmp_path, B))
