# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.device.local import LocalShell
from edgeprune.device.shell import Done
from edgeprune.device.transfer import get, part_name, put
from edgeprune.errors import DeviceError, InputError

ROOT = os.geteuid() == 0
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


class Cut(LocalShell):
    """Lets only so many bytes through, then fails as a broken connection does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sent = most, 0

    def script(self, text: str, *arguments: str, stdin: Any = None, **options: Any) -> Done:
        if stdin is None:
            return super().script(text, *arguments, **options)
        data = stdin.read()
        self.sent = min(len(data), self.most)
        super().script(text, *arguments, stdin=data[: self.most])
        if len(data) > self.most:
            raise DeviceError("the connection broke")
        return Done(0, b"", "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(200_000))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_arrives(file: Path, tmp_path: Path) -> None:
    remote = tmp_path / "there" / "deep" / "data.bin"
    assert put(LocalShell(), file, str(remote)) == digest(file)
    assert remote.read_bytes() == file.read_bytes()
    assert names(remote.parent) == ["data.bin"]


def test_an_empty_file_arrives(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    put(LocalShell(), tmp_path / "empty", str(tmp_path / "there"))
    assert (tmp_path / "there").read_bytes() == b""


@settings(max_examples=30)
@given(NAMES)
def test_any_name_is_safe(name: str) -> None:
    folder = Path("/tmp/edgeprune-test-names")
    source = folder / "source"
    folder.mkdir(exist_ok=True)
    try:
        source.write_bytes(name.encode())
        remote = f"{folder}/{name}/{name}"
        put(LocalShell(), source, remote)
        get(LocalShell(), remote, folder / "back")
        assert (folder / "back").read_bytes() == name.encode()
        assert names(folder / name) == [name]
    finally:
        shutil.rmtree(folder)


def test_what_is_there_is_not_sent_again(file: Path, tmp_path: Path) -> None:
    remote = str(tmp_path / "there")
    put(LocalShell(), file, remote)
    shell = Cut(0)
    put(shell, file, remote)
    assert shell.sent == 0


def test_an_older_content_is_replaced(file: Path, tmp_path: Path) -> None:
    remote = tmp_path / "there"
    remote.write_bytes(b"old")
    put(LocalShell(), file, str(remote))
    assert remote.read_bytes() == file.read_bytes()


def test_a_cut_upload_goes_on_where_it_ended(file: Path, tmp_path: Path) -> None:
    remote = tmp_path / "there"
    remote.write_bytes(b"old")
    with pytest.raises(DeviceError, match="connection broke"):
        put(Cut(150_000), file, str(remote))
    assert remote.read_bytes() == b"old"
    rest = Cut(10**9)
    put(rest, file, str(remote))
    assert rest.sent == 50_000
    assert remote.read_bytes() == file.read_bytes()


def test_parts_of_two_contents_never_mix(file: Path, tmp_path: Path) -> None:
    remote, other = tmp_path / "there", tmp_path / "other.bin"
    other.write_bytes(os.urandom(200_000))
    with pytest.raises(DeviceError):
        put(Cut(150_000), file, str(remote))
    put(LocalShell(), other, str(remote))
    assert remote.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("damage", [b"x" * 1000, b"x" * 300_000], ids=["short", "too long"])
def test_a_damaged_part_is_discarded(file: Path, tmp_path: Path, damage: bytes) -> None:
    remote = tmp_path / "there"
    Path(part_name(str(remote), digest(file))).write_bytes(damage)
    put(LocalShell(), file, str(remote))
    assert remote.read_bytes() == file.read_bytes()


def test_a_file_that_always_arrives_damaged_changes_nothing(file: Path, tmp_path: Path) -> None:
    class Damaging(LocalShell):
        def script(self, text: str, *arguments: str, stdin: Any = None, **options: Any) -> Done:
            given = None if stdin is None else b"x" * len(stdin.read())
            return super().script(text, *arguments, stdin=given, **options)

    remote = tmp_path / "there"
    remote.write_bytes(b"old")
    with pytest.raises(DeviceError, match="there: arrived damaged, twice"):
        put(Damaging(), file, str(remote))
    assert remote.read_bytes() == b"old"
    assert names(tmp_path) == ["data.bin", "there"]


def test_busybox_is_enough(file: Path, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox here; `apt-get install busybox` provides it")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "wc", "mv", "sha256sum", "mkdir", "rm", "sync"):
        (tools / name).symlink_to(busybox)
    shell = LocalShell(environment={"PATH": str(tools)})
    remote = str(tmp_path / "there")
    put(shell, file, remote)
    get(shell, remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_a_missing_source_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: can't be read: No such file"):
        put(LocalShell(), tmp_path / "none", str(tmp_path / "there"))


def _folder(place: Path) -> Path:
    (place / "there").mkdir()
    return place / "there"


def _below_a_file(place: Path) -> Path:
    (place / "plain").touch()
    return place / "plain" / "there"


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (_folder, "there: a folder is there"),
        (_below_a_file, "plain/there: a file is where a folder should be"),
        (lambda place: place / ("n" * 300), "n: file name too long"),
    ],
    ids=["folder", "below a file", "long name"],
)
def test_a_place_that_can_not_be_written_is_named(
    file: Path, tmp_path: Path, make: Callable[[Path], Path], cause: str
) -> None:
    with pytest.raises(DeviceError, match=f"^local: /.*{cause}$"):
        put(LocalShell(), file, str(make(tmp_path)))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    if not ROOT:
        pytest.skip("mounting a small tmpfs needs root: run the tests as root")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"this system refuses to mount a tmpfs: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_before_anything_is_sent(file: Path, small: Path) -> None:
    with pytest.raises(DeviceError, match="there: no space: 200,000 B are still to come, and 131,"):
        put(LocalShell(), file, str(small / "there"))
    assert names(small) == []


def test_a_disk_that_fills_up_is_left_as_it_was(file: Path, small: Path) -> None:
    class Blind(LocalShell):
        """Without ``df``."""

        def script(self, text: str, *arguments: str, **options: Any) -> Done:
            return super().script(text.replace("df -Pk", "no-df"), *arguments, **options)

    with pytest.raises(DeviceError, match=r"^local: .*there: no space left on the device$"):
        put(Blind(), file, str(small / "there"))
    assert names(small) == []


def test_a_read_only_place_is_named(file: Path, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(DeviceError, match=r"there: on a read-only file system$"):
        put(LocalShell(), file, str(small / "there"))


def test_fetching_what_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="none: no such file"):
        get(LocalShell(), str(tmp_path / "none"), tmp_path / "back")
    with pytest.raises(DeviceError, match="a folder is there"):
        get(LocalShell(), str(tmp_path), tmp_path / "back")
    assert names(tmp_path) == []


def test_what_a_start_up_file_prints_does_no_harm(file: Path, tmp_path: Path) -> None:
    class Chatty(LocalShell):
        def script(self, text: str, *arguments: str, **options: Any) -> Done:
            done = super().script(text, *arguments, **options)
            return Done(done.code, b"welcome\n" + done.out, done.err)

    put(Chatty(), file, str(tmp_path / "there"))
    get(Chatty(), str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_another_upload_of_the_same_file_may_be_faster(tmp_path: Path) -> None:
    file, there = tmp_path / "here.bin", tmp_path / "there" / "x.bin"
    file.write_bytes(b"x" * 100)

    class Shared(LocalShell):
        """A device on which somebody else puts the complete part in its place."""

        def script(self, text: str, *arguments: str, **more: Any) -> Done:
            done = super().script(text, *arguments, **more)
            if "stdin" in more:
                Path(arguments[0]).rename(there)
            return done

    put(Shared(), file, str(there))
    assert there.read_bytes() == file.read_bytes()
