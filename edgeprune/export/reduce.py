# SPDX-License-Identifier: Apache-2.0
"""Store a float TFLite file's weights in fewer bits, with ai-edge-quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError, MissingExtra
from edgeprune.export.flatbuffer import Graph, Tensor
from edgeprune.export.quiet import quiet
from edgeprune.recipe import Numerics

__all__ = ["MODES", "reduce", "storage_notes"]

MODES: frozenset[Numerics] = frozenset({"fp16", "int8-dynamic", "int8-weights"})
_WEIGHTED = {
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_3D",
    "CONV_3D_TRANSPOSE",
    "DEPTHWISE_CONV_2D",
    "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
}
_GRID_TOLERANCE = 0.01
"""Of a step; folding a batch norm moves a weight by less."""


def reduce(content: bytes, numerics: Numerics, *, per_channel: bool) -> bytes:
    """A float file's content with its weights in ``numerics``, one of ``MODES``.

    Integer weights are symmetric int8 with the scale ``max|w| / 127`` of each output channel; with
    ``per_channel`` false, of each whole weight of a linear layer.

    Raises:
        EdgepruneError: ai-edge-quantizer failed.
        MissingExtra: It isn't installed.
    """
    with quiet() as output:
        try:
            from ai_edge_quantizer.quantizer import Quantizer
        except ImportError:
            raise MissingExtra("ai-edge-quantizer", "compress") from None
        try:
            tool = Quantizer(bytearray(content), _recipe(numerics, per_channel))
            result = tool.quantize(enable_progress_bar=False, enable_progress_report=False)
            return bytes(result.quantized_model)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            lines = f"{error}\n{output.text()}".strip().splitlines()
            failure = lines[0] if lines else type(error).__name__
            cause = error
    raise EdgepruneError(f"tflite: ai-edge-quantizer failed for {numerics}: {failure}") from cause


def storage_notes(before: Graph, after: Graph) -> tuple[str, ...]:
    """Say which weights stayed float, and which were not on their grid yet, so that storing
    changed them.

    ``before`` and ``after`` are the float and the reduced graph; tensors keep their index.
    """
    floats = {tensor.index: tensor for tensor in _weights(before)}
    kept, moved = [], dict[str, float]()
    for tensor in _weights(after):
        original = floats.get(tensor.index)
        if tensor.dtype == "float32":
            kept.append(tensor.name)
        elif original is not None and original.dtype == "float32":
            moved[tensor.name] = _steps(original.values(), tensor)
    moved = {name: steps for name, steps in moved.items() if steps > _GRID_TOLERANCE}
    notes = []
    if kept:
        notes.append(f"weights kept in float, as the tool can't reduce them: {', '.join(kept)}")
    if moved:
        worst = max(moved, key=lambda name: moved[name])
        much = f"{worst} by up to {moved[worst]:.2g} of a step"
        notes.append(f"storing rounded weights that were not on the grid: {len(moved)}, {much}")
    return tuple(notes)


def _recipe(numerics: Numerics, per_channel: bool) -> Any:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    every, manager = qtyping.TFLOperationName.ALL_SUPPORTED, RecipeManager()
    if numerics == "fp16":
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=half,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
        manager.add_quantization_config(".*", every, config, AlgorithmName.FLOAT_CASTING)
        return manager.get_quantization_recipe()
    channel = {"num_bits": 8, "granularity": qtyping.QuantGranularity.CHANNELWISE}
    if numerics == "int8-weights":
        manager.add_weight_only_config(".*", every, **channel)
        return manager.get_quantization_recipe()
    manager.add_dynamic_config(".*", every, **channel)
    if not per_channel:
        names, tensor = qtyping.TFLOperationName, qtyping.QuantGranularity.TENSORWISE
        for kind in (names.FULLY_CONNECTED, names.EMBEDDING_LOOKUP):
            manager.add_dynamic_config(".*", kind, num_bits=8, granularity=tensor)
    return manager.get_quantization_recipe()


def _weights(graph: Graph) -> list[Tensor]:
    """Constant matrices, kernels and tables, each once, whether read directly or dequantized."""
    found: dict[int, Tensor] = {}
    for op in graph.ops:
        for place, tensor in enumerate(op.inputs):
            stored = op.kind == "DEQUANTIZE" or (op.kind in _WEIGHTED and place == 1)
            if stored and tensor is not None and tensor.raw is not None and len(tensor.shape) > 1:
                found[tensor.index] = tensor
    return list(found.values())


def _steps(original: np.ndarray[Any, Any], tensor: Tensor) -> float:
    """Largest change of a weight, in steps of the grid at that weight."""
    change = np.abs(tensor.values() - original)
    if tensor.scale is not None:
        wide = [1] * len(tensor.shape)
        if tensor.per_channel:
            wide[tensor.axis] = -1
        return float(np.max(change / tensor.scale.reshape(wide), initial=0.0))
    step = np.spacing(np.abs(original).astype(np.float16)).astype(np.float64)
    return float(np.max(change / step, initial=0.0))
