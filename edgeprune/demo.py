# SPDX-License-Identifier: Apache-2.0
"""The demo: a small network is trained on scikit-learn's digits and taken to two devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.data import open_data
from edgeprune.finetune import finetune
from edgeprune.job import DataSource, Job, Source
from edgeprune.model import Event, capture, save
from edgeprune.pipeline import compress
from edgeprune.progress import Progress
from edgeprune.recipe import FinetuneOptions, PruneOptions, Recipe
from edgeprune.report.schema import RunReport
from edgeprune.target import find_target
from edgeprune.workspace import staged

__all__ = ["TARGETS", "DigitsNet", "run", "train"]

TARGETS = ("rpi4", "stm32h7")

_RECIPE = Recipe(
    prune=PruneOptions(ratio=0.5),
    finetune=FinetuneOptions(epochs=8, batch_size=64),
)


class DigitsNet(nn.Module):
    """A residual network of five layers for 1x8x8 digits, 0.12 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(1, 32)
        self.low = _Unit(32, 32)
        self.down = _Unit(32, 96, stride=2)
        self.high = _Unit(96, 96)
        self.head = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[N, 10]`` of images ``[N, 1, 8, 8]``."""
        x = self.stem(x)
        x = x + self.low(x)
        x = self.down(x)
        x = x + self.high(x)
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def run(out: Path, threads: int, progress: Progress, *, seed: int = 0) -> Iterator[RunReport]:
    """Train the network into ``out/digits.pt2``, then compress it for each of ``TARGETS``.

    Raises:
        OutputError: ``out`` can't be written.
    """
    model = out / "digits.pt2"
    progress.say("train a small network on scikit-learn's digits")
    train(model, threads, progress, seed=seed)
    for name in TARGETS:
        progress.say(f"\ncompress {model} for {name}")
        recipe = _RECIPE.model_copy(update={"seed": seed})
        job = Job(Source(model), find_target(name), recipe, DataSource("digits"), out, threads)
        yield compress(replace(job, overwrite=True), progress)


def train(path: Path, threads: int, progress: Progress, *, seed: int = 0) -> None:
    """Train the network with the fine-tuning stage itself, on labels alone, and save it."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    data = open_data("digits", seed=seed)
    raw, _ = capture(DigitsNet(), data.example(), event=Event("demo", {"seed": seed}))
    options = FinetuneOptions(epochs=15, batch_size=64, learning_rate=0.05)
    with staged(path) as folder:
        context = Context(find_target("host"), folder, data, None, seed, threads, progress)
        trained, _ = finetune(raw, options, context)
        save(trained, folder / "model.pt2")
        (folder / "model.pt2").replace(path)
