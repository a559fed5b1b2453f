# SPDX-License-Identifier: Apache-2.0
"""Start-up files of a login shell, and accounts, that print or end before a command is run."""

from pathlib import Path

import pytest

from edgeprune.device.address import parse_address
from edgeprune.device.place import There
from edgeprune.device.ssh import SshShell
from edgeprune.errors import DeviceError
from tests.sshd import Server, needs_sshd, sshd

pytestmark = needs_sshd


def reached(server: Server) -> SshShell:
    return SshShell(parse_address(server.address), server.options())


def test_what_is_printed_at_the_start_is_no_answer(tmp_path: Path) -> None:
    noisy = "printf 'no end'; printf 'none' >&2; exec sh -c \"$SSH_ORIGINAL_COMMAND\""
    with sshd(extra=(f"ForceCommand {noisy}",)) as server:
        shell = reached(server)
        try:
            heard: list[str] = []
            done = shell.run(("sh", "-c", "echo out; echo err >&2; exit 3"), tell=heard.append)
            assert (done.code, done.out, heard) == (3, b"out\n", ["err"])
            file = tmp_path / "x.onnx"
            file.write_bytes(b"x" * 9)
            place = There(shell, "there", keep=False)
            assert place.put(file, 0, None).endswith("/x.onnx")
            place.clean()
        finally:
            shell.close()


def test_a_login_shell_that_ends_is_told() -> None:
    with sshd(extra=("ForceCommand echo not available; exit 1",)) as server:
        shell = reached(server)
        try:
            with pytest.raises(DeviceError, match="ended with exit code 1 before it ran anything"):
                shell.run(("true",))
        finally:
            shell.close()


def test_a_login_shell_that_does_nothing_never_leads_to_the_root_folder(tmp_path: Path) -> None:
    with sshd(extra=("ForceCommand cat >/dev/null",)) as server:
        shell = reached(server)
        try:
            with pytest.raises(DeviceError, match="its shell answers nothing"):
                There(shell, "there", keep=False).program(None)
        finally:
            shell.close()
