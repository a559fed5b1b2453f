# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import ConfigError, InputError
from edgeprune.quantize import candidates, decide
from edgeprune.quantize.choose import has_attention
from edgeprune.recipe import Numerics, QuantizeOptions
from tests.unit.quantize.toy import captured, target, trained

AUTO = QuantizeOptions()


def test_auto_takes_what_the_first_runtime_prefers() -> None:
    choice = decide(trained("digits")[0], AUTO, target(tflite=("int8", "fp32")))
    assert choice.numerics == "int8"
    assert "prefers for models without attention" in choice.reason


def test_auto_heeds_attention() -> None:
    board = target(attention="int8-dynamic")
    assert decide(trained("vit")[0], AUTO, board).numerics == "int8-dynamic"
    assert decide(trained("digits")[0], AUTO, board).numerics == "int8"


def test_auto_takes_only_what_every_runtime_accepts() -> None:
    board = target(onnx=("int8-dynamic", "fp16", "int8"), tflite=("int8", "fp16"))
    choice = decide(trained("digits")[0], AUTO, board)
    assert choice.numerics == "int8"  # the second runtime's preference
    assert "not every runtime of board takes it" in choice.reason
    only = decide(trained("digits")[0], AUTO, board, formats=("onnx",))
    assert only.numerics == "int8-dynamic"


def test_nothing_in_common_names_the_runtimes() -> None:
    board = target(onnx=("fp16",), tflite=("int8",))
    with pytest.raises(ConfigError, match=r"onnxruntime \(onnx\) accepts fp16; litert .* int8"):
        decide(trained("digits")[0], AUTO, board)


def test_a_wrong_wish_names_target_runtime_and_what_it_takes() -> None:
    board = target(tflite=("int8", "fp32"))
    wish = QuantizeOptions(numerics="fp16")
    with pytest.raises(InputError, match=r"fp16: target board runs tflite with litert 1\.0, which"):
        decide(trained("digits")[0], wish, board)


def test_without_data_auto_falls_back() -> None:
    choice = decide(trained("digits")[0], AUTO, target(), calibrated=False)
    assert choice.numerics == "int8-dynamic"
    assert "needs calibration data" in choice.reason


@pytest.mark.parametrize(("numerics", "error"), [("int8", InputError), ("auto", ConfigError)])
def test_without_data_static_int8_is_refused(numerics: Numerics, error: type[Exception]) -> None:
    board = target(onnx=("int8",))
    with pytest.raises(error, match="calibration data"):
        wish = QuantizeOptions(numerics=numerics)
        decide(trained("digits")[0], wish, board, calibrated=False)


class Recurrent(nn.Module):
    """In int8 its TFLite file would be mostly float."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def test_auto_passes_over_what_the_checks_would_refuse() -> None:
    model = captured(Recurrent().eval(), torch.randn(4, 5, 6))
    found = candidates(model, AUTO, target(tflite=("int8", "fp16", "fp32")))
    assert [choice.numerics for choice in found] == ["fp16", "fp32"]
    assert found[0].reason.startswith("not int8: tflite: most of its")
    assert decide(model, AUTO, target(), formats=("onnx",)).numerics == "int8"
    with pytest.raises(ConfigError, match=r"board: tflite: most of its .* another --target"):
        decide(model, AUTO, target(tflite=("int8",)), formats=("tflite",))


def test_int8_that_was_asked_for_is_refused_where_no_file_can_be_right() -> None:
    model, wish = (
        captured(Recurrent().eval(), torch.randn(4, 5, 6)),
        QuantizeOptions(numerics="int8"),
    )
    assert "though not for tflite" in decide(model, wish, target(tflite=("int8",))).reason
    with pytest.raises(InputError, match=r"numerics int8: tflite: .*; choose --numerics fp32"):
        decide(model, wish, target(tflite=("int8", "fp32")), formats=("tflite",))


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        scores = (x @ x.transpose(1, 2)) / 2.0
        return torch.softmax(scores.masked_fill(scores > 1e9, -1e9), -1) @ x


class Classifier(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(torch.relu(x), -1)


def test_attention_written_out_is_found() -> None:
    x = torch.randn(2, 4, 6)
    assert has_attention(captured(Attention(), x).program.graph)
    assert not has_attention(captured(Classifier(), x).program.graph)
    assert has_attention(trained("bert")[0].program.graph)
