# SPDX-License-Identifier: Apache-2.0
"""Emulated boards, set up once for all tests here and gone afterwards, whatever happens."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.device.emulated import set_up
from edgeprune.device.emulated.tools import find_tools
from edgeprune.errors import InputError
from edgeprune.target import find_target
from tests.device.chroot import board_behind_sshd, entries, lacks, qemus
from tests.e2e.support import train_digits
from tests.sshd import PROGRAM, Server


@pytest.fixture(scope="session", autouse=True)
def end_in_order() -> Iterator[None]:
    """Let a SIGTERM end the tests as Ctrl-C does, so that everything is cleaned up."""

    def stop(number: int, _: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def boards() -> Iterator[Path]:
    """A folder for emulated boards, outside of what pytest keeps."""
    try:
        find_tools()
    except InputError as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(prefix="edgeprune-boards-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def rpi4(boards: Path) -> Path:
    """An emulated Raspberry Pi 4."""
    set_up(boards / "rpi4", find_target("rpi4"))
    return boards / "rpi4"


@pytest.fixture(scope="session")
def rpi5(boards: Path) -> Path:
    """An emulated Raspberry Pi 5."""
    set_up(boards / "rpi5", find_target("rpi5"))
    return boards / "rpi5"


@pytest.fixture(scope="session")
def pi(rpi4: Path) -> Iterator[Server]:
    """A real sshd in front of the emulated Raspberry Pi 4; nothing of it stays."""
    if not Path(PROGRAM).exists():
        pytest.skip(f"no {PROGRAM} here: apt-get install openssh-server")
    reason = lacks()
    if reason is not None:
        pytest.skip(reason)
    mounts, kinds = Path("/proc/mounts").read_text(encoding="utf-8"), entries()
    with board_behind_sshd(rpi4 / "root", "cortex-a72") as server:
        yield server
    assert Path("/proc/mounts").read_text(encoding="utf-8") == mounts
    assert entries() == kinds
    assert qemus(rpi4) == []


@pytest.fixture(scope="session")
def digits_pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network trained on digits."""
    folder = tmp_path_factory.mktemp("digits")
    train_digits(folder / "digits.pt2", folder)
    return folder / "digits.pt2"
