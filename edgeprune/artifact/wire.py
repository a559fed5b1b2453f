# SPDX-License-Identifier: Apache-2.0
"""Protobuf's wire format: fields of a message, and the few kinds of values that ONNX has.

protobuf.dev/programming-guides/encoding. Written for files that nobody vouches for: every length
is held against what surrounds it, and all work is counted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from edgeprune.artifact.reader import Reader

__all__ = ["Field", "Wire"]

_FIXED = {1: 8, 5: 4}


class Field(NamedTuple):
    """One field. Its value is ``start`` for a number (``wire`` 0), else bytes start to end."""

    number: int
    wire: int
    start: int
    end: int


class Wire(Reader):
    """Reads one file; ``name`` is how messages call it."""

    form = "ONNX"

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message that lies from ``start`` to ``end``.

        Raises:
            InputError: It is no message, or the file has more fields than any model.
        """
        position = start
        while position < end:
            self.spend()
            tag, position = self.varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise self.broken(position)
            if wire == 0:
                value, position = self.varint(position, end)
                yield Field(number, wire, value, position)
                continue
            if wire == 2:
                length, position = self.varint(position, end)
            elif wire in _FIXED:
                length = _FIXED[wire]
            else:
                raise self.broken(position)
            if length > end - position:
                raise self.broken(position)
            yield Field(number, wire, position, position + length)
            position += length

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """An unsigned number of up to 64 bits, and the position behind it."""
        content, value, shift = self.content, 0, 0
        while position < end and shift < 64:
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), position
            shift += 7
        raise self.broken(position)

    def integer(self, field: Field) -> int:
        """A field of type int32, int64 or enum."""
        self._want(field, 0)
        return _signed(field.start)

    def integers(self, field: Field) -> tuple[int, ...]:
        """Of a repeated field: the numbers of this one entry, one or a packed row."""
        if field.wire == 0:
            return (_signed(field.start),)
        self._want(field, 2)
        numbers, position = [], field.start
        while position < field.end:
            self.spend()
            value, position = self.varint(position, field.end)
            numbers.append(_signed(value))
        return tuple(numbers)

    def floats(self, field: Field, width: int = 4) -> tuple[float, ...]:
        """Of a repeated field: the floats (or doubles, 8 bytes wide) of this one entry."""
        if field.wire not in (2, 5 if width == 4 else 1) or (field.end - field.start) % width:
            raise self.broken(field.start)
        count = (field.end - field.start) // width
        self.spend(count)
        return struct.unpack(
            f"<{count}{'f' if width == 4 else 'd'}", self.content[field.start : field.end]
        )

    def text(self, field: Field) -> str:
        """A name.

        Raises:
            InputError: It isn't UTF-8, or is longer than any name.
        """
        self._want(field, 2)
        return self.decoded(field.start, field.end - field.start)

    def message(self, field: Field) -> Iterator[Field]:
        """The fields of a message inside a message."""
        self._want(field, 2)
        return self.fields(field.start, field.end)

    def _want(self, field: Field, wire: int) -> None:
        if field.wire != wire:
            raise self.broken(field.start if field.wire else field.end)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
