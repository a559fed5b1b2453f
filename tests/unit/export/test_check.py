# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from edgeprune.errors import CheckFailed
from edgeprune.export.check import LIMITS, check, compare, judge_integers
from edgeprune.export.counts import Counts
from edgeprune.export.feed import evaluation_batches
from edgeprune.recipe import NUMERICS
from tests.unit.export.lite import cnn, digits

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.standard_normal((16, 10)).astype("float32")
BATCHES = [(SCORES[:10],), (SCORES[10:],)]


def against(change, numerics="int8", model=lambda arrays: arrays):
    return compare(model, lambda arrays: change(*model(arrays)), BATCHES, LIMITS[numerics], "m")


def test_an_equal_artifact_has_no_error_and_no_ratio():
    figures = against(lambda x: (x,), "fp32")
    assert figures == {
        "samples": 16,
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
        parts = iter((noise[:10], noise[10:]))
        return lambda x: (x + 10 ** (-ratio / 20) * next(parts),)

    limit = LIMITS[numerics].sqnr_db
    assert against(noisy(limit + 0.1), numerics)["sqnr_db"] == pytest.approx(limit + 0.1, abs=0.01)
    with pytest.raises(CheckFailed, match=f"^m: {limit - 0.1:.1f} dB .* at least {limit:.0f} dB"):
        against(noisy(limit - 0.1), numerics)


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

    with pytest.raises(CheckFailed, match="2 values are NaN or infinite"):
        against(broken)


def test_infinities_of_the_model_itself_are_left_out():
    masked = lambda arrays: (np.where(arrays[0] < -1, -np.inf, arrays[0]),)  # noqa: E731
    assert against(lambda x: (x,), "fp32", model=masked)["max_abs_error"] == 0.0


def test_an_output_that_stands_still_fails():
    offset = lambda arrays: (arrays[0] + 30,)  # noqa: E731 - 30 dB though it does nothing
    with pytest.raises(CheckFailed, match="the same for all samples"):
        against(lambda x: (np.full_like(x, 30),), model=offset)


def test_a_small_output_is_not_hidden_by_a_large_one():
    both = lambda arrays: (arrays[0] * 1000, arrays[0])  # noqa: E731
    with pytest.raises(CheckFailed, match=r"^m, output 1: -?[0-9.]+ dB"):
        against(lambda big, small: (big, -small), model=both)


def test_integers_are_held_to_agreement():
    picks = lambda arrays: (arrays[0].argmax(1),)  # noqa: E731
    assert against(lambda k: (k,), model=picks)["sqnr_db"] is None
    with pytest.raises(CheckFailed, match="of its integers equal the model's; at least 90%"):
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
    with pytest.raises(CheckFailed, match=r"^model.tflite: -?[0-9.]+ dB"):
        check(
            lite(numerics).path,
            other,
            batches,
            inputs="evaluation data",
            name="model.tflite",
        )
