# SPDX-License-Identifier: Apache-2.0
"""ONNX's constants and types: what the file holds, without reading the weights."""

from __future__ import annotations

import struct
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from edgeprune.artifact import limits
from edgeprune.artifact.graph import SIZES, Dims, Tensor, elements, stored_bytes
from edgeprune.artifact.source import regular, shown
from edgeprune.artifact.wire import Field, Wire
from edgeprune.errors import InputError

__all__ = ["DTYPES", "Tensors"]

DTYPES = (
    "", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool",
    "float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "uint4", "int4",
    "float4_e2m1", "float8_e8m0", "uint2", "int2",
)  # fmt: skip
"""By ``TensorProto.DataType``."""
_FORMATS = {
    "float32": "f", "float64": "d", "float16": "e", "int8": "b", "uint8": "B", "bool": "?",
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
}  # fmt: skip
_TYPED = {4, 5, 6, 7, 10, 11}
"""Fields that hold values one by one, each for some types."""
_RAW = 9
_EXTERNAL = 1


class Tensors:
    """Reads ``TensorProto`` and its relatives from one file."""

    def __init__(self, wire: Wire, folder: Path) -> None:
        self.wire = wire
        self.files: dict[Path, int] = {}
        """The files beside the model that hold weights, with their bytes."""
        self._folder = folder

    def tensor(self, field: Field) -> Tensor:
        """A constant, with its values if they are few.

        Raises:
            InputError: Its sizes are impossible, its data doesn't fit them, or lies elsewhere.
        """
        dims: list[int] = []
        single: dict[int, Field] = {}
        typed: list[Field] = []
        entries: list[Field] = []
        for part in self.wire.message(field):
            if part.number == 1:
                dims.extend(self.wire.integers(part))
            elif part.number == 13:
                entries.append(part)
            elif part.number in _TYPED:
                typed.append(part)
            else:
                single[part.number] = part
        name = self.wire.text(single[8]) if 8 in single else ""
        shape = self.shape(dims, name)
        tensor = Tensor(name, shape, self._dtype(single.get(2)), True, at=field.start, fixed=True)
        if 14 in single and self.wire.integer(single[14]) == _EXTERNAL:
            return tensor._replace(bytes=self._external(tensor, entries))
        held = sum(max(part.end - part.start, 0) if part.wire else 1 for part in typed)
        if _RAW in single:
            held = single[_RAW].end - single[_RAW].start
            self._fits(tensor, held)
        return tensor._replace(bytes=held, values=self._values(tensor, single.get(_RAW), typed))

    def sparse(self, field: Field) -> Tensor:
        """A sparse constant, as the dense one that it stands for."""
        dims: list[int] = []
        values = indices = None
        for part in self.wire.message(field):
            if part.number == 1:
                values = self.tensor(part)
            elif part.number == 2:
                indices = self.tensor(part)
            elif part.number == 3:
                dims.extend(self.wire.integers(part))
        if values is None:
            raise InputError(f"{self.wire.name}: a sparse tensor without values")
        held = values.bytes + (indices.bytes if indices else 0)
        return values._replace(shape=self.shape(dims, values.name), bytes=held, values=None)

    def value_info(self, field: Field) -> Tensor:
        """A tensor that isn't constant: name, type and shape as far as they are told."""
        name, dtype, shape = "", "", None
        for part in self.wire.message(field):
            if part.number == 1:
                name = self.wire.text(part)
            elif part.number == 2:
                dtype, shape = self._type(part, name)
        return Tensor(name, shape, dtype)

    def shape(self, dims: list[int], name: str) -> tuple[int, ...]:
        """The sizes of a constant, if they are possible.

        Raises:
            InputError: They aren't.
        """
        if any(not 0 <= dim <= limits.DIMENSION for dim in dims):
            raise self._impossible(name, dims)
        if len(dims) > limits.RANK or (elements(dims) or 0) > limits.ELEMENTS:
            raise self._impossible(name, dims)
        return tuple(dims)

    def _impossible(self, name: str, dims: list[Any]) -> InputError:
        sizes = shown(str(dims[:8])) if len(dims) <= 8 else f"of {len(dims)} dimensions"
        return InputError(f"{self.wire.name}: tensor '{shown(name)}' has the shape {sizes}")

    def _dtype(self, field: Field | None) -> str:
        code = 0 if field is None else self.wire.integer(field)
        return DTYPES[code] if 0 <= code < len(DTYPES) else ""

    def _fits(self, tensor: Tensor, held: int) -> None:
        """Refuse data that is shorter or longer than its shape."""
        wanted = stored_bytes(tensor)
        if wanted is not None and held != wanted:
            raise InputError(
                f"{self.wire.name}: tensor '{shown(tensor.name)}' holds {held} bytes, and its "
                f"shape takes {wanted}"
            )

    def _values(
        self, tensor: Tensor, raw: Field | None, typed: list[Field]
    ) -> tuple[int | float | None, ...] | None:
        count, form = elements(tensor.shape) or 0, _FORMATS.get(tensor.dtype)
        if form is None or count > limits.VALUES:
            return None
        if raw is not None:
            return struct.unpack(f"<{count}{form}", self.wire.content[raw.start : raw.end])
        found: list[int | float] = []
        for field in typed:
            if field.number in (4, 10):
                found.extend(self.wire.floats(field, 4 if field.number == 4 else 8))
            elif field.number != 6 and tensor.dtype != "float16":
                found.extend(self.wire.integers(field))
            if len(found) > count:
                break
        return tuple(found) if len(found) == count else None

    def _type(self, field: Field, name: str) -> tuple[str, Dims | None]:
        for part in self.wire.message(field):
            if part.number in (1, 8):  # a tensor, a sparse one; sequences and maps have no shape
                dtype, shape = "", None
                for inner in self.wire.message(part):
                    if inner.number == 1:
                        dtype = self._dtype(inner)
                    elif inner.number == 2:
                        shape = self._open_shape(inner, name)
                return dtype, shape
        return "", None

    def _open_shape(self, field: Field, name: str) -> Dims:
        parts = self.wire.message(field)
        dims = [self._dimension(part, name) for part in parts if part.number == 1]
        least = elements(size or 1 for size in dims if not isinstance(size, str)) or 0
        if len(dims) > limits.RANK or least > limits.ELEMENTS:
            raise self._impossible(name, dims)
        return tuple(dims)

    def _dimension(self, field: Field, name: str) -> int | str | None:
        for part in self.wire.message(field):
            if part.number == 1:
                size = self.wire.integer(part)
                # Some exporters write -1 for a size that is open.
                if not -1 <= size <= limits.DIMENSION:
                    raise self._impossible(name, [size])
                return None if size == -1 else size
            if part.number == 2:
                return self.wire.text(part) or None
        return None

    def _external(self, tensor: Tensor, entries: list[Field]) -> int:
        told = dict(self._entry(field) for field in entries)
        path = self._beside(told.get("location", ""), tensor.name)
        if path not in self.files:
            self.files[path] = regular(path, f"{self.wire.name}: {shown(str(path))}").st_size
        size = self.files[path]
        offset = self._number(told.get("offset", "0"), tensor.name)
        held = self._number(told.get("length", str(max(size - offset, 0))), tensor.name)
        if offset + held > size:
            raise InputError(
                f"{self.wire.name}: tensor '{shown(tensor.name)}' lies at bytes {offset} to "
                f"{offset + held} of {shown(path.name)}, which has {size}"
            )
        if "length" in told or tensor.dtype not in SIZES:
            self._fits(tensor, held)
            return held
        wanted = stored_bytes(tensor) or 0
        if wanted > held:
            self._fits(tensor, held)
        return wanted

    def _entry(self, field: Field) -> tuple[str, str]:
        texts = {
            p.number: self.wire.text(p) for p in self.wire.message(field) if p.number in (1, 2)
        }
        return texts.get(1, ""), texts.get(2, "")

    def _number(self, text: str, name: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise InputError(
                f"{self.wire.name}: tensor '{shown(name)}' lies at '{shown(text)}' of its file"
            )
        return int(text)

    def _beside(self, location: str, name: str) -> Path:
        """The file at ``location``, which may not lead out of the model's folder."""
        plain, foreign = PurePosixPath(location), PureWindowsPath(location)
        nowhere = not location or "\0" in location
        outside = nowhere or plain.is_absolute() or bool(foreign.anchor) or ".." in foreign.parts
        path = self._folder / plain
        try:
            if not outside:
                outside = not path.resolve().is_relative_to(self._folder.resolve())
        except (OSError, RuntimeError):  # a loop of links
            outside = True
        if outside:
            raise InputError(
                f"{self.wire.name}: tensor '{shown(name)}' wants its data from "
                f"'{shown(location)}', outside the model's folder; it is not read"
            )
        return path
