# SPDX-License-Identifier: Apache-2.0
"""Programs of this machine that are asked something: what they print, and what of it is told."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ask", "last_line"]


def ask(
    words: Sequence[str], *, timeout: float, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program without input; its output and errors as text, whatever bytes they have.

    Args:
        words: The program and its arguments.
        timeout: Seconds.
        folder: Where to run it; None: here.

    Raises:
        FileNotFoundError: There is no such program.
        subprocess.TimeoutExpired: It took longer, and was stopped.
    """
    return subprocess.run(
        words,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )


def last_line(said: str) -> str:
    """The last line of what a program said, which tells most of a failure."""
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "it says nothing"
