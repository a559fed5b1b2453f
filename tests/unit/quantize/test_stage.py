# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.model import Event, capture
from edgeprune.progress import Bar
from edgeprune.quantize import quantize
from edgeprune.recipe import NUMERICS, Numerics, QuantizeOptions
from tests.networks import DigitsCnn
from tests.unit.quantize.toy import (
    Samples,
    captured,
    context,
    noise_db,
    outputs,
    reduced,
    target,
    trained,
)


class Heard:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int]] = []
        self.steps = 0

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        self.bars.append((title, total))
        yield self

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.steps += steps

    def say(self, text: str) -> None: ...


def test_calibration_uses_the_samples_asked_for_and_shows_progress() -> None:
    model, x = trained("digits")
    samples, heard = Samples(x), Heard()
    options = QuantizeOptions(numerics="int8", samples=20)
    result, report = quantize(model, options, context(samples, progress=heard))
    assert samples.asked == [(16, 20)]
    assert heard.bars == [("calibrate", 2)]
    assert heard.steps == 2
    event = result.history[-1]
    assert event.stage == "quantize"
    assert event.facts == {"numerics": "int8", "samples": 20, "data": samples.fingerprint}
    figure = report.figures["sqnr"]
    assert figure.origin.kind == "measured" and figure.origin.runs == 16 and figure.value > 25


@pytest.mark.parametrize("numerics", NUMERICS)
def test_the_input_is_left_alone_and_equal_runs_give_equal_models(numerics: Numerics) -> None:
    model, x = trained("digits")
    before = model.fingerprint()
    options = QuantizeOptions(numerics=numerics)
    first, report = quantize(model, options, context(Samples(x)))
    again, _ = quantize(model, options, context(Samples(x)))
    assert model.fingerprint() == before
    assert first.fingerprint() == again.fingerprint()
    assert first.numerics == numerics
    assert report.notes[0].startswith(f"{numerics}: as asked")
    assert report.model_dump_json()


def test_the_layer_that_lost_most_is_named() -> None:
    torch.manual_seed(0)
    module, x = DigitsCnn().eval(), torch.randn(32, 1, 8, 8)
    with torch.no_grad():
        module.conv2.weight[:, 0, 0, 0] *= 300  # one large weight a channel coarsens its grid
    for numerics in ("int8", "int8-weights"):
        options = QuantizeOptions(numerics=numerics)
        _, report = quantize(captured(module, x), options, context(Samples(x)))
        rows = report.details["layers"]
        assert rows[0]["layer"] == "conv2"
        assert {row["layer"] for row in rows} == {"conv1", "conv2", "conv3", "head"}
        assert any(note.startswith("conv2 loses most") for note in report.notes)
        own = [row["own_db"] for row in rows]
        assert own == sorted(own)


def test_fp32_keeps_the_program() -> None:
    model, _ = trained("digits")
    result, report = quantize(model, QuantizeOptions(numerics="fp32"), context(None))
    assert result.program is model.program
    assert report.details == {"numerics": "fp32", "reason": "as asked"}


def test_without_data_static_int8_gives_way_and_the_noise_is_absent() -> None:
    result, report = quantize(trained("digits")[0], QuantizeOptions(), context(None))
    assert result.numerics == "int8-dynamic"
    assert "calibration data" in report.notes[0]
    assert "no data: what each layer lost was not measured" in report.notes
    assert not report.figures and "layers" not in report.details
    with pytest.raises(InputError, match="give --data"):
        quantize(trained("digits")[0], QuantizeOptions(numerics="int8"), context(None))


def test_a_quantized_model_is_refused() -> None:
    model, _ = reduced("digits", "int8")
    with pytest.raises(InputError, match="in int8 already"):
        quantize(model, QuantizeOptions(), context(None))


def test_data_without_samples_is_refused() -> None:
    model, x = trained("digits")
    with pytest.raises(InputError, match="no calibration samples"):
        quantize(model, QuantizeOptions(numerics="int8"), context(Samples(x[:0])))


class FixedBatch(nn.Module):
    """Can be captured with a batch of three alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.head(x.reshape(3, 4))


@pytest.mark.parametrize("numerics", ["int8", "int8-weights"])
def test_a_fixed_batch_is_kept_and_filled_up(numerics: Numerics) -> None:
    model, _ = capture(FixedBatch().eval(), (torch.zeros(3, 1, 8, 8),), event=Event("load"))
    assert not model.dynamic_batch
    x = torch.randn(8, 1, 8, 8)
    samples = Samples(x)
    result, _ = quantize(model, QuantizeOptions(numerics=numerics), context(samples))
    assert samples.asked[0][0] == 3
    assert result.inputs == model.inputs
    assert noise_db(outputs(model, x[:3]), outputs(result, x[:3])) > 25
    if numerics == "int8":
        assert result.history[-1].facts["samples"] == 9


def test_the_target_decides_in_auto() -> None:
    model, x = trained("vit")
    board = target(attention="int8-dynamic")
    result, report = quantize(model, QuantizeOptions(), context(Samples(x), board))
    assert result.numerics == "int8-dynamic"
    assert "board prefers for models with attention" in report.notes[0]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model, x = trained("digits")
    for numerics in ("int8", "fp16"):
        quantize(model, QuantizeOptions(numerics=numerics), context(Samples(x)))
    assert capfd.readouterr() == ("", "")
