# SPDX-License-Identifier: Apache-2.0
"""A real sshd on loopback, with a host key, port, configuration, login key and user of its own.

    with sshd() as server:
        shell = SshShell(parse_address(server.address), server.options())

As root the user is made for the server and removed with it; else it is the one who runs the tests.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeprune.device.ssh import SshOptions

__all__ = ["PROGRAM", "Server", "needs_sshd", "sshd"]

PROGRAM = "/usr/sbin/sshd"
_WHY = "no /usr/sbin/sshd or ssh-keygen here; `apt-get install openssh-server` provides them"

_NUMBERS = itertools.count()

needs_sshd = pytest.mark.skipif(
    not (Path(PROGRAM).exists() and shutil.which("ssh-keygen")), reason=_WHY
)
"""Mark of tests that need the server."""


@dataclass
class Server:
    """A running server; ``folder`` holds all of it and is open to its user."""

    folder: Path
    user: str
    home: Path
    """The user's home folder, a part of ``folder`` where the user was made for the server."""
    port: int
    extra: Sequence[str]
    wrap: Sequence[str]
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """``ssh://USER@127.0.0.1:PORT``."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    @property
    def identity(self) -> Path:
        """The private key that opens the login."""
        return self.folder / "login"

    @property
    def known_hosts(self) -> Path:
        """A file that knows the host key the server had at first."""
        return self.folder / "known_hosts"

    @property
    def fingerprint(self) -> str:
        """``SHA256:...`` of the present host key."""
        command = ["ssh-keygen", "-l", "-E", "sha256", "-f", str(self.folder / "host.pub")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    def options(self) -> SshOptions:
        """What logs in; no configuration of the machine's own users is read."""
        return SshOptions(self.known_hosts, self.identity, extra=("-F", "none"))

    def host_key(self) -> str:
        """The present host key as ``TYPE BASE64``."""
        return " ".join((self.folder / "host.pub").read_text(encoding="utf-8").split()[:2])

    def new_host_key(self) -> None:
        """Make another host key; the server takes it when it is started again."""
        for path in self.folder.glob("host*"):
            path.unlink()
        make_key(self.folder / "host")

    def start(self) -> None:
        """Start it and wait until it listens."""
        log = self.folder / "log"
        command = [*self.wrap, PROGRAM, "-D", "-f", str(self._write_config()), "-E", str(log)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        self.stop()
        told = log.read_text(encoding="utf-8") if log.exists() else "nothing"
        raise RuntimeError(f"sshd didn't start; it said: {told}")

    def stop(self) -> None:
        """End the server and its connections."""
        if self._process is not None:
            self.cut()
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def restart(self) -> None:
        """End it, with its connections, and start it anew."""
        self.stop()
        self.start()

    def cut(self) -> None:
        """Kill every connection, as a network that breaks would; the server goes on listening."""
        assert self._process is not None
        for pid in descendants(self._process.pid):
            with contextlib.suppress(OSError):
                if b"sshd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def _write_config(self) -> Path:
        path = self.folder / "sshd_config"
        lines = (
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized",
            f"AllowUsers {self.user}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "PrintMotd no",
            "UseDNS no",
            "LogLevel VERBOSE",
            "Subsystem sftp internal-sftp",
            *self.extra,
        )
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path


@contextlib.contextmanager
def sshd(
    *, extra: Sequence[str] = (), wrap: Sequence[str] = (), user: str | None = None
) -> Iterator[Server]:
    """Run a server while the context is open.

    Args:
        extra: Further lines of its configuration (``SetEnv ...``, ``ChrootDirectory ...``).
        wrap: Words before its command (``unshare -m ...``); they must end in an ``exec``.
        user: An existing user to log in as; else, as root, one is made.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="edgeprune-sshd-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        home = folder / "home"
        if os.geteuid() == 0:
            # root's server wants it, and only the system's own start makes it
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        if user is None and os.geteuid() == 0:
            user = stack.enter_context(_made_user(home))
        else:
            user = user or pwd.getpwuid(os.geteuid()).pw_name
            home = Path(pwd.getpwnam(user).pw_dir)
        make_key(folder / "host")
        make_key(folder / "login")
        shutil.copyfile(folder / "login.pub", folder / "authorized")
        server = Server(folder, user, home, _free_port(), extra, wrap)
        known = f"[127.0.0.1]:{server.port} {server.host_key()}\n"
        server.known_hosts.write_text(known, encoding="utf-8")
        stack.callback(server.stop)
        server.start()
        yield server


def make_key(path: Path) -> None:
    """Make a key pair without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def descendants(pid: int) -> list[int]:
    """All children of a process and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text(encoding="ascii").split()):
                found += [child, *descendants(child)]
    return found


@contextlib.contextmanager
def _made_user(home: Path) -> Iterator[str]:
    name = f"edgeprune-{os.getpid()}-{next(_NUMBERS)}"
    # '*': no password fits, and yet the account isn't locked
    command = ["useradd", "--no-log-init", "-M", "-d", str(home), "-s", "/bin/sh", "-p", "*", name]
    subprocess.run(command, check=True, capture_output=True)
    try:
        home.mkdir()
        user = pwd.getpwnam(name)
        os.chown(home, user.pw_uid, user.pw_gid)
        yield name
    finally:
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
