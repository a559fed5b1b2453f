# SPDX-License-Identifier: Apache-2.0
"""Running the agent as it runs on a device: as a program."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
LIMIT = 120.0
"""Seconds after which a test's agent counts as hung."""


def command(*words: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "edgeprune.profiler", *words]


def ask(
    *words: str | Path,
    code: int = 0,
    start: Sequence[str | Path] | None = None,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The agent's one line for ``words``; its exit code has to be ``code``.

    ``start`` is what it is started by instead of this Python and this tree.
    """
    done = subprocess.run(
        [*start, *words] if start else command(*words),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    lines = done.stdout.decode("ascii").splitlines()
    assert len(lines) == 1, (lines, done.stderr)
    assert done.returncode == code, (lines, done.stderr)
    answer: dict[str, Any] = json.loads(lines[0])
    assert answer["schema"] == 1
    return answer


def measure(*words: str | Path, **how: Any) -> dict[str, Any]:
    """The result of a task that works."""
    result: dict[str, Any] = ask(*words, **how)["result"]
    return result
