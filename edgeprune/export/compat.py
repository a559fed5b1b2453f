# SPDX-License-Identifier: Apache-2.0
"""What stops the oldest runtime: tflite-runtime 2.14, the last one, for 32-bit and old boards."""

from pathlib import Path

from edgeprune.export import flatbuffer

__all__ = ["OLDEST_RUNTIME", "oldest_runtime_blockers"]

OLDEST_RUNTIME = "tflite-runtime"

# Read off tflite-runtime 2.14.0: for each operator the highest version that it accepted, of the
# versions 1 to 20, in a file with that one operator code. An operator that isn't here is refused
# at any version.
_HIGHEST = {
    1: """ADD_N ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CALL_ONCE CEIL
    COMPLEX_ABS CONV_3D CONV_3D_TRANSPOSE COS CUMSUM DENSIFY DYNAMIC_UPDATE_SLICE ELU
    EMBEDDING_LOOKUP_SPARSE EXPAND_DIMS FLOOR HARD_SWISH HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT
    HASHTABLE_LOOKUP HASHTABLE_SIZE IF IMAG L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LSH_PROJECTION MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL NEG
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 ONE_HOT POW PRELU RANDOM_STANDARD_NORMAL
    RANDOM_UNIFORM RANK READ_VARIABLE REAL REDUCE_ALL REDUCE_ANY RELU_0_TO_1 RELU_N1_TO_1 RESHAPE
    REVERSE_SEQUENCE RFFT2D RIGHT_SHIFT ROUND SCATTER_ND SEGMENT_SUM SHAPE SIN SKIP_GRAM SQRT SQUARE
    UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM
    VAR_HANDLE WHILE ZEROS_LIKE""",
    2: """DEPTH_TO_SPACE DIV EXP FAKE_QUANT FLOOR_MOD GELU GREATER L2_NORMALIZATION LEAKY_RELU
    LESS_EQUAL LOG_SOFTMAX RANGE REDUCE_PROD RSQRT SELECT_V2 SIGN SPACE_TO_DEPTH SPLIT_V
    SQUARED_DIFFERENCE SQUEEZE SUM WHERE""",
    3: """ARG_MAX ARG_MIN AVERAGE_POOL_2D BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN
    BROADCAST_TO EMBEDDING_LOOKUP FLOOR_DIV GREATER_EQUAL LESS LOGISTIC MAX_POOL_2D MEAN MIRROR_PAD
    NOT_EQUAL QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 REVERSE_V2 RNN SOFTMAX SPARSE_TO_DENSE TANH
    TILE TOPK_V2 UNIDIRECTIONAL_SEQUENCE_RNN""",
    4: """BATCH_MATMUL BATCH_TO_SPACE_ND CONCATENATION EQUAL FILL GATHER_ND LSTM MAXIMUM MINIMUM
    PACK PAD PADV2 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SELECT SPACE_TO_BATCH_ND SPLIT SVDF
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK""",
    5: "ABS ADD CAST DEQUANTIZE SUB",
    6: "GATHER SLICE TRANSPOSE",
    7: "CONV_2D DEPTHWISE_CONV_2D MUL",
    8: "STRIDED_SLICE",
    10: "FULLY_CONNECTED",
}
_ACCEPTED = {name: version for version, names in _HIGHEST.items() for name in names.split()}


def oldest_runtime_blockers(path: Path) -> list[str]:
    """Say which operators of a TFLite file tflite-runtime 2.14 refuses, each with its version.

    Empty where it loads the file. Operators that need a newer kernel than their version says would
    slip through; the exporter raises their versions (see ``tidy.honest_versions``).

    Raises:
        InputError: It is no TFLite file.
    """
    refused: dict[tuple[str, int], str] = {}
    for op in flatbuffer.read(path).ops:
        highest = _ACCEPTED.get(op.kind, 0)
        if op.version > highest:
            has = f"it has up to version {highest}" if highest else "it has none"
            text = f"tflite-runtime 2.14 refuses {op.kind} version {op.version} ({has})"
            refused.setdefault((op.kind, op.version), text)
    return list(refused.values())
