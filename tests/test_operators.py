# SPDX-License-Identifier: Apache-2.0
"""The operator table: its most telling rows anew, and the page as it is committed."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[1] / "bench"

TELLING = (
    ("interpolate(nearest) 11x13 to 5x6", "tflite", "fp32"),
    ("interpolate(nearest) 1.5x", "tflite", "int8"),
    ("interpolate(bilinear) 1.5x, half pixels", "tflite", "fp32"),
    ("interpolate(bicubic) 11x13 to 7x5, antialias", "onnx", "fp32"),
    ("avg_pool2d k3 s2 p1, divisor 5", "onnx", "fp16"),
    ("conv_transpose2d k3 s2 p1 op1", "tflite", "int8"),
    ("conv_transpose2d k5 s2 p2 op1", "tflite", "fp32"),
    ("conv_transpose2d k3 s2 p1, 2 groups", "tflite", "fp16"),
    ("pixel_unshuffle 2", "onnx", "fp32"),
    ("rsub", "tflite", "fp32"),
    ("topk 3 of channels", "tflite", "fp32"),
    ("tile", "tflite", "fp32"),
    ("interpolate(bicubic) 11x13 to 5x6, half pixels", "onnx", "int8"),
    ("avg_pool2d k2 s2, ceil", "onnx", "int8"),
    ("celu", "onnx", "fp16"),
    ("index_add", "onnx", "fp16"),
    ("embedding_bag mean", "onnx", "fp16"),
    ("expand last axis", "tflite", "int8"),
    ("expand a new axis in front", "tflite", "fp32"),
    ("unbind", "tflite", "int8"),
    ("col2im k2 s2", "tflite", "int8"),
    ("scaled_dot_product_attention boolean mask", "tflite", "int8"),
)


@pytest.fixture(scope="module")
def bench() -> Any:
    path = list(sys.path)
    sys.path.insert(0, str(BENCH))
    try:
        import operators
    finally:
        sys.path[:] = path
    return operators


@pytest.mark.parametrize(("name", "form", "numerics"), TELLING)
def test_a_telling_row_is_right(bench: Any, name: str, form: str, numerics: str) -> None:
    case = next(case for case in bench.CASES if case.name == name)
    (row,) = bench.rows_of(case, [(form, numerics)])
    assert bench.wrong([row]) == []
    assert "db" in row


def test_what_no_converter_has_is_a_refusal(bench: Any) -> None:
    case = next(case for case in bench.CASES if case.operator == "conv_transpose3d")
    (row,) = bench.rows_of(case, [("tflite", "fp32")])
    assert "conv_transpose3d(stride=[2, 2, 2])" in row["refused"]


def test_the_page_has_no_wrong_row_and_is_what_the_rows_make(bench: Any) -> None:
    rows = [json.loads(line) for line in bench.ROWS.read_text(encoding="utf-8").splitlines()]
    assert bench.wrong(rows) == []
    assert bench.PAGE.read_text(encoding="utf-8") == bench.page(rows)
