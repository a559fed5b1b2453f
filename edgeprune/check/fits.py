# SPDX-License-Identifier: Apache-2.0
"""Whether a target's runtime takes a file: its numerics, its operators, its activation memory."""

from collections.abc import Iterator, Mapping, Sequence

from edgeprune.artifact import Contents, Layer
from edgeprune.artifact.graph import Artifact, Graph, Operator
from edgeprune.artifact.operators import LITE_PRODUCTS, ONNX_PRODUCTS, bare
from edgeprune.check.case import Subject
from edgeprune.check.judging import judged
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged
from edgeprune.report.text import plain, show
from edgeprune.target import Runtime, Target, find_operators
from edgeprune.units import format_bytes

__all__ = ["against_target"]

_TOLD = 3
"""Names in a reason; the others are counted."""
_UNPACKED = frozenset(
    {"DEQUANTIZE", "DequantizeLinear", "Cast", "CAST", "Transpose", "TRANSPOSE", "Reshape"}
)
"""What stands between a weight as it is stored and the float product that reads it."""
_PACKED = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2"})
_SMALLEST = 0.5
"""Share of what lives at one time that a measured arena has at least: operators may work in
place, which saves half of it."""


def against_target(subject: Subject) -> Iterator[Judged]:
    """Judge what no device is needed for; a file without a target has nothing to be judged by."""
    target = subject.case.target
    if target is None:
        return
    if subject.damage is not None:
        yield judged(subject, "target/format", "fail", f"{plain(subject.damage)}.")
        return
    known = subject.contents
    form = known.artifact.format
    runtime = target.onnx if form == "onnx" else target.tflite
    if runtime is None:
        yield judged(
            subject,
            "target/format",
            "fail",
            f"{target.name} has no runtime for {form} files; it takes {', '.join(target.formats)}.",
        )
        return
    yield _numerics(subject, known, runtime)
    yield _operators(subject, known, runtime)
    yield from _memory(subject, known, target)


def _numerics(subject: Subject, known: Contents, runtime: Runtime) -> Judged:
    """By the layers that multiply; where there are none, by all that calculate."""
    found = _found(known)
    takes = ", ".join(runtime.numerics)
    refused = {kind: names for kind, names in found.items() if kind not in runtime.numerics}
    if refused:
        kinds = "; ".join(f"{_listed(names)} in {kind}" for kind, names in refused.items())
        reason = (
            f"It computes {kinds}, and {runtime.name} takes {takes}: quantize it to one of these."
        )
        return judged(subject, "target/numerics", "fail", reason)
    reason = f"It computes in {', '.join(found) or 'nothing'}; {runtime.name} takes {takes}."
    return judged(subject, "target/numerics", "pass", reason)


def _found(known: Contents) -> Mapping[str, list[str]]:
    """Operators by their numerics, as a target names these."""
    found: dict[str, list[str]] = {}
    products = [layer for layer in known.counts.layers if layer.macs or _multiplies(layer)]
    operators = dict(_all(known.artifact.graph)) if products else {}
    for layer in products:
        if layer.kind == "int8":
            kind = "int8"
        else:
            graph, operator = operators.get(layer.name, (known.artifact.graph, None))
            kind = _of_floats(graph, operator, dynamic=layer.kind == "dynamic")
        found.setdefault(kind, []).append(layer.name)
    counts = known.counts
    if not products and (counts.floating or counts.int8 or counts.dynamic):
        sums = {"fp32": counts.floating, "int8": counts.int8, "int8-dynamic": counts.dynamic}
        found = {kind: [f"{number} operators"] for kind, number in sums.items() if number}
    return found


def _multiplies(layer: Layer) -> bool:
    """Whether a layer multiplies that can't be counted."""
    return layer.macs is None and bare(layer.type) in LITE_PRODUCTS | ONNX_PRODUCTS


def _of_floats(graph: Graph, operator: Operator | None, *, dynamic: bool) -> str:
    """The numerics of a product that isn't all in int8, by the types of what it reads."""
    if operator is None:
        return "int8-dynamic" if dynamic else "fp32"
    makers = {name: made for made in graph.operators for name in made.outputs if name}
    types = {_stored(graph, makers, name) for name in operator.inputs[:3] if name}
    if "int16" in types and types & _PACKED:
        return "int8 with int16 activations"
    if dynamic:
        return "int8-dynamic"
    if types & _PACKED or operator.type.endswith("NBits"):
        return "int8-weights"
    return "fp16" if "float16" in types else "fp32"


def _stored(graph: Graph, makers: Mapping[str, Operator], name: str) -> str:
    """The type of a constant in the file, or of a tensor that is no constant."""
    for _ in range(len(_UNPACKED)):
        tensor, maker = graph.tensors.get(name), makers.get(name)
        through = maker is not None and bare(maker.type) in _UNPACKED
        if maker is None or not through:
            return "" if tensor is None else tensor.dtype
        source = graph.tensors.get(maker.input(0))
        if source is not None and not source.constant and makers.get(maker.input(0)) is None:
            return "" if tensor is None else tensor.dtype  # an input of the model
        name = maker.input(0)
    return ""


def _all(graph: Graph) -> Iterator[tuple[str, tuple[Graph, Operator]]]:
    for operator in graph.operators:
        yield operator.name, (graph, operator)
        for inner in operator.graphs.values():
            yield from _all(inner)


def _operators(subject: Subject, known: Contents, runtime: Runtime) -> Judged:
    takes = None if runtime.operators is None else find_operators(runtime.operators)
    refused = [
        kind
        for kind in known.counts.kinds
        if kind not in runtime.custom and not _taken(kind, known.artifact, takes)
    ]
    if refused:
        reason = (
            f"{runtime.name} has no kernel for {_listed([plain(kind) for kind in refused])}: "
            "replace it in the model, or name it in the target's 'custom' if your build has it."
        )
        return judged(subject, "target/operators", "fail", reason)
    reason = f"{runtime.name} has kernels for its {len(known.counts.kinds)} types of operators."
    return judged(subject, "target/operators", "pass", reason)


def _taken(kind: str, artifact: Artifact, takes: frozenset[str] | None) -> bool:
    if kind in artifact.functions:
        return True  # the file itself says what it does, by operators that are judged too
    if takes is not None:
        return kind in takes
    if artifact.format == "onnx":
        return "." not in kind
    return not kind.startswith(("CUSTOM:", "BUILTIN_"))


def _memory(subject: Subject, known: Contents, target: Target) -> Iterator[Judged]:
    """The estimate against the limit of an arena, or else against all that the device has."""
    in_arena = target.memory_figure == "arena"
    limit = (subject.case.limits.budgets.memory if in_arena else None) or target.device.ram
    if limit is None or (in_arena and _is_measured(subject, known)):
        return
    estimate = subject.counted.get("arena_estimate")
    border = f"the {'limit' if in_arena else 'memory'} of {format_bytes(limit)}"
    if estimate is None:
        reason = (
            f"{border} isn't judged: the activation memory can't be estimated "
            f"({plain(known.no_arena)})."
        )
        yield judged(subject, "target/memory", "not measured", reason)
        return
    fits = estimate.value <= limit
    fact = f"activations take {show(estimate)}"
    reason = (
        f"{fact} of {border} (estimated, without the runtime's own)."
        if fits
        else f"{fact}, and {border} on {target.name} is less (estimated): "
        "prune more, or use smaller inputs."
    )
    yield judged(
        subject,
        "target/memory",
        "pass" if fits else "fail",
        reason,
        figure=estimate,
        limit=float(limit),
    )


def _is_measured(subject: Subject, known: Contents) -> bool:
    """Whether an arena was measured, and is no less than what the file must need."""
    arena: Figure | None = (subject.device or {}).get("arena")
    least = 0 if known.arena is None else known.arena.needed
    return arena is not None and arena.value >= _SMALLEST * least


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(plain(name)[-60:] for name in names[:_TOLD])
    more = len(names) - _TOLD
    return f"{shown} and {more} more" if more > 0 else shown
