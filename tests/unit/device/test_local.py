# SPDX-License-Identifier: Apache-2.0
import io
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.local import LocalShell
from edgeprune.device.shell import Shell
from edgeprune.errors import DeviceError

ECHO = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))


@pytest.fixture
def shell() -> Shell:
    return LocalShell()


def test_output_code_and_errors_are_told_apart(shell: Shell) -> None:
    done = shell.script('echo "$1"; echo "$2" >&2; exit 7', "one", "two")
    assert (done.code, done.out, done.err) == (7, b"one\n", "two\n")


def test_a_signal_is_a_negative_code(shell: Shell) -> None:
    assert shell.script("kill -KILL $$").code == -9


@given(WORDS)
def test_words_arrive_as_they_are(words: list[str]) -> None:
    done = LocalShell().run([sys.executable, "-c", ECHO, *words])
    assert done.out == "\0".join(words).encode()


def test_large_input_comes_back_whole(shell: Shell) -> None:
    data = os.urandom(1 << 20)
    assert shell.script("cat", stdin=data).out == data


def test_a_file_is_read_from_its_position_on(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        assert shell.script("cat", stdin=file).out == b"456789"


def test_without_input_there_is_an_empty_one(shell: Shell) -> None:
    assert shell.script("wc -c", timeout=20).out.split() == [b"0"]


def test_a_program_may_leave_its_input_unread(shell: Shell) -> None:
    assert shell.script("exit 3", stdin=bytes(1 << 20)).code == 3


def test_a_program_may_close_its_output_and_go_on_reading(shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    done = shell.script(
        'exec >"$1" 2>&1; cat', str(target), stdin=io.BytesIO(bytes(300_000)), timeout=30
    )
    assert (done.code, target.stat().st_size) == (0, 300_000)


def test_lines_of_standard_error_are_told_at_once(shell: Shell) -> None:
    lines: list[str] = []
    done = shell.run(("sh", "-c", "printf 'a\\nb' >&2; printf 'c\\n' >&2"), tell=lines.append)
    assert lines == ["a", "bc"]
    assert done.err == "a\nbc\n"


def test_time_ends_the_whole_group(shell: Shell, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = '(sleep 3; : >"$1") & sleep 60'
    with pytest.raises(DeviceError, match=r"local: sh took more than 0\.5 s and was stopped"):
        shell.script(text, str(mark), timeout=0.5)
    time.sleep(3)
    assert not mark.exists()


def test_an_error_while_telling_ends_the_program(shell: Shell) -> None:
    def tell(line: str) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        shell.run(("sh", "-c", "echo x >&2; sleep 60"), tell=tell)
    assert time.monotonic() - start < 50


def test_a_daemon_does_not_hold_us_by_its_pipes(shell: Shell) -> None:
    done = shell.script("sleep 15 & echo $!", timeout=12)
    assert done.code == 0
    os.kill(int(done.out), 9)


def test_a_missing_program_ends_as_in_a_shell(shell: Shell) -> None:
    done = shell.run(("no-such-program",))
    assert done.code == 127
    assert "no-such-program" in done.err


def test_the_folder_and_the_environment_are_its_own(tmp_path: Path) -> None:
    shell = LocalShell(tmp_path, {"OF_THE_TEST": "1"})
    done = shell.script('pwd; echo "$OF_THE_TEST"')
    assert done.out.split() == [str(tmp_path).encode(), b"1"]
