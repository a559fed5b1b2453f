# SPDX-License-Identifier: Apache-2.0
"""The client is killed, or the board loses power, at every point of a deployment.

After each ``current`` leads to a whole version, and the same command again finishes.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeprune.deploy.release import Release
from edgeprune.deploy.steps import Wishes, roll_back
from edgeprune.device.local import LocalShell
from edgeprune.device.shell import Done, Shell
from edgeprune.errors import EdgepruneError
from edgeprune.progress import Silent
from tests.unit.deploy.boards import (
    Watched,
    board,
    bring,
    current,
    is_tidy,
    killed_at,
    quick_shell,
    release,
    versions,
)

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
TOOLS = ("cat", "ln", "ls", "mkdir", "mv", "rm", "sha256sum", "sync", "wc")
Place = tuple[Path, dict[str, Release]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A board with versions A and B, and a third one to bring, for which A has to go."""
    releases = {name: release(tmp_path, name, size=70_000) for name in (A, B, C)}
    for name in (A, B):
        bring(tmp_path / "first", releases[name])
    return tmp_path / "first", releases


def commands_of(folder: Path, what: Release, copy: Path) -> int:
    shutil.copytree(folder, copy, symlinks=True)
    shell = Watched(LocalShell())
    bring(copy, what, shell=shell, keep=2)
    return shell.count


def test_a_killed_client_leaves_a_whole_version_and_the_next_one_finishes(
    place: Place, tmp_path: Path
) -> None:
    first, releases = place
    count = commands_of(first, releases[C], tmp_path / "counted")
    assert count >= 10
    seen = set()
    quick = quick_shell(tmp_path)
    for point in range(1, count + 1):  # just after one command is just before the next
        folder = tmp_path / f"kill-{point}"
        shutil.copytree(first, folder, symlinks=True)
        assert killed_at(point, folder, releases[C], quick, keep=2) == -signal.SIGKILL, point
        left = current(folder)
        seen.add(left)
        assert left in (B, C), point
        finish(folder, releases[C], quick, point)
    assert seen == {B, C}


def finish(folder: Path, what: Release, shell: Shell, where: object) -> None:
    """The same command again; then the one that goes back."""
    done = bring(folder, what, shell=shell, keep=2)
    assert current(folder) == done.version == C, where
    assert is_tidy(folder), where
    assert versions(folder) == [B, C], where
    assert roll_back(board(folder, shell), Wishes(), Silent()).version == B, where
    assert current(folder) == B, where
    shutil.rmtree(folder)


def test_a_client_killed_while_it_sends_goes_on_where_it_was(place: Place, tmp_path: Path) -> None:
    folder, _ = place
    what = release(tmp_path, C, size=3_000_000)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from edgeprune.device.local import LocalShell\n"
        "from tests.unit.deploy.boards import bring, release\n"
        "class Dying(LocalShell):\n"
        "    def run(self, words, *, stdin=None, **options):\n"
        "        return super().run(words, stdin=stdin and Half(stdin), **options)\n"
        "class Half:\n"
        "    def __init__(self, file): self.file, self.left = file, 1_500_000\n"
        "    def read(self, size):\n"
        "        if self.left <= 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        data = self.file.read(min(size, self.left))\n"
        "        self.left -= len(data)\n"
        "        return data\n"
        f"what = release(Path(sys.argv[2]), '{C}', size=3_000_000)\n"
        "bring(Path(sys.argv[1]), what, shell=Dying())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path)], check=False, timeout=100
    )
    assert done.returncode == -signal.SIGKILL
    assert current(folder) == B
    arrived = settled(folder / "incoming" / C)
    assert 1_000_000 < arrived < 3_000_000
    outcome = bring(folder, what)
    assert current(folder) == C
    assert outcome.sent == what.bytes + len(what.sums()) - arrived
    assert is_tidy(folder)


def settled(folder: Path) -> int:
    """Bytes that have arrived, once no more come: what was sent is still on its way for a bit."""
    before, calm = -1, 0
    for _ in range(400):
        now = sum(path.stat().st_size for path in folder.iterdir())
        calm = calm + 1 if now == before and now else 0
        if calm == 10:
            return now
        before = now
        time.sleep(0.05)
    raise AssertionError("it never settled")


def dying_tools(folder: Path) -> Path:
    """Programs for a board that loses power with its N-th one: ``folder/limit`` has N, and from
    then on each one ends its shell instead."""
    tools = folder / "tools"
    tools.mkdir()
    for tool in TOOLS:
        path = tools / tool
        path.write_text(
            "#!/bin/sh\n"
            f"read -r n <'{folder}/count'; n=$((n + 1)); echo $n >'{folder}/count'\n"
            f"read -r limit <'{folder}/limit'\n"
            "if [ $n -ge $limit ]; then kill -9 $PPID; exit 137; fi\n"
            + ("" if tool == "sync" else f'exec {shutil.which(tool)} "$@"\n')
        )
        path.chmod(0o755)
    return tools


def test_power_lost_at_any_program_leaves_a_whole_version(place: Place, tmp_path: Path) -> None:
    """Within a step too: each of the programs that its script starts may be the last."""
    first, releases = place
    tools = dying_tools(tmp_path)
    shell = Shelled(LocalShell(environment={"PATH": str(tools)}))
    quick = quick_shell(tmp_path)
    (tmp_path / "limit").write_text("100000\n")
    (tmp_path / "count").write_text("0\n")
    shutil.copytree(first, tmp_path / "counted", symlinks=True)
    bring(tmp_path / "counted", releases[C], shell=shell, keep=2)
    count = int((tmp_path / "count").read_text())
    assert count > 40
    seen = set()
    late = 2 * count // 3  # from about here on versions and links are moved
    for limit in (*range(1, late, 5), *range(late, count + 1)):
        (tmp_path / "limit").write_text(f"{limit}\n")
        (tmp_path / "count").write_text("0\n")
        folder = tmp_path / f"power-{limit}"
        shutil.copytree(first, folder, symlinks=True)
        with contextlib.suppress(EdgepruneError):
            bring(folder, releases[C], shell=shell, keep=2)
        left = current(folder)
        seen.add(left)
        assert left in (B, C), limit
        bring(folder, releases[C], shell=quick, keep=2, force_unlock=True)
        finish(folder, releases[C], quick, limit)
    assert seen == {B, C}


class Shelled(Watched):
    """Starts ``/bin/sh`` itself by its path, since the programs on ``PATH`` may be dead."""

    def script(self, text: str, *arguments: str, **options: Any) -> Done:
        return self.run(("/bin/sh", "-c", text, "sh", *arguments), **options)
