# SPDX-License-Identifier: Apache-2.0
"""What a format can't say is refused by layer, operator and setting, before a converter starts."""

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.export.refusals import refuse
from edgeprune.model import Event, capture
from edgeprune.recipe import Format


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(2, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).mean((2, 3, 4)).cumprod(1)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("tflite", ("tflite: up: conv_transpose3d(stride=[2, 2, 2])", "--format onnx")),
        ("onnx", ("onnx: cumprod", "cumprod(dim=1)", "loop of products")),
    ],
)
def test_a_refusal_names_layer_setting_and_way_out(form: Format, said: tuple[str, ...]) -> None:
    model, _ = capture(Growing().eval(), (torch.randn(2, 2, 3, 3, 3),), event=Event("load"))
    with pytest.raises(InputError) as caught:
        refuse(model, form)
    for part in said:
        assert part in str(caught.value)


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


def test_complex_numbers_are_refused_for_tflite_alone() -> None:
    model, _ = capture(Spectrum(), (torch.randn(2, 11),), event=Event("load"))
    refuse(model, "onnx")
    with pytest.raises(InputError, match="fft_rfft can't be written: its complex numbers"):
        refuse(model, "tflite")


@pytest.mark.parametrize("padding", [None, 3])
def test_bags_of_equal_size_have_a_form_without_padding(padding: int | None) -> None:
    network = nn.EmbeddingBag(9, 4, mode="max", padding_idx=padding)
    model, _ = capture(network, (torch.randint(0, 9, (2, 5)),), event=Event("load"))
    if padding is None:
        refuse(model, "tflite")
        return
    with pytest.raises(InputError, match="no form of bags of unlike size"):
        refuse(model, "tflite")


def test_what_has_a_form_is_let_through() -> None:
    model, _ = capture(nn.Linear(3, 2), (torch.randn(2, 3),), event=Event("load"))
    refuse(model, "onnx")
    refuse(model, "tflite")
