# SPDX-License-Identifier: Apache-2.0
"""Record what the artifacts of a run answer, so that a device can be asked the same.

One batch goes through every artifact on this machine, in its runtime's usual way and, for
comparison, in the plain way: onnxruntime without its optimisations, LiteRT without its delegate.
Both are right, so how far they are apart is what no device can be blamed for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.data import Data
from edgeprune.deploy.health import Expected, ExpectedOutput, Health
from edgeprune.errors import InputError
from edgeprune.export import flatbuffer
from edgeprune.export.feed import evaluation_batches, random_batches
from edgeprune.model import Model
from edgeprune.profiler.inputs import real_inputs
from edgeprune.profiler.runtime import Session, open_session
from edgeprune.recipe import Format, Numerics
from edgeprune.report.schema import Artifact

__all__ = ["FILE", "output_steps", "record"]

Array = np.ndarray[Any, Any]
FILE = "health.npz"

# Largest difference between this kind of machine (x86-64) and Cortex-A72 or A76, the same files and
# onnxruntime 1.31.1 or ai-edge-litert 2.3.0 there, as a share of the outputs' range, over six
# samples of a ResNet-20, a small MobileNet-v2 and a small ViT; what is allowed is at least four
# times that.
_SHARES: dict[tuple[Numerics, Format], tuple[float, str]] = {
    # 3.0e-7 in both: sums in another order
    ("fp32", "onnx"): (1e-5, "floats added in another order"),
    ("fp32", "tflite"): (1e-5, "floats added in another order"),
    # 1.9e-3 on the A76, which computes in halves; 1.5e-4 on the A72, which doesn't
    ("fp16", "onnx"): (1e-2, "some cores compute in halves"),
    # 2.4e-7: halves are only stored
    ("fp16", "tflite"): (1e-5, "floats added in another order"),
    # 2.1e-3: a last bit decides which step an activation is rounded to
    ("int8-dynamic", "onnx"): (1e-2, "activations are rounded at run time"),
    ("int8-dynamic", "tflite"): (1e-2, "activations are rounded at run time"),
    # 5.2e-3 for the ViT, whose products onnxruntime makes of blocks of integers; CNNs 3.3e-7
    ("int8-weights", "onnx"): (2e-2, "products are made of blocks of integers"),
    # 2.0e-7: integers are only stored
    ("int8-weights", "tflite"): (1e-5, "floats added in another order"),
}
_AFTER_INT8 = (2e-2, "it is computed in float from int8 values: five steps of 1/255")
_MOVES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"} | {
    "EXPAND_DIMS",
    "RESHAPE",
    "SQUEEZE",
    "TRANSPOSE",
}
_WHOLE = "integers that are no quantized values"


def record(
    artifacts: Sequence[Artifact],
    files: Mapping[str, Path],
    model: Model,
    path: Path,
    *,
    data: Data | None,
    seed: int,
    threads: int = 1,
) -> Health:
    """Run one batch through each artifact and write inputs and outputs to ``path``.

    Args:
        artifacts: As the export reported them.
        files: Where they are, by file name.
        model: What they were made from.
        path: The ``.npz`` to write; equal content, equal bytes.
        data: Its first evaluation samples are the batch; without it, random numbers are.
        seed: Of the random numbers.
        threads: Compute threads.

    Raises:
        InputError: A runtime refuses a file.
        DeviceError: A runtime failed.
    """
    arrays: dict[str, Array] = {}
    expected: dict[str, Expected] = {}
    for artifact in artifacts:
        file = files[artifact.file]
        session = open_session(file, threads)
        inputs = _inputs(session, model, data, seed)
        outputs = session.run(inputs)
        arrays |= {f"{artifact.file}:input:{k}": array for k, array in enumerate(inputs)}
        arrays |= {f"{artifact.file}:output:{k}": array for k, array in enumerate(outputs)}
        expected[artifact.file] = Expected(
            runtime=session.runtime,
            inputs=tuple(spec.name for spec in session.inputs),
            outputs=tuple(_tolerances(artifact, file, session, inputs, outputs)),
        )
    np.savez(path, **arrays)  # type: ignore[arg-type] # its stub takes the arrays for its option
    kind = f"random numbers, seed {seed}" if data is None else "evaluation data"
    return Health(file=path.name, inputs=kind, artifacts=expected)


def _inputs(session: Session, model: Model, data: Data | None, seed: int) -> list[Array]:
    """One batch: as many samples as the artifact is fixed to, or one; in its own layout."""
    axes = model.batch_axes
    pairs = zip(session.inputs, axes, strict=True)
    first = next((spec.shape[axis] for spec, axis in pairs if axis is not None), 1)
    size = first if isinstance(first, int) else 1
    batches = random_batches(model, size, seed) if data is None else evaluation_batches(data, size)
    if not batches:
        raise InputError("the data has no evaluation samples to record the health check with")
    columns = [
        parts[0] if axis is None else _repeated(parts, axis, size)
        for parts, axis in zip(zip(*batches, strict=True), axes, strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / "batch.npz"
        np.savez(path, *columns)
        return real_inputs(session.inputs, path)


def _repeated(parts: Sequence[Array], axis: int, size: int) -> Array:
    """``size`` samples of a column of batches, from the first again where there are fewer."""
    whole: Array = np.concatenate(parts, axis)
    taken: Array = whole.take(np.arange(size) % whole.shape[axis], axis)
    return taken


def _tolerances(
    artifact: Artifact, file: Path, session: Session, inputs: list[Array], outputs: list[Array]
) -> Iterator[ExpectedOutput]:
    steps = output_steps(file) if artifact.numerics == "int8" else {}
    plain = _plainly(session, file, inputs)
    for spec, wanted, other in zip(session.outputs, outputs, plain, strict=True):
        yield _tolerance(artifact, spec.name, steps.get(spec.name), wanted, other)


def _tolerance(
    artifact: Artifact, name: str, step: float | None, wanted: Array, other: Array | None
) -> ExpectedOutput:
    if wanted.dtype.kind != "f" and step is None:
        exact = artifact.numerics == "fp32"
        why = f"{_WHOLE}: {'must be equal' if exact else 'rounding may change them at will'}"
        return ExpectedOutput(name=name, tolerance=0.0 if exact else None, why=why)
    apart = _apart(wanted, other)
    if step is not None:
        count = max(1, int(np.ceil(round(apart / step, 3))))
        why = "one int8 step" if count == 1 else f"{count} int8 steps, {_PLAIN}"
        # a little over the steps: their product with the scale is rounded too
        return ExpectedOutput(name=name, tolerance=count * step * 1.001, why=why)
    share, why = _SHARES.get((artifact.numerics, artifact.format), _AFTER_INT8)
    least = share * _scale(wanted)
    if apart > least:
        return ExpectedOutput(name=name, tolerance=apart, why=_PLAIN)
    return ExpectedOutput(name=name, tolerance=least, why=f"{share:g} of its range: {why}")


_PLAIN = "as far as the runtime's optimised and plain kernels were apart where it was made"


def _scale(array: Array) -> float:
    """The range of an output; where all its values are about the same, their magnitude."""
    finite = array[np.isfinite(array)].astype(np.float64)
    return max(float(np.ptp(finite)), float(np.abs(finite).max())) if finite.size else 0.0


def _apart(wanted: Array, other: Array | None) -> float:
    if other is None or other.shape != wanted.shape:
        return 0.0
    a, b = wanted.astype(np.float64), other.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.abs(a - b)[both].max(initial=0.0))


def _plainly(session: Session, file: Path, inputs: list[Array]) -> list[Array | None]:
    """The same outputs by the runtime's plain kernels; ``None`` where those don't run the file."""
    run = _plain_onnx if session.format == "onnx" else _plain_lite
    try:
        return list(run(session, file, inputs))
    except (RuntimeError, ValueError):  # those of both runtimes are one or the other
        return [None] * len(session.outputs)


def _plain_onnx(session: Session, file: Path, inputs: list[Array]) -> list[Array]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    plain = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in session.inputs]
    found = plain.run(
        [spec.name for spec in session.outputs], dict(zip(names, inputs, strict=True))
    )
    return [np.asarray(array) for array in found]


def _plain_lite(session: Session, file: Path, inputs: list[Array]) -> list[Array]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    plain = Interpreter(model_path=str(file), experimental_op_resolver_type=kernels)
    signatures = plain.get_signature_list()
    if len(signatures) != 1:
        raise ValueError("no single signature that names the tensors")
    plain.allocate_tensors()
    run = plain.get_signature_runner(next(iter(signatures)))
    names = [spec.name for spec in session.inputs]
    found = run(**dict(zip(names, inputs, strict=True)))
    return [np.asarray(found[spec.name]) for spec in session.outputs]


def output_steps(file: Path) -> dict[str, float]:
    """The quantization step of each output of a file, by its name, in the output's own unit.

    It is 1 where the output is the 8-bit integers themselves; outputs that aren't made by
    dequantizing one tensor with one scale are left out.
    """
    return _lite_steps(file) if file.suffix == ".tflite" else _onnx_steps(file)


def _onnx_steps(file: Path) -> dict[str, float]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(file).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    eight = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    steps: dict[str, float] = {}
    for output in graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in _MOVES:
            node = makers.get(node.input[0])
        if output.type.tensor_type.elem_type in eight:
            steps[output.name] = 1.0
        elif node is not None and node.op_type == "DequantizeLinear" and node.input[1] in constants:
            scale = np.ravel(numpy_helper.to_array(constants[node.input[1]]))
            if scale.size == 1:
                steps[output.name] = float(scale[0])
    return steps


def _lite_steps(file: Path) -> dict[str, float]:
    model = flatbuffer.load(file.read_bytes(), str(file))
    graph = flatbuffer.view(model)
    makers = {tensor.index: op for op in graph.ops for tensor in op.outputs}
    tensors = {tensor.index: tensor for tensor in graph.outputs}
    signatures = model.signatureDefs or ()
    names = {entry.tensorIndex: entry.name.decode() for s in signatures for entry in s.outputs}
    steps: dict[str, float] = {}
    for index, tensor in tensors.items():
        name, op = names.get(index, tensor.name), makers.get(index)
        while op is not None and op.kind in _MOVES and op.inputs[0] is not None:
            op = makers.get(op.inputs[0].index)
        source = op.inputs[0] if op is not None and op.kind == "DEQUANTIZE" else None
        if tensor.dtype in ("int8", "uint8"):
            steps[name] = 1.0
        elif source is not None and source.scale is not None and len(source.scale) == 1:
            steps[name] = float(source.scale[0])
    return steps
