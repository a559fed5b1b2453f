# SPDX-License-Identifier: Apache-2.0
"""Recorded trees of /proc and /sys."""

from pathlib import Path


def plant(root: Path, files: dict[str, str | int]) -> Path:
    """Write small files under ``root``, which is given back."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n" if isinstance(text, int) else text)
    return root


def program(path: Path, answers: dict[str, str]) -> Path:
    """A program that answers its first argument; any other one fails."""
    cases = "".join(f"{word}) printf '%s' '{text}';;\n" for word, text in answers.items())
    path.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}*) exit 1;;\nesac\n')
    path.chmod(0o755)
    return path
