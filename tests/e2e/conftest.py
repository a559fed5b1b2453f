# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tests.e2e.support import QUICK, train_digits


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
