# SPDX-License-Identifier: Apache-2.0
"""A strict reader of the zip archives that torch writes, for files of unknown origin.

Two readers of one zip file may find different members in it: another directory, another name,
another size. So only an archive that can be read in one way is taken, and torch is given a new one,
written from the members that were looked at (``Container.rewritten``).
"""

import io
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeprune.errors import ModelError

__all__ = ["Container", "Member", "check_claim", "open_container"]

_MEMBERS = 100_000
_INFLATED = 64 * 2**20
_RATIO = 100
"""Deflated members may hold ``_INFLATED`` bytes and ``_RATIO`` times the file's size, together."""
_CLAIMED = 256 * 2**20
_REPEATED = 8
"""Tensors may come to ``_CLAIMED`` bytes and ``_REPEATED`` times the file's size, together: views
of one memory, as an expanded buffer is, are written out when a model is copied."""
_DESCRIBED, _UTF8, _LEVEL = 0x8, 0x800, 0x6
"""Flags: sizes stand behind the data; names are UTF-8; how hard the writer tried to deflate."""
_STORED, _DEFLATED = 0, 8
_FULL = 0xFFFFFFFF
"""Where a size doesn't fit into 32 bits: a field of zip64 holds it."""
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64, _OTHER_NAME = 0x0001, 0x7075
"""Kinds of extra fields: sizes of 64 bits; another name for the member."""


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    raw: bytes
    """Its name, as written."""
    flags: int
    method: int
    crc: int
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes of the member itself."""
    header: int
    """Where its local header begins."""

    @property
    def local(self) -> tuple[bytes, int, int, bytes]:
        """What its local header must say too."""
        return b"PK\x03\x04", self.flags, self.method, self.raw


class Container:
    """A zip archive that can be read in one way only.

    Args:
        file: Open for reading and seekable. It must stay open while the container is in use.

    Raises:
        ModelError: It is damaged or ambiguous, or holds more than its size allows.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        members, end = self._directory()
        self._starts = self._layout(members, end)
        names = {name: m for m in members if not (name := _name(m.raw)).endswith("/")}
        folders = {name.partition("/")[0] for name in names}
        self._nested = len(folders) == 1 and all("/" in name for name in names)
        self._members = (
            {name.partition("/")[2]: m for name, m in names.items()} if self._nested else names
        )
        inflated = sum(m.size for m in members if m.method == _DEFLATED)
        allowed = _INFLATED + _RATIO * self.size
        if inflated > allowed:
            raise ModelError(
                f"its members would inflate to {inflated:,} bytes; a file of {self.size:,} bytes "
                f"may hold {allowed:,}"
            )

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        """The names, without the folder that torch puts all members into."""
        return iter(self._members)

    def length(self, name: str) -> int:
        """Bytes of a member."""
        return self._members[name].size

    def read(self, name: str, limit: int) -> bytes:
        """A member.

        Raises:
            ModelError: It is damaged, or larger than ``limit``.
        """
        member = self._members[name]
        if member.size > limit:
            raise ModelError(f"{name} holds {member.size:,} bytes; at most {limit:,} are read")
        data = self._bytes(self._starts[member.header], member.packed)
        if member.method == _DEFLATED:
            inflate = zlib.decompressobj(-15)
            try:
                data = inflate.decompress(data, member.size + 1)
            except zlib.error as error:
                raise ModelError(f"damaged: {name}: {error}") from None
            if not inflate.eof or inflate.unused_data or inflate.unconsumed_tail:
                raise ModelError(f"damaged: {name} isn't of the size that the archive tells")
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise ModelError(f"damaged: {name} has another checksum than the archive tells")
        return data

    def rewritten(self, looked_at: Mapping[str, bytes], rest: set[str]) -> io.RawIOBase:
        """A new archive, put together while it is read: large members stay in their file.

        Args:
            looked_at: Members by name, with what they shall hold.
            rest: Names of members that are taken as they are.
        """
        parts: list[bytes | tuple[int, int]] = []
        directory: list[bytes] = []
        at = 0
        for name in (*looked_at, *sorted(rest)):
            full = (f"archive/{name}" if self._nested else name).encode()
            if name in looked_at:
                data: bytes | tuple[int, int] = looked_at[name]
                size = packed = len(looked_at[name])
                method, crc = _STORED, zlib.crc32(looked_at[name])
            else:
                member = self._members[name]
                size, packed, method, crc = member.size, member.packed, member.method, member.crc
                data = self._starts[member.header], packed
            common = (_UTF8, method, 0, 0x21, crc, _FULL, _FULL, len(full))
            extra = struct.pack("<2H2Q", _ZIP64, 16, size, packed)
            local = _LOCAL.pack(b"PK\x03\x04", 45, *common, len(extra)) + full + extra
            extra = struct.pack("<2H3Q", _ZIP64, 24, size, packed, at)
            entry = _ENTRY.pack(b"PK\x01\x02", 45, 45, *common, len(extra), 0, 0, 0, 0, _FULL)
            directory.append(entry + full + extra)
            parts += [local, data]
            at += len(local) + packed
        listed = b"".join(directory)
        count = len(directory)
        end = _END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(listed), at)
        end += _LOCATOR.pack(b"PK\x06\x07", 0, at + len(listed), 1)
        end += _END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, _FULL, _FULL, 0)
        return _View(self._file, [*parts, listed + end])

    def _bytes(self, start: int, length: int) -> bytes:
        """A piece of the file.

        Raises:
            ModelError: It isn't all there.
        """
        if start < 0 or start + length > self.size:
            raise ModelError("damaged or cut short")
        self._file.seek(start)
        return self._file.read(length)

    def _directory(self) -> tuple[list[Member], int]:
        """All entries of the central directory, and where it begins.

        Raises:
            ModelError: There isn't exactly one, at the end of the file.
        """
        stop = self.size - _END.size
        mark, disk, first, here, count, length, start, comment = _END.unpack(
            self._bytes(stop, _END.size)
        )
        if mark != b"PK\x05\x06":
            raise ModelError("damaged or cut short: its directory isn't at its end")
        if disk or first or here != count or comment:
            raise ModelError("damaged: a comment or several parts")
        told = (count, length, start)
        near = stop - _LOCATOR.size
        if near >= _END64.size and self._bytes(near, 4) == b"PK\x06\x07":
            _, disk, where, disks = _LOCATOR.unpack(self._bytes(near, _LOCATOR.size))
            stop = near - _END64.size
            mark, size, _, _, one, two, here, count, length, start = _END64.unpack(
                self._bytes(stop, _END64.size)
            )
            if (mark, size, where, here) != (b"PK\x06\x06", 44, stop, count) or disk or one or two:
                raise ModelError("damaged: its end")
            if disks > 1 or any(
                small not in (large, full)
                for small, large, full in zip(
                    told, (count, length, start), (0xFFFF, _FULL, _FULL), strict=True
                )
            ):
                raise ModelError("damaged: two directories")
        if start + length != stop or count > _MEMBERS:
            raise ModelError("damaged: its directory isn't where it should be")
        return list(_entries(self._bytes(start, length), count)), start

    def _layout(self, members: list[Member], end: int) -> dict[int, int]:
        """Where the data of each member begins, by where its header does.

        Raises:
            ModelError: Members overlap, bytes belong to none, or a header tells something else
                than the directory.
        """
        starts: dict[int, int] = {}
        ordered = sorted(members, key=lambda m: m.header)
        ends = [*(m.header for m in ordered[1:]), end][: len(ordered)]
        if (ordered[0].header if ordered else end) != 0:
            raise ModelError("damaged: there is something before its first member")
        for member, stop in zip(ordered, ends, strict=True):
            head = self._bytes(member.header, _LOCAL.size)
            mark, _, flags, method, _, _, crc, packed, size, named, extra = _LOCAL.unpack(head)
            start = member.header + _LOCAL.size
            raw = self._bytes(start, named)
            told = ((crc, member.crc), (packed, member.packed), (size, member.size))
            spare = (0, _FULL) if flags & _DESCRIBED else (_FULL,)
            if (mark, flags, method, raw) != member.local or any(
                local not in (true, *spare) for local, true in told
            ):
                raise ModelError("damaged: a member's header and the directory differ")
            starts[member.header] = start + named + extra
            behind = starts[member.header] + member.packed
            if not (behind <= stop and self._described(member, behind, stop - behind)):
                raise ModelError("damaged: members overlap, or there is something between them")
        return starts

    def _described(self, member: Member, start: int, length: int) -> bool:
        """Whether what is behind a member is nothing, or its own sizes once more."""
        if length == 0:
            return True
        if not member.flags & _DESCRIBED or length > 24:
            return False
        numbers = (member.crc, member.packed, member.size)
        forms = [struct.pack("<L2Q", *numbers)]
        if max(numbers) <= _FULL:
            forms.append(struct.pack("<3L", *numbers))
        found = self._bytes(start, length)
        return found in forms or found in [b"PK\x07\x08" + form for form in forms]


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open a zip archive; it names ``path`` in its errors, inside too.

    Raises:
        ModelError: It can't be read, or isn't one that can be read in one way only.
    """
    try:
        with path.open("rb") as file:
            yield Container(file)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror or error}") from None
    except ModelError as error:
        text = str(error)
        raise ModelError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from error


def check_claim(claimed: int, size: int) -> None:
    """Refuse tensors that are small in their file and would be huge as copies.

    Args:
        claimed: Bytes of all tensors by their shapes.
        size: Bytes of the file.

    Raises:
        ModelError: They are.
    """
    allowed = _CLAIMED + _REPEATED * size
    if claimed > allowed:
        raise ModelError(
            f"its tensors would be {claimed:,} bytes by their shapes; a file of {size:,} bytes may "
            f"hold {allowed:,}"
        )


def _entries(data: bytes, count: int) -> Iterator[Member]:
    """What a central directory lists.

    Raises:
        ModelError: It is damaged, or lists what two readers could take in two ways.
    """
    at, seen = 0, set[bytes]()
    for _ in range(count):
        if at + _ENTRY.size > len(data):
            raise ModelError("damaged: its directory ends early")
        mark, _, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, *rest = (
            _ENTRY.unpack_from(data, at)
        )
        *_, header = rest
        at += _ENTRY.size
        raw, fields = data[at : at + named], data[at + named : at + named + extra]
        at += named + extra
        if mark != b"PK\x01\x02" or comment or disk or at > len(data):
            raise ModelError("damaged: its directory")
        if flags & ~(_DESCRIBED | _UTF8 | _LEVEL) or method not in (_STORED, _DEFLATED):
            raise ModelError("damaged: a member is encrypted or packed in a way torch doesn't know")
        if raw.lower() in seen:  # torch finds members in any case
            raise ModelError("damaged: it has two members of one name")
        seen.add(raw.lower())
        packed, size, header = _wide(fields, packed, size, header)
        if method == _STORED and packed != size:
            raise ModelError("damaged: a member's sizes differ")
        yield Member(raw, flags, method, crc, packed, size, header)
    if at != len(data):
        raise ModelError("damaged: its directory holds more than its members")


def _wide(fields: bytes, *numbers: int) -> list[int]:
    """Packed size, size and place of a member, from zip64's field where they are there.

    Raises:
        ModelError: The fields are damaged, or give the member a second name.
    """
    packed, size, header = numbers
    at, wide = 0, b""
    while at < len(fields):
        if at + 4 > len(fields):
            raise ModelError("damaged: a member's extra fields")
        kind, length = struct.unpack_from("<2H", fields, at)
        at += 4 + length
        if at > len(fields) or kind == _OTHER_NAME or (kind == _ZIP64 and wide):
            raise ModelError("damaged: a member's extra fields")
        if kind == _ZIP64:
            wide = fields[at - length : at]
    found = []
    for number in (size, packed, header):  # the field's order
        if number == _FULL:
            if len(wide) < 8:
                raise ModelError("damaged: a member's extra fields")
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        found.append(number)
    size, packed, header = found
    return [packed, size, header]


def _name(raw: bytes) -> str:
    """A member's name as text.

    Raises:
        ModelError: It leads out of the archive, or isn't text.
    """
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise ModelError("damaged: a member's name isn't UTF-8") from None
    parts = name.removesuffix("/").split("/")
    if not name.isprintable() or "\\" in name or not {"", ".", ".."}.isdisjoint(parts):
        raise ModelError(f"damaged: a member is called {name[:80]!r}")
    return name


class _View(io.RawIOBase):
    """A file made of pieces: bytes, and places (start, length) of another file."""

    def __init__(self, file: BinaryIO, parts: list[bytes | tuple[int, int]]) -> None:
        self._file, self._parts, self._at = file, parts, 0
        self._begins = [0]
        for part in parts:
            length = len(part) if isinstance(part, bytes) else part[1]
            self._begins.append(self._begins[-1] + length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._begins[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as there is anything; torch asks once for a whole tensor."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._at < self._begins[-1]:
            index = bisect_right(self._begins, self._at) - 1
            part, skip = self._parts[index], self._at - self._begins[index]
            count = min(len(view) - done, self._begins[index + 1] - self._at)
            if isinstance(part, bytes):
                view[done : done + count] = part[skip : skip + count]
            else:
                self._file.seek(part[0] + skip)
                count = self._file.readinto(view[done : done + count])  # type: ignore[attr-defined]
                if not count:  # the file was cut meanwhile
                    break
            done += count
            self._at += count
        return done
