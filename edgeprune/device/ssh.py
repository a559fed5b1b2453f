# SPDX-License-Identifier: Apache-2.0
"""Running programs behind the system's ``ssh``, over one connection that is kept open."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from edgeprune.device.address import Address
from edgeprune.device.local import execute
from edgeprune.device.shell import Done, Shell, Tell
from edgeprune.device.ssh_command import (
    SshOptions,
    base_words,
    explain,
    host_words,
    known_hosts_option,
    quote,
)
from edgeprune.errors import DeviceError

__all__ = ["SshOptions", "SshShell"]

_TRANSPORT = 255
"""ssh's own exit code for all that is wrong with the connection."""
_SIGNALS = range(129, 193)
_PERSIST = 60
"""Seconds that an idle connection stays open if this process dies without closing it."""
_MOST_FOLDER = 60
"""Characters; a socket's path may have about 100, and ssh adds 17 while it makes it."""
_GROUP = "edgeprune-group "
_BEGINS = b"edgeprune-begins\n"
"""Ends on standard output what a start-up file printed there."""
_HEARD = re.compile(rf"(.*){_GROUP}(\d+|unknown)", re.DOTALL)
"""What a start-up file printed may stand before it, without an end of its line."""
_WRAPPED = f"""
{{ read -r _ _ _ _ group _ </proc/$$/stat; }} 2>/dev/null
echo "{_GROUP}${{group:-unknown}}" >&2
echo {_BEGINS.decode().strip()}
"$@"
code=$?
[ $code -ne 255 ] || code=254
exit $code
"""
"""Tells that it began, and the process group, by which it can be stopped; and keeps 255 for ssh
itself, and a death by a signal, of which ssh would make 255 too, for 128 + its number."""
_STOP = """
kill -TERM "-$1" 2>/dev/null || exit 0
sleep 1
kill -KILL "-$1" 2>/dev/null
exit 0
"""


class SshShell(Shell):
    """A device behind ssh.

    The connection is made by the first command and made anew after it broke; ``close`` ends it.
    Nothing is ever asked: the login needs a key, and the device's host key must be known.
    """

    def __init__(self, address: Address, options: SshOptions | None = None) -> None:
        assert address.kind == "ssh", address
        self._address, self._options = address.without_path(), options or SshOptions()
        self._connection: _Connection | None = None

    @property
    def name(self) -> str:
        """The device's address."""
        return str(self._address)

    def run(
        self,
        words: Sequence[str],
        *,
        stdin: bytes | BinaryIO | None = None,
        timeout: float | None = None,
        tell: Tell | None = None,
    ) -> Done:
        """Run a program there, exactly these words; what ends the waiting early ends it too.

        A program's own exit code 255 is told as 254.

        Raises:
            DeviceError: The device can't be reached, the connection broke, or time is over.
        """
        connection = self._connected()
        heard = _Heard(tell)
        command = " ".join(map(quote, ("sh", "-c", _WRAPPED, "sh", *words)))
        try:
            done = execute(
                [*connection.words, command], stdin=stdin, timeout=timeout, tell=heard.line
            )
        except BaseException as error:
            connection.stop(heard.group)
            if isinstance(error, TimeoutError):
                raise DeviceError(
                    f"{self.name}: {words[0]} took more than {timeout:g} s and was stopped"
                ) from None
            raise
        if done.code == _TRANSPORT:
            self.close()
            raise DeviceError(f"{self.name}: {_broken(done.err)}")
        if done.code and not heard.began:
            raise DeviceError(f"{self.name}: {_never_began(done)}")
        return Done(_code(done.code), _without_greeting(done.out), _without_group(done.err))

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> "_Connection":
        if self._connection is not None and not self._connection.alive:
            self.close()
        if self._connection is None:
            self._connection = _Connection(self._address, self._options)
        return self._connection


class _Connection:
    """A master connection of ssh in the background, which commands share by its socket."""

    def __init__(self, address: Address, options: SshOptions) -> None:
        self._host = host_words(address)
        known = known_hosts_option(address, options)
        strict = ["-o", "StrictHostKeyChecking=yes", *known]
        self._folder = _short_folder()
        self._socket = self._folder / "s"
        socket = ["-S", str(self._socket).replace("%", "%%")]
        self._words = [*base_words(options), *strict, *socket]
        try:
            self._open(address, options)
        except BaseException:
            self.close()
            raise

    @property
    def words(self) -> list[str]:
        """What runs the one word that follows."""
        return [*self._words, "-o", "ControlMaster=no", *self._host]

    @property
    def alive(self) -> bool:
        """Whether the master is there; it removes its socket when it ends."""
        return self._socket.exists()

    def stop(self, group: str | None) -> None:
        """End a process group there, if it became known and the device can still be reached."""
        if group is not None and self.alive:
            command = " ".join(map(quote, ("sh", "-c", _STOP, "sh", group)))
            with contextlib.suppress(TimeoutError):
                execute([*self.words, command], timeout=10)

    def close(self) -> None:
        """End the master and remove its socket."""
        if self.alive:
            command = [*self._words, "-O", "exit", *self._host]
            with contextlib.suppress(TimeoutError):
                execute(command, timeout=10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, address: Address, options: SshOptions) -> None:
        master = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_PERSIST}", "-N"]
        # a file, since the master of an older ssh would keep a pipe open
        with tempfile.TemporaryFile() as said:
            try:
                code = subprocess.run(
                    [*self._words, *master, *self._host],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    timeout=4 * options.connect_timeout,
                    start_new_session=True,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise DeviceError(
                    f"{address}: no login within {4 * options.connect_timeout} s"
                ) from None
            said.seek(0)
            text = said.read().decode(errors="replace")
        if code or not self.alive:
            raise DeviceError(explain(address, options, text))


class _Heard:
    """Standard error of a command, of which the process group's line is taken out."""

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell
        self.began = False
        self.group: str | None = None

    def line(self, line: str) -> None:
        """Take a line."""
        match = None if self.began else _HEARD.fullmatch(line)
        if match is not None:
            self.began = True
            self.group = match[2] if match[2].isdigit() else None
        elif self._tell is not None:
            self._tell(line)


def _without_group(text: str) -> str:
    own_line_or_end = rf"^{_GROUP}\S+\n|{_GROUP}\S+$"
    return re.sub(own_line_or_end, "", text, count=1, flags=re.MULTILINE)


def _without_greeting(out: bytes) -> bytes:
    before, begins, after = out.partition(_BEGINS)
    return after if begins else before


def _broken(said: str) -> str:
    lines = _without_group(said).strip().splitlines()
    return f"the connection broke{f': {lines[-1]}' if lines else ''}"


def _never_began(done: Done) -> str:
    """What it means that the login shell ended before it ran anything."""
    lines = (done.err.strip() or done.out.decode(errors="replace").strip()).splitlines()
    return (
        f"its login shell ended with exit code {done.code} before it ran anything"
        f"{f': {lines[-1].strip()}' if lines else ''}; look at the start-up files of that user "
        "there (~/.bashrc), at its shell in /etc/passwd and at ~/.ssh/authorized_keys"
    )


def _code(code: int) -> int:
    return 128 - code if code in _SIGNALS else code


def _short_folder() -> Path:
    for base in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(os.fsencode(base)) <= _MOST_FOLDER:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="edgeprune-", dir=base))
    raise DeviceError("no temporary folder with a short name can be written, for ssh's socket")
