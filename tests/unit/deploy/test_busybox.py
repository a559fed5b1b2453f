# SPDX-License-Identifier: Apache-2.0
"""A board with nothing but busybox, and one whose ``mv`` is too old."""

import shutil
from pathlib import Path

import pytest

from edgeprune.deploy.steps import Wishes, roll_back
from edgeprune.device.local import LocalShell
from edgeprune.errors import DeviceError
from edgeprune.progress import Silent
from tests.unit.deploy.boards import board, bring, current, is_tidy, release, versions

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
NEEDED = ("sh", "cat", "ln", "ls", "mkdir", "mv", "rm", "sha256sum", "sync", "wc")
BUSYBOX = shutil.which("busybox")

pytestmark = pytest.mark.skipif(
    BUSYBOX is None, reason="no busybox here; `apt-get install busybox` provides it"
)


def programs(folder: Path, *names: str) -> LocalShell:
    """A board that has these programs only, all busybox's."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(str(BUSYBOX))
    return LocalShell(environment={"PATH": str(folder)})


def test_busybox_is_enough(tmp_path: Path) -> None:
    shell = programs(tmp_path / "bin", *NEEDED)
    folder = tmp_path / "a 'board'\n"
    for name in (A, B, C):
        assert bring(folder, release(tmp_path, name), shell=shell, keep=2).version == name
        assert current(folder) == name
    assert bring(folder, release(tmp_path, C), shell=shell).sent == 0
    assert versions(folder) == [B, C]
    listing = board(folder, shell).look()
    assert (listing.current, listing.previous) == (C, B)
    assert listing.versions[C].bytes > 6000
    assert roll_back(board(folder, shell), Wishes(command="wc -c model.onnx"), Silent()).version
    assert current(folder) == B
    assert is_tidy(folder)


@pytest.mark.parametrize("missing", ["sha256sum", "sync"])
def test_a_missing_program_is_said_before_anything_changes(tmp_path: Path, missing: str) -> None:
    shell = programs(tmp_path / "bin", *(name for name in NEEDED if name != missing))
    with pytest.raises(DeviceError, match=f"the board has no {missing}; install"):
        bring(tmp_path / "board", release(tmp_path, A), shell=shell)
    assert not (tmp_path / "board").exists()


def test_without_mv_t_nothing_is_changed(tmp_path: Path) -> None:
    shell = programs(tmp_path / "bin", *(name for name in NEEDED if name != "mv"))
    old = tmp_path / "bin" / "mv"
    old.write_text(
        "#!/bin/sh\n"
        'for word; do [ "$word" = -T ] && { echo "mv: invalid option -- T" >&2; exit 1; }; done\n'
        f'exec {BUSYBOX} mv "$@"\n'
    )
    old.chmod(0o755)
    with pytest.raises(DeviceError, match=r"its `mv` has no -T.*nothing was changed"):
        bring(tmp_path / "board", release(tmp_path, A), shell=shell)
    assert not any((tmp_path / "board").iterdir())
