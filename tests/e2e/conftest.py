# SPDX-License-Identifier: Apache-2.0
import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.cli.main import main
from edgeprune.device.settings import Places
from tests.e2e.support import QUICK, Run, train_digits
from tests.sshd import Server, sshd


@pytest.fixture(scope="session")
def digits_pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network trained on digits."""
    folder = tmp_path_factory.mktemp("digits")
    path = folder / "digits.pt2"
    train_digits(path, folder)
    return path


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A recipe file that measures for a moment only."""
    path = tmp_path / "quick.toml"
    path.write_text(QUICK)
    return path


@pytest.fixture
def edgeprune(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main([*map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A user's folders of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Places(tmp_path / "config" / "edgeprune", tmp_path / "cache" / "edgeprune")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One with a user who has the system's own Python, and no rights but in the home folder."""
    with sshd() as running:
        yield running


@pytest.fixture(scope="module")
def mine() -> Iterator[Server]:
    """One that logs in as who runs the tests, for whom this very Python works."""
    with sshd(user=getpass.getuser()) as running:
        yield running
