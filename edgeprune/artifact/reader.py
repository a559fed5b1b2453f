# SPDX-License-Identifier: Apache-2.0
"""What the readers of both formats share: work and names of a file are counted, and damage is told.

A file may come from anybody, and one part of it may be told of many times.
"""

import sys
from typing import ClassVar

from edgeprune.artifact import limits
from edgeprune.artifact.source import Content, shown
from edgeprune.errors import InputError

__all__ = ["Reader"]


class Reader:
    """Reads one file; ``name`` is how messages call it."""

    form: ClassVar[str]
    """The format, as messages call it."""

    def __init__(self, content: Content, name: str) -> None:
        self.content = content
        self.name = name
        self._work = limits.FIELDS
        self._texts = limits.TEXTS

    def spend(self, count: int = 1) -> None:
        """Count work.

        Raises:
            InputError: The file has more of it than any model.
        """
        self._work -= count
        if self._work < 0:
            raise InputError(f"{self.name}: more than {limits.FIELDS} fields; no model has as many")

    def decoded(self, start: int, length: int) -> str:
        """The name that lies there.

        Raises:
            InputError: It isn't UTF-8, or is longer than any name.
        """
        if length > limits.TEXT:
            raise InputError(
                f"{self.name}: a name of {length} bytes at byte {start}; "
                f"at most {limits.TEXT} are read"
            )
        self._texts -= length
        if self._texts < 0:
            raise InputError(f"{self.name}: more than {limits.TEXTS} bytes of names")
        raw = self.content[start : start + length]
        try:
            return sys.intern(raw.decode())
        except UnicodeDecodeError:
            quoted = shown(raw.decode("utf-8", "backslashreplace"))
            raise InputError(f"{self.name}: the name '{quoted}' at byte {start} isn't UTF-8") from (
                None
            )

    def broken(self, position: int) -> InputError:
        """The error of a file that ends too early or was damaged."""
        return InputError(
            f"{self.name}: no whole {self.form} file: it is cut off or damaged at byte "
            f"{max(position, 0)} of {len(self.content)}"
        )
