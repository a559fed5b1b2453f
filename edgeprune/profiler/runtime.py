# SPDX-License-Identifier: Apache-2.0
"""One way to run an artifact, whatever its format: onnxruntime or LiteRT, chosen by content.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import InputError
from edgeprune.profiler.backends import (
    LiteBackend,
    OnnxBackend,
    TensorSpec,
    lite_runtime,
    onnx_runtime,
)
from edgeprune.profiler.formats import detect_format

__all__ = ["Session", "TensorSpec", "detect_format", "import_runtime", "open_session"]

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
    Shapes = tuple[tuple[int, ...], ...]


def import_runtime(form: str) -> str:
    """Import what runs ``form`` (``onnx`` or ``tflite``) and give its name and version.

    Raises:
        MissingExtra: It isn't installed.
    """
    return (onnx_runtime() if form == "onnx" else lite_runtime())[0]


def open_session(path: Path, threads: int = 1, *, profile: Path | None = None) -> Session:
    """Load ``path`` into its runtime with ``threads`` compute threads.

    With ``profile``, the start of a file's path, onnxruntime writes a profile of all runs to a file
    that ``Session.end_profile`` names; LiteRT has none.

    Raises:
        InputError: The file is missing, neither ONNX nor TFLite, or its runtime refuses it.
        MissingExtra: The runtime isn't installed.
    """
    path = Path(path)
    if detect_format(path) == "onnx":
        return Session(OnnxBackend(path, threads, profile))
    return Session(LiteBackend(path, threads))


class Session:
    """A loaded artifact.

    A batch that differs from a fixed one works too where dimension 0 of all inputs and outputs is
    the batch: LiteRT is resized if the model allows; else the samples are run in chunks of the
    fixed batch, the last one filled up by repeating its last sample.
    """

    def __init__(self, backend: OnnxBackend | LiteBackend) -> None:
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

    def end_profile(self) -> Path | None:
        """Stop profiling: the file of the profile, or None where the runtime writes none."""
        return self._backend.end_profile()

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


def _text(shape: tuple[Any, ...]) -> str:
    return "x".join(str(dim) for dim in shape) or "scalar"
