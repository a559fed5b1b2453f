# SPDX-License-Identifier: Apache-2.0
"""Small models, samples and targets of the quantization and ONNX tests."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.data import Batch, Data
from edgeprune.model import Event, Model, capture
from edgeprune.quantize import quantize
from edgeprune.quantize.noise import sqnr
from edgeprune.recipe import Numerics, QuantizeOptions
from edgeprune.report.schema import StageReport
from edgeprune.target import Target
from tests.networks import TinyBert, TinyMobileNet, TinyViT, digits_cnn, tiny_resnet

NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "digits": (digits_cnn, (1, 8, 8)),
    "resnet": (tiny_resnet, (3, 16, 16)),
    "mobilenet": (TinyMobileNet, (3, 16, 16)),
    "vit": (TinyViT, (3, 32, 32)),
    "bert": (TinyBert, (16,)),
}
ALL: tuple[Numerics, ...] = ("int8", "int8-dynamic", "fp16", "int8-weights", "fp32")


class Samples:
    """Stands for data: gives the same samples each time, and counts what was asked for."""

    name = "toy"
    fingerprint = "0" * 64

    def __init__(self, *inputs: Tensor) -> None:
        self.inputs = inputs
        self.asked: list[tuple[int, int]] = []

    def calibration(self, size: int, count: int) -> Iterator[Batch]:
        self.asked.append((size, count))
        parts = [t[:count].split(size) for t in self.inputs]
        for batch in zip(*parts, strict=True):
            if len(batch[0]):
                yield Batch(tuple(batch), None)


def target(
    onnx: tuple[Numerics, ...] = ALL,
    tflite: tuple[Numerics, ...] | None = None,
    attention: Numerics | None = None,
) -> Target:
    def runtime(name: str, numerics: tuple[Numerics, ...] | None) -> dict[str, Any] | None:
        if numerics is None:
            return None
        made = {"name": name, "version": "1.0", "numerics": numerics}
        return made | {"attention_numerics": attention}

    return Target.model_validate(
        {
            "schema_version": 1,
            "name": "board",
            "device": {"title": "t", "soc": "s", "cpu": "c", "cores": 1, "isa": [], "ram": 1},
            "reach": {"how": "none"},
            "onnx": runtime("onnxruntime", onnx),
            "tflite": runtime("litert", tflite),
        }
    )


def context(samples: Samples | None, board: Target | None = None, **more: Any) -> Context:
    return Context(board or target(), Path("unused"), cast("Data | None", samples), **more)


def captured(module: nn.Module, x: Tensor) -> Model:
    model, notes = capture(module, (x[:2],), event=Event("load"))
    assert not notes
    return model


@cache
def trained(name: str) -> tuple[Model, Tensor]:
    """A network after a few steps on noisy patterns, and 32 samples; the same in every test."""
    torch.manual_seed(0)
    factory, shape = NETWORKS[name]
    module, tokens = factory(), len(shape) == 1
    patterns = torch.randn(4, *shape)

    def samples(count: int) -> tuple[Tensor, Tensor]:
        if tokens:
            ids = torch.randint(0, 100, (count, *shape))
            return ids, ids[:, 0] % 4
        labels = torch.randint(0, 4, (count,))
        return patterns[labels] + 0.7 * torch.randn(count, *shape), labels

    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        x, y = samples(16)
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    x = samples(32)[0]
    return captured(module.eval(), x), x


@cache
def reduced(name: str, numerics: Numerics) -> tuple[Model, StageReport]:
    """The trained network in ``numerics``."""
    model, x = trained(name)
    return quantize(model, QuantizeOptions(numerics=numerics), context(Samples(x)))


def outputs(model: Model, *inputs: Tensor) -> Tensor:
    with torch.no_grad():
        result = model.module()(*inputs)
    return result if isinstance(result, Tensor) else result[0]


def noise_db(reference: Tensor, other: Tensor) -> float:
    """SQNR; equal tensors count as 300 dB."""
    found = sqnr(reference, other)
    return 300.0 if found is None else found


def static(module: nn.Module, x: Tensor) -> tuple[Model, Model, StageReport]:
    """A module as captured and in static int8."""
    model = captured(module.eval(), x)
    result, report = quantize(model, QuantizeOptions(numerics="int8"), context(Samples(x)))
    return model, result, report
