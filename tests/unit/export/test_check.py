# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import CheckFailed, ModelError
from edgeprune.export.check import LIMITS, check, compare, expect, judge_integers, worse
from edgeprune.export.closeness import parts
from edgeprune.export.counts import Counts
from edgeprune.export.feed import evaluation_batches
from edgeprune.model import Event, capture
from edgeprune.recipe import NUMERICS
from edgeprune.report.schema import Check, Closeness
from tests.unit.export.lite import cnn, digits

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.standard_normal((16, 10)).astype("float32")


def against(change, numerics="int8", model=lambda arrays: arrays, reference="model"):
    wanted = model((SCORES,))
    names = [f"output_{place}" for place in range(len(wanted))]
    models = {"model": change(*wanted), reference: wanted}
    figures = compare(models, change(*wanted), names, LIMITS[numerics], "m")
    return figures | {"closeness": [c for c in figures["closeness"] if c.reference == reference]}


def test_an_equal_artifact_has_no_error_and_no_ratio():
    figures = against(lambda x: (x,), "fp32")
    (close,) = figures.pop("closeness")
    assert (close.output, close.part, close.sqnr_db) == ("output_0", None, None)
    assert figures == {
        "max_abs_error": 0.0,
        "mean_abs_error": 0.0,
        "sqnr_db": None,
        "top1_agreement": 1.0,
    }


def test_figures_are_over_all_samples():
    figures = against(lambda x: (x + 0.01,))
    assert figures["max_abs_error"] == pytest.approx(0.01, rel=1e-4)
    assert figures["mean_abs_error"] == pytest.approx(0.01, rel=1e-4)
    assert figures["sqnr_db"] == pytest.approx(10 * np.log10(np.mean(SCORES**2) / 1e-4), abs=0.01)


@pytest.mark.parametrize("numerics", [n for n in NUMERICS if n != "fp32"])
def test_each_limit_is_kept_just_inside_and_fails_just_outside(numerics):
    signs = np.where(RANDOM.standard_normal(SCORES.shape) > 0, 1.0, -1.0)
    noise = signs * np.sqrt(np.mean(SCORES.astype("float64") ** 2))  # 0 dB

    def noisy(ratio):
        return lambda x: (x + 10 ** (-ratio / 20) * noise,)

    limits = {"model": LIMITS[numerics].sqnr_db, "float": LIMITS[numerics].float_db}
    for reference, limit in limits.items():
        (close,) = against(noisy(limit + 0.1), numerics, reference=reference)["closeness"]
        assert close.sqnr_db == pytest.approx(limit + 0.1, abs=0.01)
        words = f"^m: {limit - 0.1:.1f} dB .* against .*{reference}.* at least {limit:.0f} dB"
        with pytest.raises(CheckFailed, match=words):
            against(noisy(limit - 0.1), numerics, reference=reference)
    assert against(noisy(0), numerics, reference="dense")["sqnr_db"] is None


def test_fp32_is_held_to_the_largest_error_too():
    def one_wrong(x):
        y = x.copy()
        y[0, 0] += 0.02
        return (y,)

    with pytest.raises(CheckFailed, match=r"off by up to 0.00.* at most 0.001 is"):
        against(one_wrong, "fp32", model=lambda arrays: (arrays[0] * 1000 / 300,))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_fail(value):
    def broken(x):
        y = x.copy()
        y[3, 2] = value
        return (y,)

    with pytest.raises(CheckFailed, match=r"^m: 1 values are NaN or infinite"):
        against(broken)


def test_a_model_that_answers_nan_is_no_yardstick():
    class Logarithm(nn.Module):
        def forward(self, x):
            return x.log()

    model, _ = capture(Logarithm(), (torch.ones(2, 3),), event=Event("load"))
    batches = [(np.array([[1, 2, 3], [1, -2, 0], [1, 1, 1]], "float32"),)]
    with pytest.raises(ModelError, match="1 of 3 samples give NaN in output 'output'"):
        expect(model, batches, "evaluation data")
    with pytest.raises(ModelError, match="these inputs are made up: give --data"):
        expect(model, batches, "random")


def test_an_output_that_stands_still_fails():
    offset = lambda arrays: (arrays[0] + 30,)  # noqa: E731 - 30 dB though it does nothing
    with pytest.raises(CheckFailed, match="the same for all samples"):
        against(lambda x: (np.full_like(x, 30),), model=offset)


def test_a_small_output_is_not_hidden_by_a_large_one():
    both = lambda arrays: (arrays[0] * 1000, arrays[0])  # noqa: E731
    with pytest.raises(CheckFailed, match=r"^m, output 'output_1': -?[0-9.]+ dB"):
        against(lambda big, small: (big, -small), model=both)


def test_integers_are_held_to_agreement():
    picks = lambda arrays: (arrays[0].argmax(1),)  # noqa: E731
    assert against(lambda k: (k,), model=picks)["sqnr_db"] is None
    with pytest.raises(CheckFailed, match="of its integers equal those of its model; at least 90%"):
        against(lambda k: ((k + 1) % 10,), model=picks)


def test_other_shapes_and_counts_fail():
    with pytest.raises(CheckFailed, match="shape"):
        against(lambda x: (x[:, :5],))
    with pytest.raises(CheckFailed, match="2 outputs where its model has 1"):
        against(lambda x: (x, x))


def test_an_int8_model_in_float_is_refused():
    products = (("conv_1", "float"), ("conv_2", "float"), ("head", "int8"))
    with pytest.raises(CheckFailed, match=r"2 of 3 convolutions .* conv_1, conv_2 .* --numerics"):
        judge_integers(Counts({}, 1, 0, 2, products), "m")
    judge_integers(Counts({}, 2, 0, 1, products[1:]), "m")


@pytest.mark.parametrize("numerics", ["fp32", "int8", "int8-dynamic"])
def test_another_networks_artifact_fails(lite, numerics):
    other = cnn(numerics, seed=1)
    batches = evaluation_batches(digits(), 16)
    expected = expect(other, batches, "evaluation data")
    with pytest.raises(CheckFailed, match=r"^model.tflite: -?[0-9.]+ dB"):
        check(lite(numerics).path, other, expected, name="model.tflite")


BOXES = RANDOM.random((16, 4, 20)) * 640
TINY = RANDOM.random((16, 3, 20)) * 0.02
DETECTIONS = np.concatenate([BOXES, TINY], 1).astype("float32")


def test_slices_of_unlike_range_are_judged_by_themselves():
    boxes, scores = parts(DETECTIONS)
    assert (boxes.label, scores.label) == ("0 to 3 of axis 1", "4 to 6 of axis 1")
    last = parts(np.moveaxis(DETECTIONS, 1, 2))
    assert [part.label for part in last] == ["0 to 3 of axis 2", "4 to 6 of axis 2"]
    step = lambda x: (np.round(x / 2.5).astype("float32") * 2.5,)  # noqa: E731 - one int8 scale
    with pytest.raises(CheckFailed, match=r"^m, 4 to 6 of axis 1: 0.0 dB .*the float model"):
        against(step, model=lambda _: (DETECTIONS,), reference="float")
    boxes_only = lambda x: (np.concatenate([step(x[:, :4])[0], x[:, 4:]], 1),)  # noqa: E731
    close = against(boxes_only, model=lambda _: (DETECTIONS,), reference="float")["closeness"]
    assert [(c.part, c.sqnr_db is None) for c in close] == [
        (None, False),
        ("0 to 3 of axis 1", False),
        ("4 to 6 of axis 1", True),
    ]


def test_columns_of_one_range_are_judged_together():
    assert parts(SCORES) == ()
    logits = SCORES * np.linspace(1, 30, 10)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert probabilities.mean(0).min() < probabilities.mean(0).max() / 20
    assert parts(probabilities) == ()
    assert parts(SCORES[:, 0]) == ()
    dead = SCORES.copy()
    dead[:, 3] = 1e-9
    assert parts(dead) == ()


def checked(ratio, reference="float", output="output", part=None):
    close = Closeness(
        reference=reference, output=output, part=part, sqnr_db=ratio, max_abs_error=0.1
    )
    fields = {"max_abs_error": 0.1, "mean_abs_error": 0.1, "sqnr_db": 60, "top1_agreement": None}
    return Check(
        samples=1,
        inputs="random",
        int8_ops=1,
        float_ops=0,
        op_counts={},
        closeness=(close,),
        **fields,
    )


@pytest.mark.parametrize(
    ("one", "other", "numerics", "found"),
    [
        (42.0, 20.0, "int8", "model.tflite"),
        (20.0, 42.0, "int8", "model.onnx"),
        (28.0, 20.0, "int8", None),
        (None, 41.0, "int8", None),
        (None, 39.0, "int8", "model.tflite"),
        (140.0, 80.0, "fp32", "model.tflite"),
        (140.0, 110.0, "fp32", None),
        (None, None, "fp32", None),
    ],
)
def test_a_file_far_worse_than_its_sibling_is_found(one, other, numerics, found):
    reference = "model" if numerics == "fp32" else "float"
    checks = {"model.onnx": checked(one, reference), "model.tflite": checked(other, reference)}
    told = worse(checks, numerics)
    assert (told and told[0]) == found
    if told is not None:
        assert str(told[1]).startswith(f"{found}, output 'output': ")
        assert "of the same model, " in str(told[1])


def test_siblings_are_compared_output_by_output():
    one = checked(25.0, output="a")
    other = checked(80.0, output="b")
    assert worse({"model.onnx": one, "model.tflite": other}, "int8") is None
