# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-accumulates: by hand, by torch's own counter, by edgeprune's analysis."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.artifact import contents, figures, read
from edgeprune.artifact.macs import LITE, ONNX
from edgeprune.artifact.operators import LITE_PRODUCTS, ONNX_PRODUCTS
from edgeprune.artifact.silent import LITE_SILENT, ONNX_SILENT
from edgeprune.artifact.tflite_names import OPERATORS
from edgeprune.channels import macs as macs_of
from edgeprune.export import flatbuffer
from edgeprune.export.onnx import write_onnx
from edgeprune.model import Model
from tests.model_files import (
    LiteGraph,
    LiteOp,
    LiteTensor,
    control,
    lite_branches,
    lite_cnn,
    lite_model,
    onnx_model,
    quantized,
    save,
)
from tests.networks import DigitsCnn, TinyMobileNet, TinyViT
from tests.unit.export.lite import bert, cnn, written

ROW = np.float32


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.ones(shape, ROW) for name, shape in shapes.items()}


def microsoft(kind: str, inputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, ["y"], domain="com.microsoft", **attributes)


def node(kind: str, inputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, ["y"], **attributes)


def eight(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Weights of 8 bits, a scale and a zero point."""
    named = {name: np.ones(shape, np.int8) for name, shape in shapes.items()}
    return named | {"s": np.array(0.1, ROW), "z": np.array(0, np.int8)}


@pytest.mark.parametrize(
    ("made", "shape", "constants", "macs", "parameters"),
    [
        (node("Conv", ["x", "w", "b"]), (2, 3, 8, 8), weights(w=(4, 3, 3, 3), b=(4,)),
         2 * 4 * 36 * 27, 112),
        (node("Conv", ["x", "w"], group=4), (1, 4, 8, 8), weights(w=(4, 1, 3, 3)), 4 * 36 * 9, 36),
        (node("Conv", ["x", "w"], strides=[2], dilations=[3]), (1, 3, 20), weights(w=(4, 3, 3)),
         4 * 7 * 9, 36),
        (node("ConvTranspose", ["x", "w"], strides=[2, 2], group=2), (1, 4, 5, 5),
         weights(w=(4, 3, 2, 2)), 100 * 12, 48),
        (node("Gemm", ["x", "w", "b"], transB=1), (5, 8), weights(w=(3, 8), b=(3,)), 5 * 24, 27),
        (node("Gemm", ["x", "w"], transA=1), (8, 5), weights(w=(8, 3)), 5 * 24, 24),
        (node("MatMul", ["x", "w"]), (2, 5, 8), weights(w=(8, 3)), 10 * 24, 24),
        (node("MatMul", ["x", "w"]), (8,), weights(w=(8,)), 8, 8),
        (node("MatMul", ["x", "x"]), (3, 4, 4), {}, 3 * 64, 0),
        (node("Einsum", ["x", "w"], equation="bij,jk->bik"), (2, 3, 4), weights(w=(4, 5)), 120, 20),
        (node("Einsum", ["x", "w"], equation="i,j->ij"), (3,), weights(w=(5,)), 0, 5),
        (node("LSTM", ["x", "w", "r", "b"], hidden_size=5), (7, 2, 3),
         weights(w=(1, 20, 3), r=(1, 20, 5), b=(1, 40)), 14 * 160, 200),
        (node("GRU", ["x", "w", "r"], hidden_size=5, direction="bidirectional"), (7, 2, 3),
         weights(w=(2, 15, 3), r=(2, 15, 5)), 14 * 240, 240),
        (node("RNN", ["x", "w", "r"], hidden_size=5), (7, 2, 3), weights(w=(1, 5, 3), r=(1, 5, 5)),
         14 * 40, 40),
        (node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z"]), (1, 3, 8, 8),
         eight(w=(4, 3, 3, 3)), 4 * 36 * 27, 108),
        (node("ConvInteger", ["x", "w", "z", "z"]), (1, 3, 8, 8), eight(w=(4, 3, 1, 1)),
         64 * 12, 12),
        (node("MatMulInteger", ["x", "w", "z", "z"]), (5, 8), eight(w=(8, 3)), 120, 24),
        (node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"]), (5, 8), eight(w=(8, 3)),
         120, 24),
        (microsoft("QGemm", ["x", "s", "z", "w", "s", "z", "", "s", "z"], transB=1), (5, 8),
         eight(w=(3, 8)), 120, 24),
        (microsoft("MatMulNBits", ["x", "w", "s"], K=64, N=10, bits=4, block_size=32), (5, 64),
         {"w": np.ones((10, 2, 16), np.uint8), "s": np.ones(20, ROW)}, 5 * 640, 640),
        (microsoft("Attention", ["x", "w", "b"], num_heads=2), (2, 5, 8),
         weights(w=(8, 24), b=(24,)), 2 * 5 * 8 * 24 + 2 * 2 * 25 * 8, 216),
        (microsoft("MultiHeadAttention", ["x", "x", "x"], num_heads=2), (2, 5, 8), {}, 800, 0),
        (node("Attention", ["x", "x", "x"], q_num_heads=2, kv_num_heads=2), (2, 5, 8), {}, 800, 0),
        (node("Attention", ["x", "x", "x"]), (2, 4, 5, 2), {}, 800, 0),
        (node("BatchNormalization", ["x", "w", "b", "m", "v"]), (1, 4, 2),
         weights(w=(4,), b=(4,), m=(4,), v=(4,)), 0, 8),
        (node("Gather", ["w", "i"]), (1,), weights(w=(100, 8)) | {"i": np.array([3, 4])}, None, 0),
        (node("Mul", ["x", "w"]), (4, 4), weights(w=()), 0, 0),
        (node("Mul", ["x", "w"]), (4, 4), weights(w=(4,)), 0, 4),
        (node("PRelu", ["x", "w"]), (4, 4), weights(w=(1,)), 0, 1),
        (node("Clip", ["x", "w", "v"]), (4, 4), weights(w=(), v=()), 0, 0),
        (node("Reshape", ["x", "w"]), (4, 4), {"w": np.array([2, 8])}, 0, 0),
    ],
    ids=lambda case: getattr(case, "op_type", None),
)  # fmt: skip
def test_operators_by_hand(
    tmp_path: Path,
    made: onnx.NodeProto,
    shape: tuple[int, ...],
    constants: dict[str, np.ndarray],
    macs: int | None,
    parameters: int,
) -> None:
    model = onnx_model([made], {"x": shape}, ["y"], constants, opset=23)
    counts = contents(read(save(tmp_path / "m.onnx", model))).counts
    assert counts.uncounted == ()
    assert (counts.macs, counts.parameters) == (macs or 0, parameters)


def lite(kind: str, shape: tuple[int, ...], out: tuple[int, ...], *others: Any) -> LiteGraph:
    tensors = {"x": LiteTensor(shape), "y": LiteTensor(out)}
    for at, other in enumerate(others):
        variable = isinstance(other, list)
        array = np.ones(other, np.int32 if other == (0,) else ROW)
        tensors[f"c{at}"] = LiteTensor(
            array.shape, array.dtype.name, None if variable else array, variable=variable
        )
    names = [f"c{at}" for at in range(len(others))]
    inputs = [names[0], names[1], "x"] if kind in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE") else [
        "x", *names
    ]  # fmt: skip
    return LiteGraph(tensors, [LiteOp(kind, inputs, ["y"])], ["x"], ["y"])


@pytest.mark.parametrize(
    ("graph", "macs", "parameters"),
    [
        (lite("CONV_2D", (1, 8, 8, 3), (1, 4, 4, 5), (5, 3, 3, 3), (5,)), 80 * 27, 140),
        (lite("CONV_2D", (1, 8, 8, 4), (1, 8, 8, 6), (6, 1, 1, 2), (6,)), 64 * 6 * 2, 18),
        (lite("DEPTHWISE_CONV_2D", (1, 8, 8, 3), (1, 8, 8, 6), (1, 3, 3, 6)), 384 * 9, 54),
        (lite("FULLY_CONNECTED", (2, 5, 8), (2, 5, 3), (3, 8)), 240, 24),
        (lite("TRANSPOSE_CONV", (1, 4, 4, 3), (1, 8, 8, 5), (4,), (5, 2, 2, 3)), 48 * 20, 60),
        (lite("CONV_3D", (1, 4, 4, 4, 2), (1, 4, 4, 4, 3), (2, 2, 2, 2, 3)), 192 * 16, 48),
        (lite("CONV_3D_TRANSPOSE", (1, 2, 2, 2, 2), (1, 4, 4, 4, 3), (5,), (2, 2, 2, 3, 2)),
         16 * 24, 48),
        (lite("BATCH_MATMUL", (2, 5, 8), (2, 5, 3), (2, 8, 3)), 240, 48),
        (lite("BATCH_MATMUL", (2, 8, 5), (2, 5, 3), (2, 8, 3)), 240, 48),  # the first one turned
        (lite("UNIDIRECTIONAL_SEQUENCE_LSTM", (7, 2, 3), (7, 2, 4), *[(4, 3)] * 4, *[(4, 4)] * 4,
              (4,), [2, 4], [2, 4]), 14 * (48 + 64), 116),
        (lite("SVDF", (2, 8), (2, 4), (4, 8), (4, 5), (4,), [2, 20]), 2 * (32 + 20), 56),
        (lite("ADD", (1, 4), (1, 4), (4,)), 0, 4),
        (lite("ADD", (1, 4), (1, 4), ()), 0, 0),
    ],
    ids=lambda case: case.ops[0].kind if isinstance(case, LiteGraph) else None,
)  # fmt: skip
def test_tflite_operators_by_hand(
    tmp_path: Path, graph: LiteGraph, macs: int, parameters: int
) -> None:
    (tmp_path / "m").write_bytes(flatbuffer.pack(lite_model(graph)))
    counts = contents(read(tmp_path / "m")).counts
    assert counts.uncounted == ()
    assert (counts.macs, counts.parameters) == (macs, parameters)


def exported(folder: Path, model: nn.Module, shape: tuple[int, ...]) -> Path:
    path = folder / "m.onnx"
    torch.onnx.export(
        model.eval(), (torch.zeros(shape),), path, dynamo=True, external_data=False, verbose=False
    )
    return path


def flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    # The fused attention of a CPU is one operator that torch doesn't count.
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(shape))
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (DigitsCnn, (1, 1, 8, 8)),
        (TinyMobileNet, (1, 3, 32, 32)),
        (TinyViT, (1, 3, 32, 32)),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2), nn.ReLU()), (1, 3, 8, 8)),
    ],
)
def test_networks_as_torch_counts_them(
    tmp_path: Path, make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = make()
    counts = contents(read(exported(tmp_path, model, shape))).counts
    assert counts.macs is not None
    assert 2 * counts.macs == flops(model, shape)
    assert counts.macs == sum(layer.macs or 0 for layer in counts.layers)


@pytest.mark.parametrize("network", [cnn, bert])
def test_files_of_the_export_cost_what_its_model_does(
    tmp_path: Path, network: Callable[[], Model]
) -> None:
    model = network()
    counts = contents(read(written(tmp_path, model).path)).counts
    assert counts.macs == macs_of(model)
    write_onnx(model, tmp_path / "m.onnx", opset=20, batch=1)
    assert contents(read(tmp_path / "m.onnx")).counts.macs == macs_of(model)


def test_parameters_are_those_of_the_network_with_its_normalisation_folded(tmp_path: Path) -> None:
    """Two batch norms of 16 channels become the biases of their convolutions."""
    counts = contents(read(written(tmp_path, cnn()).path)).counts
    whole = sum(p.numel() for p in DigitsCnn().parameters())
    assert counts.parameters == whole - 2 * 2 * 16 + 2 * 16


def test_parameters_of_a_network_without_normalisation_are_torch_s(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Flatten(), nn.Linear(8 * 36, 10), nn.LayerNorm(10)
    )
    counts = contents(read(exported(tmp_path, model, (1, 3, 8, 8)))).counts
    assert counts.parameters == sum(p.numel() for p in model.parameters())


def test_layers_are_named(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(flatbuffer.pack(lite_model(lite_cnn())))
    layers = contents(read(tmp_path / "m")).counts.layers
    told = [(layer.name, layer.kind, layer.parameters, layer.macs) for layer in layers]
    assert told == [
        ("c", "int8", 40, 8 * 8 * 4 * 9),
        ("d", "int8", 36, 4 * 4 * 4 * 9),
        ("y", "int8", 640, 640),
    ]


def test_weights_that_several_read_count_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["a", "wt"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": (1, 4)}, ["y"], weights(w=(4, 6)))
    counts = contents(read(save(tmp_path / "m.onnx", model))).counts
    assert (counts.parameters, counts.macs) == (24, 48)
    assert [layer.parameters for layer in counts.layers] == [24, 0]
    assert counts.kinds["Transpose"] == 1


def test_branches_loops_and_functions(tmp_path: Path) -> None:
    counts = contents(read(save(tmp_path / "m.onnx", control()))).counts
    costlier, turns, calls = 2 * 4 * 4 * 8, 3 * 64, 2 * 64
    assert counts.macs == costlier + turns + calls
    assert counts.parameters == 16 + 64 + 16
    assert counts.kinds["MatMul"] == 1 + 2 + 1 + 2
    (tmp_path / "m").write_bytes(flatbuffer.pack(lite_model(*lite_branches())))
    lite_counts = contents(read(tmp_path / "m")).counts
    assert (lite_counts.macs, lite_counts.parameters) == (16, 16)


def test_figures_have_their_origins(tmp_path: Path) -> None:
    told = figures(read(save(tmp_path / "m.onnx", quantized())))
    assert {key: figure.origin.kind for key, figure in told.items()} == {
        "bytes": "counted", "parameters": "counted", "macs": "counted", "int8_ops": "counted",
        "float_ops": "counted", "arena_estimate": "estimated",
    }  # fmt: skip
    assert told["bytes"].value == (tmp_path / "m.onnx").stat().st_size
    assert told["parameters"].value == 18 + 2
    assert told["macs"].value == 64 * 2 * 9


def test_what_cannot_be_counted_is_absent(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DFT", ["x"], ["f"]),
        helper.make_node("Mine", ["f"], ["y"], domain="other"),
    ]
    model = onnx_model(nodes, {"x": (1, 8, 1)}, ["y"])
    model.opset_import.append(helper.make_opsetid("other", 1))
    found = contents(read(save(tmp_path / "m.onnx", model)))
    assert "macs" not in figures(found)
    assert [u.type for u in found.counts.uncounted] == ["DFT", "other.Mine"]


def test_every_operator_is_judged() -> None:
    """A new schema's operators must be put into a table, or be left out knowingly."""
    known = ONNX_SILENT | ONNX.keys() | {"If", "Loop", "Scan", "SequenceMap"}
    standard = {s.name for s in onnx.defs.get_all_schemas() if not s.domain}
    assert standard - known == {
        "CausalConvWithState", "DFT", "Det", "LinearAttention", "STFT",
    }  # fmt: skip
    control_flow = {"CALL", "CUSTOM", "IF", "STABLEHLO_COMPOSITE", "WHILE"}
    left = set(OPERATORS) - LITE_SILENT - LITE.keys() - control_flow
    assert left == {
        "CONCAT_EMBEDDINGS", "DELEGATE", "LSH_PROJECTION", "PLACEHOLDER_FOR_GREATER_OP_CODES",
        "REDUCE_WINDOW", "RFFT2D", "STABLEHLO_CASE", "STABLEHLO_CONVOLUTION",
        "STABLEHLO_CUSTOM_CALL", "STABLEHLO_DOT_GENERAL", "STABLEHLO_REDUCE",
        "STABLEHLO_REDUCE_WINDOW", "STABLEHLO_SCATTER", "STABLEHLO_SORT", "STABLEHLO_WHILE",
    }  # fmt: skip
    assert not ONNX_SILENT & ONNX.keys()
    assert not LITE_SILENT & LITE_PRODUCTS
    assert LITE_PRODUCTS - LITE.keys() == set()
    assert not ONNX_SILENT & ONNX_PRODUCTS
