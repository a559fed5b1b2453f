# SPDX-License-Identifier: Apache-2.0
"""What kind of operator each is: sums of products, moves of values, or settings among its inputs.

ONNX names are without their domain; com.microsoft's are those of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ARITHMETIC",
    "LITE_MOVES",
    "LITE_PRODUCTS",
    "ONNX_MOVES",
    "ONNX_PRODUCTS",
    "ONNX_QUANTIZABLE",
    "SETTINGS",
    "bare",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def bare(kind: str) -> str:
    """An ONNX type without onnxruntime's own domain."""
    return kind.removeprefix("com.microsoft.")


LITE_PRODUCTS = _words(
    """BATCH_MATMUL BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN CONV_2D CONV_3D
    CONV_3D_TRANSPOSE DEPTHWISE_CONV_2D FULLY_CONNECTED LSTM RNN SVDF TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN"""
)
LITE_MOVES = _words(
    """BATCH_TO_SPACE_ND BITCAST BROADCAST_ARGS BROADCAST_TO CAST CONCATENATION DEPTH_TO_SPACE
    DEQUANTIZE DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP EXPAND_DIMS FILL GATHER GATHER_ND MIRROR_PAD
    ONE_HOT PACK PAD PADV2 QUANTIZE RANGE RANK RESHAPE REVERSE_SEQUENCE REVERSE_V2 SCATTER_ND SELECT
    SELECT_V2 SHAPE SLICE SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQUEEZE STRIDED_SLICE TILE
    TRANSPOSE UNPACK WHERE ZEROS_LIKE"""
)
ONNX_PRODUCTS = _words(
    """Attention Conv ConvInteger ConvTranspose DynamicQuantizeLSTM DynamicQuantizeMatMul Einsum
    FusedConv FusedGemm FusedMatMul GRU Gemm GroupQueryAttention LSTM MatMul MatMulInteger
    MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcFusedConv QAttention QGemm QLinearConv
    QLinearConvTranspose QLinearMatMul RNN"""
)
ONNX_MOVES = _words(
    """BitCast Cast CastLike Compress Concat ConcatFromSequence Constant ConstantOfShape
    DepthToSpace DequantizeLinear DynamicQuantizeLinear Expand EyeLike Flatten Gather GatherElements
    GatherND Identity MemcpyFromHost MemcpyToHost NonZero OneHot Pad QLinearConcat QuantizeLinear
    Range ReorderInput ReorderOutput Reshape ReverseSequence ScatterElements ScatterND Shape Size
    Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Where"""
)
ONNX_QUANTIZABLE = _words(
    """Add AveragePool Conv ConvTranspose Gemm GlobalAveragePool LeakyRelu MatMul MaxPool Mul Resize
    Sigmoid Softmax"""
)
"""What onnxruntime computes in integers between DequantizeLinear and QuantizeLinear."""

ARITHMETIC = _words(
    """Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum
    Where Xor QLinearAdd QLinearMul QLinearWhere
    ADD ADD_N DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LESS LESS_EQUAL MAXIMUM MINIMUM
    MUL NOT_EQUAL POW SELECT SELECT_V2 SQUARED_DIFFERENCE SUB"""
)
"""Where a constant of one element is a number in a formula, not a weight."""

SETTINGS: Mapping[str, frozenset[int]] = {
    kind: frozenset(positions)
    for kind, positions in {
        "BatchNormalization": (3, 4),  # running statistics, which aren't trained
        "Clip": (1, 2),
        "ConvInteger": (2, 3),
        "DequantizeLinear": (1, 2),
        "Dropout": (1, 2),
        "DynamicQuantizeLSTM": (4, 5, 6, 8, 9, 10, 11),
        "DynamicQuantizeMatMul": (2, 3),
        "GRU": (4, 5),
        "LSTM": (4, 5, 6),
        "MatMulInteger": (2, 3),
        "MatMulIntegerToFloat": (2, 3, 4, 5),
        "MatMulNBits": (2, 3, 4),
        "NonMaxSuppression": (2, 3, 4),
        "OneHot": (1, 2),
        "Pad": (1, 2, 3),
        "QAttention": (3, 4, 6, 7),
        "QGemm": (1, 2, 4, 5, 7, 8),
        "QLinearAdd": (1, 2, 4, 5, 6, 7),
        "QLinearAveragePool": (1, 2, 3, 4),
        "QLinearConv": (1, 2, 4, 5, 6, 7),
        "QLinearConvTranspose": (1, 2, 4, 5, 6, 7),
        "QLinearGlobalAveragePool": (1, 2, 3, 4),
        "QLinearLeakyRelu": (1, 2, 3, 4),
        "QLinearMatMul": (1, 2, 4, 5, 6, 7),
        "QLinearMul": (1, 2, 4, 5, 6, 7),
        "QLinearReduceMean": (1, 2, 3, 4),
        "QLinearSigmoid": (1, 2, 3, 4),
        "QLinearSoftmax": (1, 2, 3, 4),
        "QuantizeLinear": (1, 2),
        "RNN": (4, 5),
        "Range": (0, 1, 2),
        "Resize": (1, 2, 3),
        "Upsample": (1,),
        "CONV_3D_TRANSPOSE": (0,),
        "FILL": (0, 1),
        "NON_MAX_SUPPRESSION_V4": (2, 3, 4),
        "NON_MAX_SUPPRESSION_V5": (2, 3, 4, 5),
        "ONE_HOT": (1, 2, 3),
        "PADV2": (1, 2),
        "RANGE": (0, 1, 2),
        "TRANSPOSE_CONV": (0,),
    }.items()
}
"""Inputs that are sizes, scales, limits or first states: constants, but not weights."""
