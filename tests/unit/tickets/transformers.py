# SPDX-License-Identifier: Apache-2.0
"""A tiny ViT and a tiny BERT with data that they can learn, captured once for all tests."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.context import Context
from edgeprune.data import open_data
from edgeprune.model import Model
from edgeprune.target import find_target
from tests.networks import TinyBert, TinyViT
from tests.unit.finetune.toy import captured


@cache
def vit() -> Model:
    torch.manual_seed(0)
    return captured(TinyViT(width=16, heads=4, depth=2, classes=3), torch.zeros(2, 3, 32, 32))


@cache
def bert() -> Model:
    torch.manual_seed(0)
    return captured(TinyBert(width=16), torch.zeros(2, 16, dtype=torch.long))


def pictures() -> dict[str, Any]:
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(3), 24)
    x = random.normal(size=(3, 3, 32, 32))[labels] + 0.3 * random.normal(size=(72, 3, 32, 32))
    return {"x": x.astype(np.float32), "y": labels}


def texts() -> dict[str, Any]:
    x = np.random.default_rng(2).integers(0, 100, size=(72, 16))
    return {"x": x, "y": x[:, 0] % 4}


def surroundings(kind: str, folder: Path) -> tuple[Model, Context]:
    """The model and a context with its data."""
    model, source = {"vit": (vit, "pictures"), "bert": (bert, "texts")}[kind]
    data = open_data(f"tests.unit.tickets.transformers:{source}", seed=0)
    return model(), Context(find_target("host"), folder, data)
