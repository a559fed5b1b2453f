# SPDX-License-Identifier: Apache-2.0
"""The runtimes themselves: onnxruntime, and LiteRT by any of the names that it had.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import DeviceError, InputError, MissingExtra

__all__ = [
    "LiteBackend",
    "OnnxBackend",
    "TensorSpec",
    "lite_runtime",
    "onnx_runtime",
    "openable",
    "quiet",
]

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
_LITE = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, shape (a string names a dynamic dimension), numpy dtype."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


class OnnxBackend:
    """A file loaded into onnxruntime."""

    format = "onnx"

    def __init__(self, path: Path, threads: int, profile: Path | None = None) -> None:
        self.runtime, ort = onnx_runtime()
        self.path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads would burn the cores that the next measured process needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # What goes wrong is raised with its text, so nothing needs to be printed as well.
        options.log_severity_level = _FATAL
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        try:
            with quiet(), openable(path) as name:
                self._session = ort.InferenceSession(
                    name, options, providers=["CPUExecutionProvider"]
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
        """Say that a fixed batch stays as it is."""
        return False

    def end_profile(self) -> Path | None:
        """Stop profiling and name the file that was written."""
        return Path(self._session.end_profiling())

    def invoke(self, arrays: list[Array]) -> list[Array]:
        """Run once.

        Raises:
            DeviceError: The runtime failed.
        """
        feed = {spec.name: arrays[index] for index, spec in enumerate(self.inputs)}
        try:
            return [np.asarray(result) for result in self._session.run(None, feed)]
        except Exception as error:  # its exceptions share no base class
            raise DeviceError(f"{self.path}: {self.runtime} failed: {_line(error)}") from None


class LiteBackend:
    """A file loaded into LiteRT or one of its forerunners.

    With ``plain`` its built-in kernels run all of it, no delegate takes over a part (XNNPACK does
    otherwise, and plans its tensors out of sight).
    """

    format = "tflite"

    def __init__(self, path: Path, threads: int, *, plain: bool = False) -> None:
        self.path = path
        self._plain = plain
        self._threads = threads
        self._resizable = True
        self.runtime, self._kind = lite_runtime()
        self._open()
        inputs, outputs = self._ordered()
        self.input_ids = [detail["index"] for _, detail in inputs]
        self._output_ids = [detail["index"] for _, detail in outputs]
        self.inputs = tuple(_lite_spec(name, detail) for name, detail in inputs)
        self.outputs = tuple(_lite_spec(name, detail) for name, detail in outputs)
        self._shapes = self._native = tuple(tuple(map(int, d["shape"])) for _, d in inputs)

    def end_profile(self) -> Path | None:
        """Say that there is no profile: none of these packages offers one in Python."""
        return None

    def _open(self) -> None:
        try:
            with quiet(), openable(self.path) as name:
                self.interpreter = self._kind(
                    model_path=name, num_threads=self._threads, **self._without_delegates()
                )
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise InputError(f"{self.path}: {self.runtime} refuses it: {_line(error)}") from None

    def _without_delegates(self) -> dict[str, Any]:
        if not self._plain:
            return {}
        resolvers = getattr(sys.modules[self._kind.__module__], "OpResolverType", None)
        if resolvers is None:
            raise InputError(f"{self.path}: {self.runtime} can't do without delegates")
        return {"experimental_op_resolver_type": resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES}

    def _ordered(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Name and order inputs and outputs as the signature does, if there is exactly one."""
        inputs = self.interpreter.get_input_details()
        outputs = self.interpreter.get_output_details()
        signatures = self.interpreter.get_signature_list()
        if len(signatures) != 1:
            return [(d["name"], d) for d in inputs], [(d["name"], d) for d in outputs]
        runner = self.interpreter.get_signature_runner(next(iter(signatures)))
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
            self.interpreter.invoke()  # some models allow the allocation and then fail here
            batch = shapes[0][0]
            got = [self.interpreter.get_tensor(index).shape[:1] for index in self._output_ids]
            if all(dim == (batch,) for dim in got):
                return True
        except (ValueError, RuntimeError):
            pass
        self._resizable = False
        self._shapes = self._native
        self._open()  # a failed allocation leaves the old interpreter unusable
        return False

    def _resize(self, shapes: Shapes) -> None:
        with quiet():
            for position, index in enumerate(self.input_ids):
                self.interpreter.resize_tensor_input(index, list(shapes[position]), strict=False)
            self.interpreter.allocate_tensors()
        self._shapes = shapes

    def invoke(self, arrays: list[Array]) -> list[Array]:
        """Run once.

        Raises:
            DeviceError: The runtime failed.
        """
        shapes = tuple(array.shape for array in arrays)
        try:
            if shapes != self._shapes:
                self._resize(shapes)
            for position, index in enumerate(self.input_ids):
                self.interpreter.set_tensor(index, arrays[position])
            self.interpreter.invoke()
            return [self.interpreter.get_tensor(index) for index in self._output_ids]
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"{self.path}: {self.runtime} failed: {_line(error)}") from None


def onnx_runtime() -> tuple[str, Any]:
    """Name and version of onnxruntime, and the module.

    Raises:
        MissingExtra: It isn't installed.
    """
    # Else it writes an identity of this machine into the home folder, to report its use by.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with quiet():
            import onnxruntime as ort
    except ImportError:
        raise MissingExtra("onnxruntime", "device") from None
    return f"onnxruntime {ort.__version__}", ort


def lite_runtime() -> tuple[str, Any]:
    """Name and version of what runs TFLite files here, and its interpreter's class.

    Raises:
        MissingExtra: None of the three packages is installed.
    """
    for package, module in _LITE.items():
        try:
            with quiet():
                found = importlib.import_module(module)
        except ImportError:
            continue
        lite = found.lite if package == "tensorflow" else found
        return f"{package} {_version(package, found)}", lite.Interpreter
    raise MissingExtra("ai-edge-litert (or tflite-runtime, or tensorflow)", "device")


def _version(package: str, module: Any) -> str:
    """Version of a package that may have been installed under another name (``-nightly``)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", "of unknown version"))


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
def openable(path: Path) -> Iterator[str]:
    """A name that native code takes, for a file whose own name need not be UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        number = os.open(path, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{number}"
        finally:
            os.close(number)
    else:
        yield str(path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
    # LiteRT says nothing where it gets no memory for the tensors.
    return " ".join(str(error).split()) or "it gives no reason, most likely for want of memory"
