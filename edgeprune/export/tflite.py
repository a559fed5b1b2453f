# SPDX-License-Identifier: Apache-2.0
"""Write a model as a TFLite file.

Float and static int8 graphs go through litert-torch; the other numerics are made from the float
file by ai-edge-quantizer. Both tools' files are then put in order by :mod:`edgeprune.export.tidy`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from edgeprune.errors import CheckFailed, MissingExtra
from edgeprune.export import tidy
from edgeprune.export.flatbuffer import Graph, Tensor, load, pack, view
from edgeprune.export.locate import Refused
from edgeprune.export.names import is_image
from edgeprune.export.quiet import quiet
from edgeprune.export.reduce import MODES, reduce, storage_notes
from edgeprune.export.tflite_graph import prepare
from edgeprune.export.tflite_prelu import fuse_prelus
from edgeprune.model import Input, Model
from edgeprune.writing import write

__all__ = ["check_biases", "write_tflite"]

_BIAS_TOLERANCE = 1e-4
_OPERANDS = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Places of input, weight and bias."""
_REFUSALS = (
    r"Lowering not found: ([\w.:]+)",
    r"failed to legalize operation '([\w.]+)'",
    r"'([\w.]+)' op",
    r"(aten[.:]+\w+(?:\.\w+)?)",
)


def write_tflite(
    model: Model, path: Path, *, batch: int, per_channel: bool = True
) -> tuple[str, ...]:
    """Write ``model`` to ``path``, whole or not at all; the same bytes for an equal model.

    4-D float inputs become NHWC, all others and the outputs keep their layout; 64-bit integers
    become 32-bit; inputs and outputs of an int8 model are float. The signature is
    ``serving_default``, with the model's own input and output names.

    Args:
        model: Any numerics; static ``int8`` must hold quantize/dequantize nodes.
        path: The file.
        batch: Samples that the file takes at once.
        per_channel: For ``int8-dynamic``: weight scales by output channel. tflite-runtime 2.14
            can't run such linear layers; it needs one scale a tensor.

    Returns:
        Notes for whoever uses the file.

    Raises:
        InputError: The model can't be converted; the message names the operator.
        CheckFailed: The converter gave a bias the wrong scale.
        MissingExtra: litert-torch isn't installed.
    """
    content = _convert(model, batch)
    floats = view(load(content, path.name))
    if model.numerics in MODES:
        content = reduce(content, model.numerics, per_channel=per_channel)
    unpacked = load(content, path.name)
    tidy.order_edges(unpacked, [i.name for i in model.inputs], [o.name for o in model.outputs])
    tidy.float_edges(unpacked)
    fuse_prelus(unpacked)
    tidy.honest_versions(unpacked)
    tidy.rename(unpacked)
    tidy.compact(unpacked)
    graph = view(unpacked)
    check_biases(graph, path.name)
    write(path, [pack(unpacked)])
    return storage_notes(floats, graph) if model.numerics in MODES else ()


def check_biases(graph: Graph, name: str) -> None:
    """Hold each int32 bias against what its operator takes its scale for: input times weight.

    litert-torch gives the scale of a node further up where two quantizations follow each other,
    which the runtime doesn't notice.

    Raises:
        CheckFailed: A bias has another scale; ``name`` is the file's.
    """
    for op in graph.ops:
        if op.kind not in _OPERANDS:
            continue
        operands = [_at(op.inputs, place) for place in _OPERANDS[op.kind]]
        source, weight, bias = operands
        if source is None or weight is None or bias is None or bias.dtype != "int32":
            continue
        if source.scale is None or weight.scale is None or bias.scale is None:
            raise CheckFailed(f"{name}: {bias.name} is int32 beside an operand without a scale")
        product = source.scale.astype(np.float64) * weight.scale.astype(np.float64)
        if not np.allclose(bias.scale, product, rtol=_BIAS_TOLERANCE, atol=0):
            factor = float(np.max(np.abs(bias.scale / product)))
            raise CheckFailed(
                f"{name}: the converter gave {bias.name} a scale {factor:.3g} times that of its "
                f"input and weight, so it would add wrong values"
            )


def _at(tensors: tuple[Tensor | None, ...], place: int) -> Tensor | None:
    return tensors[place] if place < len(tensors) else None


class _Entry(nn.Module):
    """The model with named arguments and results, and NHWC images."""

    def __init__(self, module: nn.Module, model: Model) -> None:
        super().__init__()
        self.module = module
        self.arguments = [(i.name, is_image(i)) for i in model.inputs]
        self.results = [output.name for output in model.outputs]
        # ``eval()`` would recurse into the exported module, which refuses it.
        self.training = False

    def forward(self, **named: torch.Tensor) -> dict[str, torch.Tensor]:
        values = [
            named[name].permute(0, 3, 1, 2) if image else named[name]
            for name, image in self.arguments
        ]
        results = pytree.tree_leaves(self.module(*values))
        return dict(zip(self.results, results, strict=True))


def _convert(model: Model, batch: int) -> bytes:
    try:
        with quiet():
            import litert_torch
    except ImportError:
        raise MissingExtra("litert-torch", "compress") from None
    module = model.module()
    prepare(module)
    entry = _Entry(module, model)
    example = {i.name: _example(i, batch) for i in model.inputs}
    with quiet() as output:
        try:
            options = {"quant_config": _static_mode()} if model.numerics == "int8" else {}
            converted = litert_torch.convert(entry, sample_kwargs=example, **options)
            return bytes(converted.model_content())
        except Exception as error:  # the converter's errors share no base class
            failure = error
    raise Refused(
        f"tflite: litert-torch can't convert this model: {_refusal(failure, output.text())}; "
        "--format onnx writes that file alone"
    ) from failure


def _example(spec: Input, batch: int) -> torch.Tensor:
    value = torch.zeros(spec.sized(batch), dtype=spec.dtype)
    return value.permute(0, 2, 3, 1).contiguous() if is_image(spec) else value


def _static_mode() -> Any:
    """Any PT2E quantizer with a global configuration: it only switches int8 kernels on.

    Without it each quantize/dequantize node stays, around float kernels.
    """
    from litert_torch.quantize.pt2e_quantizer import (
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig

    configuration = get_symmetric_quantization_config(is_per_channel=True)
    return QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(configuration))


def _refusal(error: Exception, printed: str) -> str:
    """The operator that was refused where the converter says it, else its own first line."""
    text = f"{error}\n{printed}"
    for pattern in _REFUSALS:
        match = re.search(pattern, text)
        if match is not None:
            return f"operator {match[1]} is refused"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
