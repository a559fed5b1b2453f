# SPDX-License-Identifier: Apache-2.0
"""Small data and models of the fine-tuning tests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.data import Data, open_data
from edgeprune.model import Event, Model, capture
from edgeprune.progress import Silent
from edgeprune.target import find_target
from tests.networks import DigitsCnn


def images() -> dict[str, Any]:
    """10 classes of noisy 8x8 patterns, 12 samples each."""
    random = np.random.default_rng(0)
    patterns = random.normal(size=(10, 1, 8, 8))
    labels = np.tile(np.arange(10), 12)
    x = patterns[labels] + 0.4 * random.normal(size=(120, 1, 8, 8))
    return {"x": x.astype(np.float32), "y": labels}


def unlabelled() -> dict[str, Any]:
    return {"x": images()["x"]}


def vectors() -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(size=(60, 6)).astype(np.float32)}


def tokens() -> dict[str, Any]:
    x = np.random.default_rng(2).integers(0, 100, size=(60, 16))
    return {"x": x, "y": x[:, 0] % 4}


class TwoOutputs(nn.Module):
    """No class axis: a map and a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Linear(6, width)
        self.map = nn.Linear(width, 12)
        self.value = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.body(x))
        return {"map": self.map(x).unflatten(1, (3, 4)), "value": self.value(x)}


class FixedBatch(nn.Module):
    """Can't be captured with another batch than four."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.reshape(4, 6)))


def data(name: str = "images") -> Data:
    return open_data(f"tests.unit.finetune.toy:{name}", seed=0)


def cnn(seed: int = 0, width: int = 4) -> Model:
    torch.manual_seed(seed)
    return captured(DigitsCnn(width), torch.zeros(2, 1, 8, 8))


def captured(module: nn.Module, *example: Tensor) -> Model:
    return capture(module, example, event=Event("load"))[0]


def context(folder: Path, **changes: Any) -> Context:
    return Context(target=find_target("host"), folder=folder, **changes)


class Told(Silent):
    """Progress that keeps what it is told."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)
