# SPDX-License-Identifier: Apache-2.0
"""Flatbuffers: tables, vectors and texts, every offset held against the file before it is used.

flatbuffers.dev/internals. Offsets to tables, vectors and texts are unsigned, so they lead forward
only and no structure can contain itself; one table may still be told of many times, which is why
all work is counted.
"""

from __future__ import annotations

import struct

from edgeprune.artifact import limits
from edgeprune.artifact.reader import Reader
from edgeprune.errors import InputError

__all__ = ["Flat", "Table"]


class Flat(Reader):
    """Reads one file; ``name`` is how messages call it."""

    form = "TFLite"

    def root(self) -> Table:
        """The table that the file is."""
        return Table(self, self.follow(0))

    def number(self, form: str, position: int) -> int:
        """The number at ``position``; ``form`` is struct's letter for it."""
        width = struct.calcsize(form)
        if not 0 <= position <= len(self.content) - width:
            raise self.broken(position)
        return int(struct.unpack("<" + form, self.content[position : position + width])[0])

    def follow(self, position: int) -> int:
        """Where the offset at ``position`` leads."""
        offset = self.number("I", position)
        if not 0 < offset <= len(self.content) - position:
            raise self.broken(position)
        return position + offset

    def vector(self, position: int, width: int) -> tuple[int, int]:
        """The first byte and the length of the vector at ``position``; all of it is in the file."""
        count = self.number("I", position)
        start = position + 4
        if count * width > len(self.content) - start:
            raise self.broken(position)
        return start, count

    def text(self, position: int) -> str:
        """The text at ``position``.

        Raises:
            InputError: It isn't UTF-8, or is longer than any name.
        """
        return self.decoded(*self.vector(position, 1))


class Table:
    """One table; fields by their number in the schema, absent ones give the default."""

    def __init__(self, flat: Flat, position: int) -> None:
        flat.spend()
        self._flat = flat
        self.position = position
        self._fields = position - flat.number("i", position)
        self._width = flat.number("H", self._fields)
        inline = flat.number("H", self._fields + 2)
        if self._width < 4 or self._width % 2 or inline < 4:
            raise flat.broken(self._fields)
        flat.number("B", self._fields + self._width - 1)
        flat.number("B", position + inline - 1)

    def _at(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot + 2 > self._width:
            return None
        offset = self._flat.number("H", self._fields + slot)
        return self.position + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A number; ``form`` is struct's letter for its type."""
        position = self._at(field)
        return default if position is None else self._flat.number(form, position)

    def text(self, field: int) -> str:
        """A text, empty where there is none."""
        position = self._at(field)
        return "" if position is None else self._flat.text(self._flat.follow(position))

    def table(self, field: int) -> Table | None:
        """A table."""
        position = self._at(field)
        return None if position is None else Table(self._flat, self._flat.follow(position))

    def tables(self, field: int, most: int = limits.TENSORS) -> list[Table]:
        """A vector of tables."""
        start, count = self.span(field, 4)
        if count > most:
            raise InputError(f"{self._flat.name}: a list of {count} entries; at most {most} fit")
        follow = self._flat.follow
        return [Table(self._flat, follow(start + 4 * index)) for index in range(count)]

    def numbers(self, field: int, form: str) -> tuple[int | float, ...]:
        """A vector of numbers."""
        width = struct.calcsize(form)
        start, count = self.span(field, width)
        self._flat.spend(count)
        return struct.unpack(f"<{count}{form}", self._flat.content[start : start + count * width])

    def integers(self, field: int) -> tuple[int, ...]:
        """A vector of 32-bit integers."""
        return tuple(int(value) for value in self.numbers(field, "i"))

    def span(self, field: int, width: int) -> tuple[int, int]:
        """The first byte and the length of a vector, without reading it; (0, 0) where absent."""
        position = self._at(field)
        if position is None:
            return 0, 0
        return self._flat.vector(self._flat.follow(position), width)
