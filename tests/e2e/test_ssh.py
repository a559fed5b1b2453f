# SPDX-License-Identifier: Apache-2.0
"""Devices behind a real sshd on loopback."""

import io
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.device.address import parse_address
from edgeprune.device.host_keys import fetch
from edgeprune.device.shell import Done
from edgeprune.device.ssh import SshOptions, SshShell
from edgeprune.device.transfer import get, put
from edgeprune.errors import DeviceError, InputError
from tests.sshd import Server, needs_sshd, sshd

pytestmark = needs_sshd

ROOT = os.geteuid() == 0
AWKWARD = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    st.text(st.sampled_from("'\"\\!$`;&|<>()*?~# \t\n\r-=%{}[]"), max_size=40),
    st.sampled_from(["", "-n", "--", "-", "$(touch x)", "a\\'; touch x; '", "\n", "~", "é\u2028"]),
)


@pytest.fixture
def shell(server: Server) -> Iterator[SshShell]:
    reached = SshShell(parse_address(server.address), server.options())
    yield reached
    reached.close()


def reach(server: Server, options: SshOptions | None = None, address: str | None = None) -> Done:
    """One command in a connection of its own."""
    shell = SshShell(parse_address(address or server.address), options or server.options())
    try:
        return shell.script('echo "$1"', "here", timeout=60)
    finally:
        shell.close()


def test_output_code_and_errors_are_told_apart(shell: SshShell) -> None:
    done = shell.script('cat; echo "$1" >&2; exit 7', "two", stdin=b"one")
    assert (done.code, done.out, done.err) == (7, b"one", "two\n")


def test_the_folder_is_the_users_own(server: Server, shell: SshShell) -> None:
    assert shell.run(("pwd",)).out.decode().strip() == str(server.home)


def test_a_signal_is_a_negative_code(shell: SshShell) -> None:
    assert shell.script("kill -KILL $$").code == -9


def test_a_programs_255_is_not_taken_for_the_connections(shell: SshShell) -> None:
    assert shell.script("exit 255").code == 254


def test_a_missing_program_ends_as_in_a_shell(shell: SshShell) -> None:
    done = shell.run(("no-such-program", "x"))
    assert done.code == 127
    assert "no-such-program" in done.err


def test_lines_of_standard_error_are_told(shell: SshShell) -> None:
    lines: list[str] = []
    shell.run(("sh", "-c", "echo a >&2; echo b >&2"), tell=lines.append)
    assert lines == ["a", "b"]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(AWKWARD, max_size=6))
def test_words_arrive_as_they_are(shell: SshShell, words: list[str]) -> None:
    done = shell.script('[ $# -eq 0 ] || printf "%s\\0" "$@"', *words)
    assert done.out == "".join(f"{word}\0" for word in words).encode()


def test_names_that_are_no_text_arrive_as_they_are(shell: SshShell) -> None:
    name = os.fsdecode(b"\xff\xfe'")
    assert shell.run(("printf", "%s", name)).out == b"\xff\xfe'"


def test_one_connection_serves_all_commands(shell: SshShell) -> None:
    ports = {shell.script('echo "$SSH_CONNECTION"').out for _ in range(3)}
    assert len(ports) == 1


def test_closing_leaves_neither_process_nor_socket(server: Server) -> None:
    shell = SshShell(parse_address(server.address), server.options())
    shell.run(("true",))
    assert shell._connection is not None
    folder = shell._connection._folder
    assert (folder / "s").is_socket()
    shell.close()
    assert not folder.exists()
    shell.run(("true",))  # and it can be taken up again
    shell.close()


def test_time_ends_the_program_there(server: Server, shell: SshShell) -> None:
    with pytest.raises(DeviceError, match=r"^ssh://.*: sh took more than 1 s and was stopped$"):
        shell.script('echo $$ >"$1"; sleep 60', str(server.home / "pid"), timeout=1)
    assert ended(int((server.home / "pid").read_text()))
    assert shell.run(("echo", "on")).out == b"on\n"  # the connection serves further commands


def test_an_interrupt_ends_the_program_there(server: Server, shell: SshShell) -> None:
    def interrupt(line: str) -> None:
        if line == "begun":
            raise KeyboardInterrupt

    words = ("sh", "-c", 'echo $$ >"$1"; echo begun >&2; sleep 60; :', "sh", f"{server.home}/pid")
    with pytest.raises(KeyboardInterrupt):
        shell.run(words, tell=interrupt)
    assert ended(int((server.home / "pid").read_text()))


def ended(pid: int) -> bool:
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


def test_large_input_comes_back_whole(shell: SshShell) -> None:
    data = os.urandom(3 << 20)
    assert shell.script("cat", stdin=io.BytesIO(data)).out == data


# what is refused


def test_an_unknown_host_key_is_refused_with_a_hint(server: Server, tmp_path: Path) -> None:
    options = replace(server.options(), known_hosts=tmp_path / "none")
    with pytest.raises(DeviceError) as caught:
        reach(server, options)
    assert str(caught.value) == (
        f"{server.address}: its host key isn't known; `edgeprune device add {server.address}` "
        "shows its fingerprint and asks whether to accept it"
    )
    assert not (tmp_path / "none").exists()


def test_a_changed_host_key_is_refused_loudly() -> None:
    with sshd() as server:
        assert reach(server).out == b"here\n"
        server.new_host_key()
        server.restart()
        fresh = server.fingerprint
        with pytest.raises(DeviceError) as caught:
            reach(server)
    said = str(caught.value)
    assert "REFUSED: its host key HAS CHANGED" in said
    assert fresh in said
    assert f"line 1 of {server.known_hosts}" in said
    assert "`edgeprune device remove NAME`" in said
    assert "\n" not in said


def test_a_wrong_key_is_refused(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "wrong key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True)
    with pytest.raises(DeviceError, match=r"the device refuses the key that was named for .*@127"):
        reach(server, replace(server.options(), identity=key))


def test_a_port_without_a_server_is_told(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f":{port}: refuses the connection: no ssh server"):
            reach(server, address=f"ssh://127.0.0.1:{port}")


def test_a_server_that_says_nothing_is_told(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        options = replace(server.options(), connect_timeout=1)
        with pytest.raises(DeviceError, match=f":{port}: doesn't answer; is it on"):
            reach(server, options, f"ssh://127.0.0.1:{port}")


def test_an_unknown_host_is_told(server: Server) -> None:
    with pytest.raises(DeviceError, match=r"no such host 'no-such-host\.invalid'"):
        reach(server, address="ssh://no-such-host.invalid")


def test_a_wrong_configuration_of_ssh_is_told(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("NoSuchOption yes\n")
    with pytest.raises(InputError, match="ssh refuses its configuration"):
        reach(server, replace(server.options(), extra=("-F", str(config))))


def test_the_users_configuration_is_respected(server: Server, tmp_path: Path) -> None:
    """An alias, a file of host keys with a space in its name, and what would get in the way."""
    known = tmp_path / "known hosts 100%"
    known.write_bytes(server.known_hosts.read_bytes())
    shown = str(known).replace("%", "%%")
    config = tmp_path / "config"
    config.write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f'  UserKnownHostsFile "{shown}"\n  IdentityFile {server.identity}\n'
        "  RemoteCommand echo hijacked\n  RequestTTY force\n  ControlPath /nowhere/socket\n"
        "  LocalForward 127.0.0.1:1 127.0.0.1:1\n  ExitOnForwardFailure yes\n"
    )
    options = SshOptions(tmp_path / "ours", extra=("-F", str(config)))
    assert reach(server, options, "ssh://board").out == b"here\n"


def test_a_jump_host_is_gone_through_and_told_when_it_is_closed(
    server: Server, tmp_path: Path
) -> None:
    with sshd(extra=("AllowTcpForwarding yes",)) as jump:
        config = tmp_path / "config"
        hosts = [("jump", jump, ""), ("board", server, "  ProxyJump jump\n")]
        config.write_text(
            "".join(
                f"Host {name}\n  HostName 127.0.0.1\n  Port {at.port}\n  User {at.user}\n"
                f"  IdentityFile {at.identity}\n  UserKnownHostsFile {at.known_hosts}\n{more}"
                for name, at, more in hosts
            )
        )
        options = SshOptions(extra=("-F", str(config)))
        assert reach(server, options, "ssh://board").out == b"here\n"
        address = parse_address("ssh://board")
        assert fetch(address, options) is None
        found = fetch(address, options, compare=False)
        assert found is not None
        assert found.fingerprint == server.fingerprint
        jump.known_hosts.unlink()  # a jump host's key is never accepted on the way
        with pytest.raises(DeviceError, match=r"^ssh://board: the way to it \(ProxyJump"):
            reach(server, options, "ssh://board")
        with pytest.raises(DeviceError, match=r"^ssh://board: the way to it \(ProxyJump"):
            fetch(address, options, compare=False)
        assert not jump.known_hosts.exists()


def test_a_long_temporary_folder_does_not_matter(
    shell: SshShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert shell.run(("echo", "here")).out == b"here\n"


# files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(8 << 20))
    return path


def test_files_go_there_and_back(server: Server, shell: SshShell, file: Path) -> None:
    remote = f"{server.home}/-a 'b\"\\;\n/ü.bin"
    digest = put(shell, file, remote)
    assert Path(remote).read_bytes() == file.read_bytes()
    assert get(shell, remote, file.with_name("back")) == digest
    assert file.with_name("back").read_bytes() == file.read_bytes()


class Slow:
    """A bar that cuts the connection once half of the bytes are on their way."""

    def __init__(self, server: Server) -> None:
        self._server, self._cut = server, False
        self.sent = 0

    def bar(self, title: str, total: int) -> "Slow":
        self._total = total
        return self

    def __enter__(self) -> "Slow":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, text: str) -> None:
        pass

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.sent += steps
        if not self._cut and self.sent > self._total // 2:
            self._cut = True
            self._server.cut()


def test_a_cut_upload_goes_on_where_it_ended(server: Server, shell: SshShell, file: Path) -> None:
    remote = f"{server.home}/resumed.bin"
    Path(remote).write_bytes(b"old")
    with pytest.raises(DeviceError, match=r"^ssh://.*: the connection broke"):
        put(shell, file, remote, Slow(server))
    assert Path(remote).read_bytes() == b"old"
    (part,) = server.home.glob(".edgeprune-*.part")
    have = part.stat().st_size
    assert 0 < have < file.stat().st_size
    starts = Slow(server)
    starts._cut = True
    put(shell, file, remote, starts)
    assert Path(remote).read_bytes() == file.read_bytes()
    assert not list(server.home.glob(".edgeprune-*.part"))


@pytest.fixture
def small(server: Server) -> Iterator[Path]:
    """A file system of 128 KiB that belongs to the server's user."""
    if not ROOT:
        pytest.skip("mounting a small tmpfs needs root: run the tests as root")
    place = server.home / "small"
    place.mkdir(exist_ok=True)
    owner = server.home.stat()
    options = f"size=128k,uid={owner.st_uid},gid={owner.st_gid}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"this system refuses to mount a tmpfs: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told(shell: SshShell, file: Path, small: Path) -> None:
    with pytest.raises(DeviceError, match=r"^ssh://.*/small/x: no space: 8,388,608 B are still"):
        put(shell, file, f"{small}/x")
    file.write_bytes(bytes(100_000))
    put(shell, file, f"{small}/fits")
    shell.script('cat /dev/zero >"$1"', f"{small}/filler")
    with pytest.raises(DeviceError, match=r"no space"):
        put(shell, file.with_name("data.bin"), f"{small}/deeper/x")
    assert (small / "fits").stat().st_size == 100_000


def test_a_read_only_place_is_told(shell: SshShell, file: Path, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(DeviceError, match=r"^ssh://.*/small/x: on a read-only file system$"):
        put(shell, file, f"{small}/x")


def test_a_place_of_somebody_else_is_told(shell: SshShell, file: Path) -> None:
    if not ROOT:
        pytest.skip("the server's user is this one; run the tests as root for one of its own")
    with pytest.raises(DeviceError, match=r"^ssh://.*: /x/y: permission denied$"):
        put(shell, file, "/x/y")


def test_a_server_that_goes_away_is_told(file: Path) -> None:
    with sshd() as server:
        shell = SshShell(parse_address(server.address), server.options())
        shell.run(("true",))
        server.stop()
        with pytest.raises(DeviceError, match=r"refuses the connection|the connection broke"):
            put(shell, file, f"{server.home}/x")
        shell.close()
