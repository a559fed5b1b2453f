# SPDX-License-Identifier: Apache-2.0
"""Write a model as an ONNX file: torch's exporter, then the passes that its numerics need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.ao.quantization.fx._decomposed  # registers quantize and dequantize
from onnx import ModelProto
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeprune.errors import InputError, MissingExtra
from edgeprune.export.locate import Refused
from edgeprune.export.onnx_graph import cast_integers, fold_attention, settle_layouts
from edgeprune.export.onnx_passes import (
    activations_to_uint8,
    clean,
    fold_pads,
    integer_bias,
    pad_integers,
    torch_gates,
)
from edgeprune.export.onnx_tidy import finish, name_layers, name_outputs
from edgeprune.export.onnx_weights import (
    CONVOLUTIONS,
    LINEAR,
    dynamic_linears,
    half_precision,
    int8_tables,
    int8_weights,
    unfuse_dequantizers,
)
from edgeprune.export.plainer import write_plainly
from edgeprune.export.quiet import quiet
from edgeprune.export.resampling import (
    hangs_over,
    has_divisor,
    is_antialiased,
    linear_by_matrices,
    plain_averages,
    shrinks_cubically,
)
from edgeprune.model import Model
from edgeprune.model.capture import capture_program
from edgeprune.writing import write

__all__ = ["write_onnx"]

quantized = torch.ops.quantized_decomposed

_QUANTIZERS = (quantized.quantize_per_tensor.default, quantized.quantize_per_channel.default)

_LARGEST = 2 * 1024**3
"""Bytes of a protobuf file."""


def write_onnx(
    model: Model,
    path: Path,
    *,
    opset: int,
    batch: int | Literal["dynamic"],
    activations: Literal["uint8", "int8"] = "uint8",
) -> None:
    """Write ``model`` to one file at ``path``, whole or not at all; equal models, equal bytes.

    Inputs keep the program's names and layout; outputs are ``output``, or the keys of a model that
    returns a dict, or ``output_0``, ``output_1`` ...

    Args:
        model: Any numerics; static ``int8`` must hold quantize/dequantize nodes.
        path: The file.
        opset: 18 to 23.
        batch: Samples that the file takes at once; a model of fixed batch keeps its own.
        activations: Type of static int8's activations. x86 needs ``uint8``.

    Raises:
        InputError: An operator has no ONNX form; ``dynamic`` for a model of fixed batch; the file
            would have more than 2 GiB.
        EdgepruneError: The result is not valid ONNX.
        MissingExtra: onnxscript or onnxruntime isn't installed.
    """
    if batch == "dynamic" and not model.dynamic_batch:
        raise InputError(
            f"onnx: the model takes a batch of {model.fixed_batch} and no other; "
            "give --batch that number"
        )
    with quiet():
        proto = _translate(model, _program(model, batch), opset)
        proto = _reduce(proto, model, activations)
        finish(proto, opset)
        content = _serialize(proto)
    write(path, [content])


def _reduce(proto: ModelProto, model: Model, activations: Literal["uint8", "int8"]) -> ModelProto:
    """The passes of each numerics, in order."""
    torch_gates(proto)
    clean(proto)
    name_layers(proto)
    if model.numerics == "int8":
        if activations == "uint8":
            activations_to_uint8(proto)
        pad_integers(proto)
        fold_pads(proto)
        integer_bias(proto)
        unfuse_dequantizers(proto, frozenset({"ConvTranspose"}))
    elif model.numerics == "int8-weights":
        int8_tables(proto)
        int8_weights(proto, CONVOLUTIONS | LINEAR)
    elif model.numerics == "int8-dynamic":
        int8_tables(proto)
        proto = dynamic_linears(proto)
        int8_weights(proto, CONVOLUTIONS)
    elif model.numerics == "fp16":
        proto = half_precision(proto)
    return proto


def _program(model: Model, batch: int | Literal["dynamic"]) -> ExportedProgram:
    """The program to translate: of the batch asked for, with integer weights already stored."""
    module = model.module()
    _store_integers(module)
    settle_layouts(module)
    cast_integers(module)
    write_plainly(module)
    fold_attention(module)
    static = model.numerics == "int8"
    linear_by_matrices(module, lambda n: is_antialiased(n) or (static and shrinks_cubically(n)))
    plain_averages(module, lambda n: has_divisor(n) or (static and hangs_over(n)))
    dynamic = batch == "dynamic"
    found = capture_program(
        module, tuple(_examples(model, batch)), dynamic=dynamic, axes=model.batch_axes
    )
    return found.program


def _examples(model: Model, batch: int | Literal["dynamic"]) -> Iterator[Tensor]:
    for entry in model.inputs:
        shape = entry.sized(batch) if isinstance(batch, int) else entry.shape
        yield torch.zeros(shape, dtype=entry.dtype)


def _store_integers(module: GraphModule) -> None:
    """Replace each quantize node of a constant by its result, under the constant's name."""
    for node in list(module.graph.nodes):
        operator: Any = node.target
        if operator not in _QUANTIZERS:
            continue
        args: tuple[Any, ...] = node.args
        if args[0].op != "get_attr":
            continue
        known = [_constant(module, a) if isinstance(a, torch.fx.Node) else a for a in args]
        owner, _, name = str(args[0].target).rpartition(".")
        stored = f"{name}_int8"
        module.get_submodule(owner).register_buffer(stored, operator(*known))
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(f"{owner}.{stored}" if owner else stored)
        node.replace_all_uses_with(constant)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _constant(module: GraphModule, node: torch.fx.Node) -> Tensor:
    owner, _, name = str(node.target).rpartition(".")
    tensor = getattr(module.get_submodule(owner), name)
    assert isinstance(tensor, Tensor)
    return tensor.detach()


def _translate(model: Model, program: ExportedProgram, opset: int) -> ModelProto:
    try:
        from onnxscript.onnx_opset import opset18
    except ImportError:
        raise MissingExtra("onnxscript", "compress") from None

    def dequantize_per_channel(  # noqa: PLR0913 - the operator's own signature
        x: Any, scales: Any, zeros: Any, axis: int, low: int, high: int, dtype: int, out: int = -1
    ) -> Any:
        return opset18.DequantizeLinear(x, scales, opset18.Cast(zeros, to=dtype), axis=axis)

    table: dict[Any, Any] = {quantized.dequantize_per_channel.default: dequantize_per_channel}
    try:
        result = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[i.name for i in model.inputs],
            custom_translation_table=table,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise Refused(f"onnx: {_refusal(error)}") from error
    assert result is not None
    proto: ModelProto = result.model_proto
    name_outputs(proto, [output.name for output in model.outputs])
    return proto


def _refusal(error: BaseException) -> str:
    """What the exporter stumbled over: the innermost error's first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"torch can't translate the model: {lines[0] if lines else type(error).__name__}"


def _serialize(proto: ModelProto) -> bytes:
    if proto.ByteSize() >= _LARGEST:
        size = proto.ByteSize() / 1024**3
        raise InputError(f"onnx: the model has {size:.1f} GiB; one file holds at most 2")
    return bytes(proto.SerializeToString(deterministic=True))
