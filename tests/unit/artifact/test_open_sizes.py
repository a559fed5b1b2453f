# SPDX-License-Identifier: Apache-2.0
"""Files that leave sizes of their inputs open, and what is counted of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgeprune.artifact import Contents, contents, figures, read
from edgeprune.errors import InputError
from edgeprune.export import flatbuffer
from tests.model_files import LiteGraph, LiteOp, LiteTensor, lite_model, onnx_model, save

SAME, VALID = 0, 1


def lite(path: Path, graph: LiteGraph, sizes: dict[str, int] | None = None) -> Contents:
    path.write_bytes(flatbuffer.pack(lite_model(graph)))
    return contents(read(path), sizes)


def opened(*signature: int) -> LiteTensor:
    """As converters write it: 1 where the size is open."""
    return LiteTensor([max(size, 1) for size in signature], signature=signature)


def options(kind: str, **fields: Any) -> Any:
    made = getattr(flatbuffer.schema(), f"{kind}OptionsT")()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def numbers(*values: int) -> LiteTensor:
    array = np.array(values, np.int32)
    return LiteTensor(array.shape, "int32", array)


def picture(height: int = -1, batch: int = -1) -> LiteGraph:
    """Two convolutions, a pool and a linear layer behind a mean."""
    weight = np.ones((4, 3, 3, 3), np.float32)
    second = np.ones((8, 3, 3, 4), np.float32)
    tensors = {
        "x": opened(batch, height, 16, 3),
        "w": LiteTensor(weight.shape, data=weight),
        "w2": LiteTensor(second.shape, data=second),
        "a": opened(batch, -1, 8, 4),
        "p": opened(batch, -1, 4, 4),
        "b": opened(batch, -1, 2, 8),
        "axes": numbers(1, 2),
        "m": opened(batch, 8),
        "fw": LiteTensor((10, 8), data=np.ones((10, 8), np.float32)),
        "y": opened(batch, 10),
    }
    strides = {"strideW": 2, "strideH": 2}
    pool = options("Pool2D", padding=VALID, filterWidth=2, filterHeight=2, **strides)
    ops = [
        LiteOp("CONV_2D", ["x", "w", ""], ["a"], options("Conv2D", padding=SAME, **strides)),
        LiteOp("MAX_POOL_2D", ["a"], ["p"], pool),
        LiteOp(
            "CONV_2D",
            ["p", "w2", ""],
            ["b"],
            options("Conv2D", padding=VALID, strideW=1, strideH=1),
        ),
        LiteOp("MEAN", ["b", "axes"], ["m"], options("Reducer", keepDims=False)),
        LiteOp("FULLY_CONNECTED", ["m", "fw", ""], ["y"]),
    ]
    return LiteGraph(tensors, ops, ["x"], ["y"])


def test_a_size_that_is_no_batch_is_unknown_until_it_is_told(tmp_path: Path) -> None:
    known = lite(tmp_path / "m", picture())
    assert known.counts.macs is None
    assert known.arena is None
    assert "macs" not in figures(known)
    assert known.bound.missing == ("x.1",)
    assert known.inputs[0].shape == (None, None, 16, 3)
    told = lite(tmp_path / "m", picture(), {"x.1": 32})
    # 32 x 16 gives 16 x 8, pooled 8 x 4, a window without padding 6 x 2
    assert told.counts.macs == 16 * 8 * 4 * 27 + 6 * 2 * 8 * 36 + 80
    assert told.arena is not None
    assert "x.0 = 1, x.1 = 32" in figures(told)["macs"].origin.how
    two = lite(tmp_path / "m", picture(), {"x.1": 32, "x.0": 2})
    assert two.counts.macs == 2 * told.counts.macs


def test_a_batch_alone_is_followed(tmp_path: Path) -> None:
    """Rows that were merged into the batch are counted, where the file says 1."""
    tensors = {
        "x": opened(-1, 8, 16),
        "shape": numbers(-1, 16),
        "r": opened(-1, 16),
        "w": LiteTensor((4, 16), data=np.ones((4, 16), np.float32)),
        "y": opened(-1, 4),
    }
    ops = [
        LiteOp("RESHAPE", ["x", "shape"], ["r"]),
        LiteOp("FULLY_CONNECTED", ["r", "w", ""], ["y"]),
    ]
    known = lite(tmp_path / "m", LiteGraph(tensors, ops, ["x"], ["y"]))
    assert known.counts.macs == 8 * 16 * 4
    assert known.bound.missing == ()


def test_a_row_without_end_is_no_batch(tmp_path: Path) -> None:
    tensors = {"x": opened(-1), "y": opened(-1)}
    graph = LiteGraph(tensors, [LiteOp("ABS", ["x"], ["y"])], ["x"], ["y"])
    assert lite(tmp_path / "m", graph).arena is None
    planned = lite(tmp_path / "m", graph, {"x.0": 16000}).arena
    assert planned is not None
    assert planned.bytes == 2 * 64000


def test_sizes_that_are_calculated_in_the_file(tmp_path: Path) -> None:
    """Shape, slice, product and pack, as converters write a reshape to what is open."""
    tensors = {
        "x": opened(-1, -1, 4),
        "shape": LiteTensor((3,), "int32"),
        "at": numbers(1),
        "to": numbers(2),
        "step": numbers(1),
        "length": LiteTensor((), "int32"),
        "wide": LiteTensor((), "int32", np.array(4, np.int32)),
        "flat": LiteTensor((), "int32"),
        "one": LiteTensor((), "int32", np.array(-1, np.int32)),
        "wanted": LiteTensor((2,), "int32"),
        "r": opened(-1, -1),
        "w": LiteTensor((2, 8), data=np.ones((2, 8), np.float32)),
        "pairs": numbers(-1, 8),
        "p": opened(-1, 8),
        "y": opened(-1, 2),
    }
    cut = options("StridedSlice", shrinkAxisMask=1)
    ops = [
        LiteOp("SHAPE", ["x"], ["shape"]),
        LiteOp("STRIDED_SLICE", ["shape", "at", "to", "step"], ["length"], cut),
        LiteOp("MUL", ["length", "wide"], ["flat"]),
        LiteOp("PACK", ["one", "flat"], ["wanted"], options("Pack", valuesCount=2)),
        LiteOp("RESHAPE", ["x", "wanted"], ["r"]),
        LiteOp("RESHAPE", ["r", "pairs"], ["p"]),
        LiteOp("FULLY_CONNECTED", ["p", "w", ""], ["y"]),
    ]
    graph = LiteGraph(tensors, ops, ["x"], ["y"])
    assert lite(tmp_path / "m", graph).counts.macs is None
    assert lite(tmp_path / "m", graph, {"x.1": 10}).counts.macs == 5 * 8 * 2


def test_an_operator_without_a_rule_leaves_it_unknown(tmp_path: Path) -> None:
    graph = picture(height=32)
    ops = [LiteOp("CUSTOM", ["x", "w"], ["a"], custom="Own"), *graph.ops[1:]]
    known = lite(tmp_path / "m", graph._replace(ops=ops))
    assert known.counts.macs is None
    assert known.gaps[0].type == "CUSTOM:Own"


def test_a_size_of_no_such_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"open size named 'x\.3'; there are: x\.0, x\.1"):
        lite(tmp_path / "m", picture(), {"x.3": 1})


@pytest.mark.parametrize(
    ("shape", "sizes", "macs"),
    [
        ((None, 3, "height", "width"), {"height": 8, "width": 4}, 8 * 4 * 54),
        ((None, 3, "height", "width"), {"x.2": 8, "x.3": 4}, 8 * 4 * 54),
        ((None, 3, "side", "side"), {"side": 4}, 16 * 54),
        (("n", 3, None, 4), {"x.2": 8}, 8 * 4 * 54),
        (("n", 3, None, 4), {"x.2": 8, "n": 3}, 3 * 8 * 4 * 54),
        ((None, 3, "height", "width"), {"height": 8}, None),
        ((None, 3, None, None), {}, None),
        (("n", 3, 8, 4), {}, 8 * 4 * 54),
        (("frames", 3, 8, 4), {}, None),
        (("frames", 3, 8, 4), {"frames": 5}, 5 * 8 * 4 * 54),
    ],
)
def test_onnx(
    tmp_path: Path, shape: tuple[Any, ...], sizes: dict[str, int], macs: int | None
) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    weight = {"w": np.ones((2, 3, 3, 3), np.float32)}
    path = save(tmp_path / "m.onnx", onnx_model([node], {"x": shape}, ["y"], weight))
    known = contents(read(path), sizes)
    assert known.counts.macs == macs
    assert ("macs" in figures(known)) == (macs is not None)


def test_minus_one_in_onnx_is_open(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    weight = {"w": np.ones((2, 3, 3, 3), np.float32)}
    path = save(tmp_path / "m.onnx", onnx_model([node], {"x": (-1, 3, -1, 4)}, ["y"], weight))
    assert contents(read(path)).counts.macs is None
    assert contents(read(path), {"x.2": 8}).counts.macs == 8 * 4 * 54
