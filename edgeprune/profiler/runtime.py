# SPDX-License-Identifier: Apache-2.0
"""One way to run an artifact, whatever its format: onnxruntime or LiteRT, chosen by content.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import DeviceError, InputError, MissingExtra
from edgeprune.profiler.formats import detect_format

__all__ = ["Session", "TensorSpec", "detect_format", "import_runtime", "open_session"]

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
    Shapes = tuple[tuple[int, ...], ...]

_ONNX_TYPES = {
    "bool": "bool",
    "double": "float64",
    "float": "float32",
    "float16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
}
_FATAL = 4


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, shape (a string names a dynamic dimension), numpy dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


def import_runtime(form: str) -> str:
    """Import what runs ``form`` (``onnx`` or ``tflite``) and give its name and version.

    Raises:
        MissingExtra: It isn't installed.
    """
    return (_onnx_runtime() if form == "onnx" else _lite_runtime())[0]


def open_session(path: Path, threads: int = 1) -> Session:
    """Load ``path`` into its runtime with ``threads`` compute threads.

    Raises:
        InputError: The file is missing, neither ONNX nor TFLite, or its runtime refuses it.
        MissingExtra: The runtime isn't installed.
    """
    path = Path(path)
    backend = _Onnx if detect_format(path) == "onnx" else _Lite
    return Session(backend(path, threads))


class Session:
    """A loaded artifact.

    A batch that differs from a fixed one works too where dimension 0 of all inputs and outputs is
    the batch: LiteRT is resized if the model allows; else the samples are run in chunks of the
    fixed batch, the last one filled up by repeating its last sample.
    """

    def __init__(self, backend: _Onnx | _Lite) -> None:
        self._backend = backend
        self._direct: tuple[Any, ...] | None = None
        self.inputs: tuple[TensorSpec, ...] = backend.inputs
        self.outputs: tuple[TensorSpec, ...] = backend.outputs
        self.format: str = backend.format
        self.runtime: str = backend.runtime
        """Name and version of what runs it."""

    def run(self, arrays: list[Array]) -> list[Array]:
        """Run once: arrays in the order of ``inputs``, results in the order of ``outputs``.

        Raises:
            InputError: Wrong number, dtype or shape of ``arrays``.
            DeviceError: The runtime failed while running.
        """
        forms = tuple((array.shape, array.dtype.char) for array in arrays)
        if forms == self._direct:
            return self._backend.invoke(arrays)
        self._check(arrays)
        fixed = self._fixed_batch(arrays)
        if fixed is None or self._resizes(tuple(array.shape for array in arrays), fixed):
            self._direct = forms
            return self._backend.invoke(arrays)
        self._direct = None
        return self._in_chunks(arrays, fixed)

    def _check(self, arrays: list[Array]) -> None:
        where = self._backend.path.name
        if len(arrays) != len(self.inputs):
            names = ", ".join(spec.name for spec in self.inputs)
            raise InputError(
                f"{where} takes {len(self.inputs)} inputs ({names}), got {len(arrays)}"
            )
        for index, spec in enumerate(self.inputs):
            array = arrays[index]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(dim, str) or dim == array.shape[axis]
                for axis, dim in enumerate(spec.shape)
                if axis > 0
            )
            if not fits or array.dtype.name != spec.dtype:
                raise InputError(
                    f"{where}: input {spec.name} is {spec.dtype} {_text(spec.shape)}, "
                    f"got {array.dtype.name} {_text(array.shape)}"
                )

    def _fixed_batch(self, arrays: list[Array]) -> int | None:
        """Give the batch that the artifact is fixed to where ``arrays`` have another one."""
        wanted = [spec.shape[0] if spec.shape else None for spec in self.inputs]
        given = [array.shape[0] if array.shape else None for array in arrays]
        if all(isinstance(w, str) or w == g for w, g in zip(wanted, given)):  # noqa: B905 - 3.8
            return None
        fixed = wanted[0]
        if not isinstance(fixed, int) or not given[0] or len({*wanted}) > 1 or len({*given}) > 1:
            raise InputError(
                f"{self._backend.path.name}: dimension 0 of the inputs is {_text(tuple(wanted))}, "
                f"got {_text(tuple(given))}"
            )
        return fixed

    def _resizes(self, shapes: Shapes, fixed: int) -> bool:
        batched = all(spec.shape and spec.shape[0] == fixed for spec in self.outputs)
        return batched and self._backend.resizes(shapes)

    def _in_chunks(self, arrays: list[Array], fixed: int) -> list[Array]:
        total = arrays[0].shape[0]
        parts = []
        for start in range(0, total, fixed):
            rows = np.minimum(np.arange(start, start + fixed), total - 1)
            parts.append(self._backend.invoke([array[rows] for array in arrays]))
        for index, result in enumerate(parts[0]):
            if result.ndim == 0 or result.shape[0] != fixed:
                raise InputError(
                    f"{self._backend.path.name}: output {self.outputs[index].name} has no batch "
                    f"dimension, so only batches of {fixed} can be run"
                )
        return [np.concatenate(column)[:total] for column in zip(*parts)]  # noqa: B905 - 3.8


class _Onnx:
    format = "onnx"

    def __init__(self, path: Path, threads: int) -> None:
        self.runtime, ort = _onnx_runtime()
        self.path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads would burn the cores that the next measured process needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # What goes wrong is raised with its text, so nothing needs to be printed as well.
        options.log_severity_level = _FATAL
        try:
            with _quiet():
                self._session = ort.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:  # its exceptions share no base class
            raise InputError(f"{path}: {self.runtime} refuses it: {_line(error)}") from None
        self.inputs = tuple(self._spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(self._spec(node) for node in self._session.get_outputs())

    def _spec(self, node: Any) -> TensorSpec:
        match = re.fullmatch(r"tensor\((\w+)\)", node.type)
        dtype = _ONNX_TYPES.get(match[1] if match else "")
        if dtype is None:
            allowed = ", ".join(sorted(_ONNX_TYPES))
            raise InputError(f"{self.path}: {node.name} is {node.type}; allowed: {allowed}")
        named = enumerate(node.shape)
        shape = tuple(dim if isinstance(dim, (int, str)) else f"dim{k}" for k, dim in named)
        return TensorSpec(node.name, shape, dtype)

    def resizes(self, shapes: Shapes) -> bool:
        return False

    def invoke(self, arrays: list[Array]) -> list[Array]:
        feed = {spec.name: arrays[index] for index, spec in enumerate(self.inputs)}
        try:
            return [np.asarray(result) for result in self._session.run(None, feed)]
        except Exception as error:  # its exceptions share no base class
            raise DeviceError(f"{self.path}: {self.runtime} failed: {_line(error)}") from None


class _Lite:
    format = "tflite"

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        self._threads = threads
        self._resizable = True
        self.runtime, self._interpreter_type = _lite_runtime()
        self._open()
        inputs, outputs = self._ordered()
        self._input_ids = [detail["index"] for _, detail in inputs]
        self._output_ids = [detail["index"] for _, detail in outputs]
        self.inputs = tuple(_lite_spec(name, detail) for name, detail in inputs)
        self.outputs = tuple(_lite_spec(name, detail) for name, detail in outputs)
        self._shapes = self._native = tuple(tuple(map(int, d["shape"])) for _, d in inputs)

    def _open(self) -> None:
        try:
            with _quiet():
                self._interpreter = self._interpreter_type(
                    model_path=str(self.path), num_threads=self._threads
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{self.path}: {self.runtime} refuses it: {_line(error)}") from None

    def _ordered(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Name and order inputs and outputs as the signature does, if there is exactly one."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        signatures = self._interpreter.get_signature_list()
        if len(signatures) != 1:
            return [(d["name"], d) for d in inputs], [(d["name"], d) for d in outputs]
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        return (
            _signature_order(runner.get_input_details(), inputs),
            _signature_order(runner.get_output_details(), outputs),
        )

    def resizes(self, shapes: Shapes) -> bool:
        """Resize to ``shapes`` and say whether the model allowed it; else it is as before."""
        if not self._resizable:
            return False
        try:
            self._resize(shapes)
            self._interpreter.invoke()  # some models allow the allocation and then fail here
            batch = shapes[0][0]
            got = [self._interpreter.get_tensor(index).shape[:1] for index in self._output_ids]
            if all(dim == (batch,) for dim in got):
                return True
        except (ValueError, RuntimeError):
            pass
        self._resizable = False
        self._shapes = self._native
        self._open()  # a failed allocation leaves the old interpreter unusable
        return False

    def _resize(self, shapes: Shapes) -> None:
        with _quiet():
            for position, index in enumerate(self._input_ids):
                self._interpreter.resize_tensor_input(index, list(shapes[position]), strict=False)
            self._interpreter.allocate_tensors()
        self._shapes = shapes

    def invoke(self, arrays: list[Array]) -> list[Array]:
        shapes = tuple(array.shape for array in arrays)
        try:
            if shapes != self._shapes:
                self._resize(shapes)
            for position, index in enumerate(self._input_ids):
                self._interpreter.set_tensor(index, arrays[position])
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._output_ids]
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"{self.path}: {self.runtime} failed: {_line(error)}") from None


def _onnx_runtime() -> tuple[str, Any]:
    try:
        with _quiet():
            import onnxruntime as ort
    except ImportError:
        raise MissingExtra("onnxruntime", "device") from None
    return f"onnxruntime {ort.__version__}", ort


def _lite_runtime() -> tuple[str, Any]:
    from importlib.metadata import version

    with _quiet():
        try:
            from ai_edge_litert.interpreter import Interpreter

            return f"ai-edge-litert {version('ai-edge-litert')}", Interpreter
        except ImportError:
            pass
        try:
            from tflite_runtime.interpreter import Interpreter

            return f"tflite-runtime {version('tflite-runtime')}", Interpreter
        except ImportError:
            raise MissingExtra("ai-edge-litert (or tflite-runtime)", "device") from None


def _lite_spec(name: str, detail: Any) -> TensorSpec:
    sizes = [int(size) for size in detail.get("shape_signature", detail["shape"])]
    if len(sizes) != len(detail["shape"]):  # some converters leave the signature empty
        sizes = [int(size) for size in detail["shape"]]
    shape = tuple(
        size if size >= 0 else ("batch" if axis == 0 else f"dim{axis}")
        for axis, size in enumerate(sizes)
    )
    return TensorSpec(name, shape, np.dtype(detail["dtype"]).name)


def _signature_order(named: dict[str, Any], graph: list[Any]) -> list[tuple[str, Any]]:
    """Order of a signature's tensors.

    The runtime gives them alphabetically, so the order that was meant is lost: it is taken from
    numbered names (``output_2`` before ``output_10``), else from the graph's own order.
    """
    numbered = {name: re.fullmatch(r"(.*?)(\d+)", name) for name in named}
    matches = [match for match in numbered.values() if match is not None]
    if len(matches) == len(named) and len({match[1] for match in matches}) == 1:
        return sorted(named.items(), key=lambda item: int(item[0][len(matches[0][1]) :]))
    position = {detail["index"]: place for place, detail in enumerate(graph)}
    last = len(position)
    return sorted(named.items(), key=lambda item: position.get(item[1]["index"], last))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what native code writes to standard error off the terminal."""
    try:
        saved = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _text(shape: tuple[Any, ...]) -> str:
    return "x".join(str(dim) for dim in shape) or "scalar"
