# SPDX-License-Identifier: Apache-2.0
"""What every place that runs commands has in common: this machine, and one behind ssh.

Only ``script`` reaches a remote shell, and only with texts that are constants of this code: what a
user or a file names travels as an argument (``$1`` ...), quoted word by word.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

__all__ = ["Done", "Shell"]

Tell = Callable[[str], None]
"""Gets each line of standard error at once, for progress."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    """Exit code; negative: the signal that ended it."""
    out: bytes
    err: str


class Shell(Protocol):
    """Runs commands on a device."""

    @property
    def name(self) -> str:
        """The device, for messages: ``ssh://pi@board``."""
        ...

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | BinaryIO | None = None,
        timeout: float | None = None,
        tell: Tell | None = None,
    ) -> Done:
        """Run a program with its arguments, exactly these words.

        Args:
            words: The program and its arguments; any characters but NUL.
            stdin: Bytes, or an open file that is read from its position on; ``None``: empty.
            timeout: Seconds, after which it is stopped.
            tell: Gets each line of standard error as it comes.

        Raises:
            DeviceError: The device can't be reached, the connection broke, or time is over.
        """
        ...

    def script(
        self,
        text: str,
        *arguments: str,
        stdin: bytes | BinaryIO | None = None,
        timeout: float | None = None,
    ) -> Done:
        """Run a constant POSIX ``sh`` text, which finds ``arguments`` in ``$1`` ...

        Raises:
            DeviceError: As ``run`` does.
        """
        return self.run(("sh", "-c", text, "sh", *arguments), stdin=stdin, timeout=timeout)

    def close(self) -> None:
        """Give up the connection, if there is one."""
        ...
