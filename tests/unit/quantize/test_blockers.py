# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.errors import CheckFailed
from edgeprune.export.check import judge_integers
from edgeprune.export.counts import op_counts
from edgeprune.export.onnx import write_onnx
from edgeprune.export.tflite import write_tflite
from edgeprune.quantize import static_blockers
from tests.unit.quantize.toy import captured, static, trained

BOTH = ("onnx", "tflite")


class Recurrent(nn.Module):
    def __init__(self, kind: Any, heads: int = 1, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(6, 8, batch_first=True, **options)
        self.heads = nn.Sequential(*[nn.LazyLinear(8) for _ in range(heads)])
        self(torch.zeros(1, 2, 6))

    def forward(self, x: Tensor) -> Any:
        return self.heads(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize(
    ("network", "blocked"),
    [
        (Recurrent(nn.GRU), {"tflite"}),
        (Recurrent(nn.LSTM, num_layers=2), {"onnx", "tflite"}),
        (Recurrent(nn.LSTM, bidirectional=True), {"tflite"}),
        (Recurrent(nn.RNN), {"onnx", "tflite"}),
        (Recurrent(nn.GRU, heads=8), set()),
    ],
    ids=["gru", "lstm of two layers", "lstm both ways", "rnn", "gru before many layers"],
)
def test_recurrent_networks_are_blocked_where_most_of_the_file_is_float(
    network: nn.Module, blocked: set[str]
) -> None:
    found = static_blockers(captured(network.eval(), torch.randn(4, 5, 6)), BOTH)
    assert set(found) == blocked
    assert all("would compute in float" in reason for reason in found.values())


def test_what_is_blocked_is_what_the_check_of_the_file_refuses(tmp_path: Path) -> None:
    model, result, _ = static(Recurrent(nn.GRU), torch.randn(16, 5, 6))
    assert list(static_blockers(model, BOTH)) == ["tflite"]
    write_onnx(result, tmp_path / "m.onnx", opset=20, batch="dynamic")
    write_tflite(result, tmp_path / "m.tflite", batch=1)
    judge_integers(op_counts(tmp_path / "m.onnx"), "m.onnx")
    with pytest.raises(CheckFailed, match="compute in float"):
        judge_integers(op_counts(tmp_path / "m.tflite"), "m.tflite")


@pytest.mark.parametrize("name", ["mobilenet", "vit", "bert"])
def test_other_networks_are_not_blocked(name: str) -> None:
    assert static_blockers(trained(name)[0], BOTH) == {}


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv3d(4, 2, 1)), (4, 2, 5, 5, 5)),
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 4, 2, groups=4)), (4, 2, 5, 5)),
    ],
    ids=["3-D", "a transposed convolution in groups"],
)
def test_convolutions_that_litert_runs_in_float_block_its_file(
    network: nn.Module, shape: tuple[int, ...]
) -> None:
    assert set(static_blockers(captured(network.eval(), torch.randn(shape)), BOTH)) == {"tflite"}


class Folding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.fold(F.unfold(self.layer(x[:, :2]), 2, stride=2), (6, 6), 2, stride=2)
        return torch.baddbmm(x.flatten(2)[..., :4], x.flatten(2), x.flatten(2).mT)


def test_sums_of_windows_and_products_that_add_count_as_float() -> None:
    found = static_blockers(captured(Folding(), torch.randn(4, 2, 6, 6)), BOTH)
    assert set(found) == set(BOTH)
    assert "(col2im, baddbmm)" in found["onnx"]


class WritesToView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, 0].mul_(3)
        return y


def test_what_cannot_be_prepared_is_blocked_everywhere() -> None:
    found = static_blockers(captured(WritesToView(), torch.randn(4, 3)), BOTH)
    assert set(found) == set(BOTH)
    assert "writes to a view" in found["onnx"]
