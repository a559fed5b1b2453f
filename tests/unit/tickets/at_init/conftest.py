# SPDX-License-Identifier: Apache-2.0
"""Captured once: networks that no test changes."""

import pytest
import torch

from edgeprune.data import Data
from edgeprune.model import Model
from tests.networks import DigitsCnn, TinyBert, TinyViT
from tests.unit.finetune.toy import FixedBatch, captured, data
from tests.unit.tickets.at_init.nets import model_of, vgg


@pytest.fixture(scope="session")
def images() -> Data:
    return data("images")


@pytest.fixture(scope="session")
def cnn() -> Model:
    return captured(DigitsCnn(4), torch.zeros(2, 1, 8, 8))


@pytest.fixture(scope="session")
def deep() -> Model:
    """Eight layers like VGG's, 108 544 weights."""
    return model_of(vgg([16, 16, "M", 32, 32, "M", 64, 64, 64]), torch.zeros(2, 1, 8, 8))


@pytest.fixture(scope="session")
def vit() -> Model:
    return model_of(TinyViT(width=16, depth=1), torch.zeros(2, 3, 32, 32))


@pytest.fixture(scope="session")
def bert() -> Model:
    return model_of(TinyBert(width=16), torch.zeros(2, 16, dtype=torch.int64))


@pytest.fixture(scope="session")
def fixed() -> Model:
    """Of a batch of four."""
    return captured(FixedBatch(), torch.zeros(4, 6))
