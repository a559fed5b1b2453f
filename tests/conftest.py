# SPDX-License-Identifier: Apache-2.0
"""The switches of the tests: ``--regen-golden`` writes the golden files anew, ``--fuzz-seed`` takes
the same broken files again."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A terminal of 80 columns, which pytest-xdist pretends in its workers, folds what a test looks for.
os.environ.pop("COLUMNS", None)

GOLDEN = Path(__file__).parent / "golden"

# A loaded machine is no failure, and the same commit gives the same verdict each time.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen-golden", action="store_true", help="rewrite tests/golden")
    parser.addoption(
        "--fuzz-seed", type=int, help="of the fuzz tests; without it another each time"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with ``tests/golden/<name>``: ``golden("report/full.md", text)``."""
    regenerate = bool(request.config.getoption("--regen-golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if regenerate:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} isn't there; --regen-golden writes it", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), name, "now", lineterm=""
            )
            pytest.fail("\n".join(lines), pytrace=False)

    return compare
