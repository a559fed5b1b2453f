# SPDX-License-Identifier: Apache-2.0
"""Tensor arenas of small networks in TensorFlow Lite Micro, each held against 2 % less.

    python bench/arena.py --environment FOLDER

makes tflite-micro's environment in FOLDER unless it is there, and writes ``bench/arena.md``. About
a minute. Weights are random: an arena depends on shapes and types alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from edgeprune.demo import DigitsNet
from edgeprune.device.tflm import Environment, examine, find, set_up
from edgeprune.device.tflm.reference import reference_outputs
from edgeprune.export.tflite import write_tflite
from edgeprune.measure.simulator import compare
from edgeprune.model import Event, Model, capture, recapture
from edgeprune.profiler.machine import describe
from edgeprune.profiler.runtime import open_session
from edgeprune.progress import Silent
from edgeprune.quantize.static import quantize_static
from tests.networks import TinyMobileNet, digits_cnn, resnet20

HERE = Path(__file__).parent
SAMPLES = 8
HEAD = """\
# Tensor arenas in TensorFlow Lite Micro

Bytes. *arena*: the smallest, to 16 bytes, in which the file loads and runs (found by bisection, a
fresh process a size). *reported*: what the interpreter's own recorder adds up. *activations* and
*structures* are its two ends; structures are smaller on a chip, whose pointers have 32 bits, and
the scratch buffers of a chip's own kernels (CMSIS-NN, ESP-NN) come on top. *fails at*: 2 % less.
*reference*: outputs of 8 random inputs against LiteRT's reference kernels; TensorFlow Lite Micro
rounds the sums of a fully connected layer twice and LiteRT once, so what lies at half a step may
come out one step apart.

| network | type | file | arena | reported | activations | structures | fails at | reference |
| --- | --- | --: | --: | --: | --: | --: | --: | --- |
"""


class Network(NamedTuple):
    """A network and the shape of a sample."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def networks() -> tuple[Network, ...]:
    """The rows of the table; the last one has depthwise convolutions."""
    return (
        Network("digits CNN of the tests", digits_cnn(), (1, 8, 8)),
        Network("digits network of the demo, dense", DigitsNet(), (1, 8, 8)),
        Network("ResNet-20", resnet20(), (3, 32, 32)),
        Network("MobileNetV2 in small, 32x32", TinyMobileNet(), (3, 32, 32)),
    )


def models(network: Network) -> Iterator[tuple[str, Model]]:
    """The network in float, and as static int8."""
    example = (torch.zeros(2, *network.shape),)
    model, _ = capture(network.module.eval(), example, event=Event("bench"))
    yield "fp32", model
    batches = ((torch.randn(16, *network.shape),) for _ in range(2))
    with Silent().bar("", 1) as bar:
        module = quantize_static(model, batches, float_adds=False, bar=bar).module
    yield "int8", recapture(model, module, Event("bench"), "int8")


def row(environment: Environment, name: str, numerics: str, path: Path) -> str:
    """One line of the table."""
    random = np.random.default_rng(0)
    arrays = {
        spec.name: random.standard_normal((SAMPLES, *spec.shape)).astype(np.float32)
        for spec in open_session(path).inputs
    }
    found = examine(environment, path, arrays)
    drift = compare(found.outputs, reference_outputs(path, arrays), found.steps)
    arena = found.arena
    sizes = (
        path.stat().st_size,
        arena.bytes,
        arena.reported,
        arena.head,
        arena.tail,
        arena.refused,
    )
    cells = [name, numerics, *(f"{size:,}" for size in sizes), str(drift)]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--environment", type=Path, required=True, help="tflite-micro's place")
    parser.add_argument("--out", type=Path, default=HERE / "arena.md")
    given = parser.parse_args()
    package = set_up(given.environment, Silent())
    environment = find(given.environment)
    assert environment is not None
    torch.manual_seed(0)
    text = HEAD
    with tempfile.TemporaryDirectory() as folder:
        for network in networks():
            for numerics, model in models(network):
                path = Path(folder) / "model.tflite"
                write_tflite(model, path, batch=1)
                text += row(environment, network.name, numerics, path)
    text += f"\n{datetime.now(UTC):%Y-%m-%d}; {package}, 64 bits, on {describe()}; seed 0.\n"
    given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
