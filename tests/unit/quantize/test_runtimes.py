# SPDX-License-Identifier: Apache-2.0
"""Static int8 in both runtimes, each output against the float model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.export.counts import op_counts
from edgeprune.export.feed import artifact_runner
from edgeprune.export.onnx import write_onnx
from edgeprune.export.tflite import write_tflite
from edgeprune.model import runner
from tests.unit.quantize.toy import noise_db, static

Ratios = dict[str, float]


class Network(nn.Module):
    """A convolution, then results, each named by its operator."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.build()

    def build(self) -> None:
        """More layers."""

    def results(self, y: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.results(self.conv(x)).values())


def ratios(folder: Path, network: Network) -> tuple[Ratios, Ratios, Any]:
    """Signal to noise of each result against float, in onnxruntime and LiteRT; the report."""
    torch.manual_seed(1)
    x = torch.randn(16, 3, 8, 8)
    model, result, report = static(network, x)
    write_onnx(result, folder / "m.onnx", opset=20, batch="dynamic")
    write_tflite(result, folder / "m.tflite", batch=1)
    with torch.no_grad():
        names = list(network.results(network.conv(x)))
    wanted = runner(model)((x.numpy(),))
    found = []
    for file in ("m.onnx", "m.tflite"):
        got = artifact_runner(folder / file, result)((x.numpy(),))
        pairs = zip(names, wanted, got, strict=True)
        found.append({name: _ratio(w, g) for name, w, g in pairs})
    return found[0], found[1], report


def _ratio(wanted: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> float:
    return noise_db(torch.from_numpy(wanted), torch.from_numpy(got))


class Constants(Network):
    """Constants and operands far outside the range of the other operand."""

    def build(self) -> None:
        self.token = nn.Parameter(torch.full((1, 1, 1, 1), 0.02))

    def results(self, y: Tensor) -> dict[str, Tensor]:
        return {
            "where": torch.where(y > 0.05, y, torch.full_like(y, -4.0)),
            "where, a scalar": torch.where(y > 0.05, y, 4.0),
            "minimum": torch.minimum(y, torch.full_like(y, -4.0)),
            "maximum": torch.maximum(y, torch.tensor(4.0)),
            "masked_fill": y.masked_fill(y > 0.05, -4.0),
            "clamp": y.clamp(3.0, 4.0),
            "clamp, tensors": torch.clamp(y, torch.tensor(3.0), torch.tensor(4.0)),
            "threshold": F.threshold(y, 0.1, -4.0),
            "slice_scatter": torch.slice_scatter(y, torch.full_like(y[:, :2], -4.0), 1, 0, 2),
            "cat": torch.cat([y, torch.full_like(y, 4.0)], 1),
            "cat, a token": torch.cat([self.token.expand(y.shape[0], -1, 8, 8), y], 1),
            "cat, float": torch.cat([y.exp(), y], 1),
            "stack": torch.stack([y, y * 50], 1),
            "div": y / (y.abs() + 1),
            "amax": y.amax((2, 3)),
            "roll": y.roll(1, 3),
            "index": y[:, [0, 2, 1]],
            "tril": y.tril(),
        }


def test_no_constant_saturates_in_either_runtime(tmp_path: Path) -> None:
    onnx, tflite, report = ratios(tmp_path, Constants())
    assert min(onnx.values()) > 20, onnx
    assert {n: db for n, db in tflite.items() if db < min(onnx[n] - 4, 40)} == {}
    assert report.details["float_ops"]["where"] == 2


class FixedScales(Network):
    """What follows an operator whose scale the runtimes prescribe."""

    def results(self, y: Tensor) -> dict[str, Tensor]:
        s = y.sigmoid()
        return {
            "mean": s[:, :1].mean(1, keepdim=True),
            "mean, squeezed": s.flatten(2)[:, :1].squeeze(1).unsqueeze(1).mean(1),
            "sum": s[:, :1].sum(1),
            "amax": y.tanh()[:, :1].amax(1),
            "average of one": F.avg_pool2d(s, 1),
            "adaptive average of one": F.adaptive_avg_pool2d(s, 8),
            "max_pool": F.max_pool2d(s, 2),
            "pad": F.pad(s, (1, 1, 1, 1)),
            "nearest": F.interpolate(s, scale_factor=2),
            "average": F.avg_pool2d(s, 2),
            "stack": torch.stack([s, y.tanh()], 1),
            "transpose": y.softmax(1).transpose(1, 2)[:, ::2],
        }


def test_what_follows_a_fixed_scale_converts(tmp_path: Path) -> None:
    onnx, tflite, report = ratios(tmp_path, FixedScales())
    assert min(onnx.values()) > 35, onnx
    assert {n: db for n, db in tflite.items() if db < min(onnx[n] - 4, 40)} == {}
    assert not report.details["float_ops"]


class Averages(Network):
    def results(self, y: Tensor) -> dict[str, Tensor]:
        y = y.relu() * y.relu()  # peaks
        return {
            "average": F.avg_pool2d(y, 2),
            "average, in a row": F.avg_pool1d(y.flatten(2), 4),
            "adaptive average": F.adaptive_avg_pool2d(y, 4),
            "bilinear": F.interpolate(y, scale_factor=2, mode="bilinear"),
            "whole": F.avg_pool2d(y, 8),
            "adaptive, whole": F.adaptive_avg_pool2d(y, 1),
        }


def test_peaks_survive_an_average(tmp_path: Path) -> None:
    onnx, tflite, _ = ratios(tmp_path, Averages())
    assert min(onnx.values()) > 29, onnx
    assert min(onnx["whole"], onnx["adaptive, whole"]) > 40
    assert {n: db for n, db in tflite.items() if db < min(onnx[n] - 2, 40)} == {}


class Unlike(Network):
    """Values of very unlike range that meet in one tensor."""

    def build(self) -> None:
        self.mix = nn.Conv2d(16, 4, 1)

    def results(self, y: Tensor) -> dict[str, Tensor]:
        s = y.sigmoid()
        joined = torch.cat([y * 500, s], 1)
        stacked = torch.stack([y * 500, s], 1)
        return {
            "boxes": joined[:, :8],
            "scores": joined[:, 8:],
            "stacked scores": stacked[:, 1],
            "scores, mixed": self.mix(torch.cat([y, s], 1)),
            "padded": F.pad(y, (1, 1, 1, 1), value=-1e4)[..., 1:-1, 1:-1],
            "padded scores": F.pad(s, (1, 1, 1, 1), value=2.0),
            "masked softmax": y.flatten(2).masked_fill(torch.arange(64) > 9, -1e9).softmax(-1),
            "long softmax": y.flatten(1).softmax(-1),
        }


def test_values_of_unlike_range_keep_their_signal(tmp_path: Path) -> None:
    onnx, tflite, report = ratios(tmp_path, Unlike())
    assert min(onnx.values()) > 30 and min(tflite.values()) > 30, (onnx, tflite)
    assert report.details["float_ops"]["softmax"] >= 1


class Bent(Network):
    def build(self) -> None:
        self.one, self.each = nn.PReLU(), nn.PReLU(8)
        self.out = nn.Conv2d(8, 4, 1)
        nn.init.uniform_(self.each.weight, -0.2, 1.5)

    def results(self, y: Tensor) -> dict[str, Tensor]:
        return {
            "one slope": self.out(self.one(y)),
            "a slope a channel": self.each(y).mean((2, 3)),
            "of vectors": self.each(y.mean((2, 3))),
        }


def test_prelu_is_one_int8_operator_where_the_runtime_has_it(tmp_path: Path) -> None:
    onnx, tflite, _ = ratios(tmp_path, Bent())
    assert min(onnx.values()) > 30 and min(tflite.values()) > 30, (onnx, tflite)
    counts = op_counts(tmp_path / "m.tflite")
    assert counts.kinds["PRELU"] == 3 and counts.floating == 0
