# SPDX-License-Identifier: Apache-2.0
"""TorchScript files: converted where torch can and held against the original, or refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._export.converter import TS2EPConverter
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model.capture import Captured, capture_program, export_once
from edgeprune.model.names import Place, leaf_places
from edgeprune.model.program import quietly, reason, unlift
from edgeprune.model.shapes import Axes, batch_axes, batch_size, resized

__all__ = ["convert", "open_torchscript"]

_TOLERANCE = 1e-4
"""Largest difference of an output from the original's, of the largest output."""
_CONV = (
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
)
_TRANSPOSED = (
    torch.ops.aten.conv_transpose1d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.conv_transpose3d.input,
)


def open_torchscript(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript archive, in eval mode.

    Raises:
        ModelError: It is damaged or needs operators that aren't installed.
    """
    try:
        with quietly():
            script: torch.jit.ScriptModule = torch.jit.load(  # type: ignore[no-untyped-call]
                path, map_location="cpu"
            )
            script.eval()
    except Exception as error:  # torch's reader raises anything
        raise ModelError(f"{path}: can't be loaded as TorchScript: {reason(error)}") from error
    return script


def convert(
    script: torch.jit.ScriptModule,
    example: tuple[Tensor, ...],
    path: Path,
    axes: Axes | None = None,
) -> Captured:
    """The program of a TorchScript module, with notes.

    The conversion traces, so sizes may have become literals: a dynamic batch is kept only where
    the program gives the original's outputs at other batch sizes too.

    Raises:
        ModelError: It can't be converted; the message names the way out.
    """
    first = failure = ""
    axes = batch_axes(example) if axes is None else axes
    for batch, dynamic in ((2, True), (1, False), (batch_size(example, axes), False)):
        args = resized(example, batch, axes)
        try:
            module = _graph(script, args, dynamic, axes)
            found = capture_program(module, args, dynamic=dynamic, axes=axes)
            if dynamic and found.notes:
                raise ModelError(found.notes[0].partition(": ")[2])
            for size in (1, 3) if dynamic else (batch,):
                places = _compare(script, unlift(found.program), resized(example, size, axes))
        except Exception as error:  # the converter raises anything
            failure = reason(error)
            first = first or failure
            continue
        notes = () if dynamic else (f"static batch of {batch}: {first}",)
        return replace(found, places=places, notes=notes)
    raise ModelError(
        f"{path}: this TorchScript can't be converted ({failure}); export the original module with "
        "torch.export.export and torch.export.save, and give that .pt2 file"
    )


class _Converter(TS2EPConverter):
    """Torch's converter, which would make every size dynamic, with all fixed but the batch."""

    def __init__(
        self, script: torch.jit.ScriptModule, args: tuple[Tensor, ...], dynamic: bool, axes: Axes
    ) -> None:
        super().__init__(script, args)
        self.dynamic, self.axes = dynamic, axes

    def retrace_as_exported_program(
        self, gm: GraphModule, name_to_constant: dict[str, Any]
    ) -> ExportedProgram:
        return export_once(gm, self.sample_args, Dim.AUTO if self.dynamic else None, self.axes)


def _graph(
    script: torch.jit.ScriptModule, args: tuple[Tensor, ...], dynamic: bool, axes: Axes
) -> GraphModule:
    """The converted graph, parameters being parameters again and convolutions named by kind."""
    with quietly():
        module = unlift(_Converter(script, args, dynamic, axes).convert())
    trainable = {name for name, _ in script.named_parameters()}
    for prefix, part in module.named_modules():
        for name, buffer in list(part._buffers.items()):
            full = f"{prefix}.{name}" if prefix else name
            if full in trainable and buffer is not None:
                del part._buffers[name]
                part.register_parameter(name, nn.Parameter(buffer))
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten.convolution.default:
            _specialise(module, node)
    module.recompile()
    return module


def _specialise(module: GraphModule, node: Node) -> None:
    """Write ``aten.convolution`` as the convolution that it is, as every capture writes it."""
    names = [a.name for a in torch.ops.aten.convolution.default._schema.arguments]
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    *front, stride, padding, dilation, transposed, output_padding, groups = (
        given[n] for n in names
    )
    rank = len(stride)
    if transposed:
        args = (*front, stride, padding, output_padding, groups, dilation)
        target = _TRANSPOSED[rank - 1]
    else:
        args = (*front, stride, padding, dilation, groups)
        target = _CONV[rank - 1]
    with module.graph.inserting_before(node):
        new = module.graph.call_function(target, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def _compare(script: nn.Module, module: GraphModule, like: Sequence[Tensor]) -> tuple[Place, ...]:
    """Run both on random inputs; gives the place of each output in what the original returns.

    Raises:
        ValueError: An output differs.
    """
    generator = torch.Generator().manual_seed(0)
    args = [
        torch.randn(t.shape, generator=generator).to(t.dtype) if t.is_floating_point() else t
        for t in like
    ]
    with quietly(), torch.no_grad():
        result = script(*[a.clone() for a in args])
        wanted, got = (pytree.tree_leaves(r) for r in (result, module(*[a.clone() for a in args])))
    if len(wanted) != len(got):
        raise ValueError(f"{len(got)} outputs instead of {len(wanted)}")
    for a, b in zip(wanted, got, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"an output has the shape {tuple(b.shape)}, not {tuple(a.shape)}")
        scale = float(a.double().abs().max()) if a.numel() else 0.0
        if a.numel() and float((a.double() - b.double()).abs().max()) > _TOLERANCE * max(
            scale, 1.0
        ):
            raise ValueError("an output differs from the original's at another batch size")
    return tuple(leaf_places(pytree.tree_structure(result)))
