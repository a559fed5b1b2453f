# SPDX-License-Identifier: Apache-2.0
"""A repository to check in."""

from pathlib import Path

import pytest

from edgeprune.cli.main import main
from tests.unit.check import made
from tests.unit.check.made import commit, git


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    git("init", "-q")
    return tmp_path


@pytest.fixture
def results(repo: Path) -> Path:
    """A repository with a result of ``compress`` and an accepted baseline."""
    (repo / "edgeprune.toml").write_text(made.PROJECT)
    made.result(repo / "out/net/rpi4")
    assert main(["baseline", "accept", "--reason", "first"]) == 0
    commit("first")
    return repo
