# SPDX-License-Identifier: Apache-2.0
"""Small networks captured, quantized and written as TFLite, each once a session."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.data import open_data
from edgeprune.export.tflite import write_tflite
from edgeprune.model import Event, Model, capture, recapture
from edgeprune.progress import Silent
from edgeprune.quantize.static import quantize_static
from edgeprune.quantize.weights import round_weights
from edgeprune.recipe import Numerics
from edgeprune.target import Device, Reach, Runtime, Target
from tests.networks import TinyBert, digits_cnn

Arrays = tuple[np.ndarray[Any, Any], ...]


@cache
def digits() -> Any:
    return open_data("digits", seed=0)


@cache
def cnn(numerics: Numerics = "fp32", seed: int = 0) -> Model:
    """The digits network with batch norms that do something."""
    torch.manual_seed(seed)
    network = digits_cnn()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return _reduced(network, tuple(digits().example()), numerics)


@cache
def bert(numerics: Numerics = "fp32") -> Model:
    torch.manual_seed(0)
    return _reduced(TinyBert(), (torch.randint(0, 100, (2, 16)),), numerics)


def _reduced(network: nn.Module, example: tuple[torch.Tensor, ...], numerics: Numerics) -> Model:
    model, _ = capture(network.eval(), example, event=Event("load"))
    if numerics == "fp32":
        return model
    if numerics == "int8":
        batches = (batch.inputs for batch in digits().calibration(32, 64))
        with Silent().bar("", 1) as bar:
            module = quantize_static(model, batches, float_adds=False, bar=bar).module
    else:
        module = model.module()
        round_weights(module, numerics)
    return recapture(model, module, Event("quantize"), numerics)


@dataclass(frozen=True)
class Written:
    model: Model
    path: Path
    notes: tuple[str, ...]


def written(folder: Path, model: Model, **options: Any) -> Written:
    path = folder / "model.tflite"
    return Written(model, path, write_tflite(model, path, batch=1, **options))


def target(lite: str = "ai-edge-litert") -> Target:
    every: Any = ("int8", "int8-dynamic", "int8-weights", "fp16", "fp32")
    return Target(
        schema_version=1,
        name="test",
        device=Device(title="t", soc="s", cpu="c", cores=1, isa=(), ram=2**30),
        reach=Reach(how="none"),
        onnx=Runtime(name="onnxruntime", version="1.31.1", numerics=every),
        tflite=Runtime(name=lite, version="1", numerics=every),
    )
