# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: a trained network, quick options, and the command itself."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from edgeprune.context import Context
from edgeprune.data import open_data
from edgeprune.finetune import finetune
from edgeprune.model import Event, capture, save
from edgeprune.recipe import FinetuneOptions
from edgeprune.target import find_target
from tests.networks import digits_cnn

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
"""A command: its exit code, standard output and standard error."""

QUICK = """
[profile]
blocks = 2
max_blocks = 2
block_seconds = 0.02
min_runs = 3
"""
"""A recipe that measures for a moment only."""

ARTIFACTS = ("model.onnx", "model.tflite", "model.pt2")


def train_digits(path: Path, folder: Path, epochs: int = 6) -> None:
    """Train ``digits_cnn`` with the fine-tuning stage, in seconds, and save it as ``.pt2``."""
    torch.manual_seed(0)
    data = open_data("digits", seed=0)
    raw, _ = capture(digits_cnn(), data.example(), event=Event("test"))
    options = FinetuneOptions(epochs=epochs, batch_size=64, learning_rate=0.05)
    trained, _ = finetune(raw, options, Context(find_target("host"), folder, data))
    save(trained, path)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgeprune", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def begun(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """The command in a process of its own that is under way; ``stderr`` is for the caller."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def hashes(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ARTIFACTS
        if (folder / name).exists()
    }


def tree(folder: Path) -> list[str]:
    """Every file and folder below ``folder``."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
