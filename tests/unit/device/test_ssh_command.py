# SPDX-License-Identifier: Apache-2.0
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.device.address import parse_address
from edgeprune.device.ssh_command import SshOptions, explain, quote, quoted_path
from edgeprune.errors import InputError

BOARD = parse_address("ssh://pi@board")
AWKWARD = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    st.text(st.sampled_from("'\"\\!$`;&|<>()*?~# \t\n-=%{}[]ax"), max_size=30),
)
SHELLS = {
    "sh": ["sh", "-c"],
    "bash": ["bash", "-c"],
    "busybox": ["busybox", "sh", "-c"],
    "zsh": ["zsh", "-fc"],
    "fish": ["fish", "--no-config", "-c"],
}


@pytest.mark.parametrize("name", SHELLS)
def test_any_login_shell_takes_the_words_apart_again(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here; `apt-get install {name}` provides it")

    @settings(max_examples=25)
    @given(st.lists(AWKWARD, min_size=1, max_size=5))
    def check(words: list[str]) -> None:
        command = " ".join(map(quote, ("printf", "%s\\0", *words)))
        done = subprocess.run([*SHELLS[name], command], capture_output=True, check=True)
        assert done.stdout == "".join(f"{word}\0" for word in words).encode()

    check()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "No ED25519 host key is known for board and you have requested strict checking.\n"
            "Host key verification failed.\n",
            "its host key isn't known; `edgeprune device add ssh://pi@board` shows its fingerprint",
        ),
        (
            "pi@board: Permission denied (publickey,password).\n",
            "the device refuses every key ssh tried for pi@board; `ssh-copy-id` puts yours there",
        ),
        (
            "ssh: connect to host board port 22: No route to host\n",
            "can't be reached: no route to the host",
        ),
        ("ssh: connect to host board port 22: Connection timed out\n", "doesn't answer"),
        ("Connection timed out during banner exchange\n", "doesn't answer"),
        ("ssh: connect to host board port 22: Network is unreachable\n", "network is down"),
        ("kex_exchange_identification: Connection closed by remote host\n", "may be starting"),
        (
            "ssh: Could not resolve hostname board: Name or service not known\n",
            "no such host 'board'",
        ),
        ("something\nnew\n", "ssh can't connect: new"),
        ("", "ssh can't connect: it says nothing"),
    ],
)
def test_each_cause_is_one_clear_line(said: str, told: str) -> None:
    line = explain(BOARD, SshOptions(), said)
    assert line.startswith("ssh://pi@board: ")
    assert told in line
    assert "\n" not in line


def test_a_changed_key_in_the_users_own_file_names_how_to_remove_it() -> None:
    said = """@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
SHA256:CBn96GZl1gfe62GPhXflb6JUd6Ro1epevYGqMpU991Y.
Offending ECDSA key in /home/me/.ssh/known_hosts:12
Host key for [board]:2222 has changed and you have requested strict checking.
"""
    line = explain(BOARD, SshOptions(Path("/other")), said)
    assert "REFUSED: its host key HAS CHANGED, it now shows SHA256:CBn96GZl1gfe62" in line
    assert "line 12 of /home/me/.ssh/known_hosts" in line
    assert "`ssh-keygen -R '[board]:2222' -f '/home/me/.ssh/known_hosts'`" in line


def test_a_path_that_no_quoting_keeps_is_refused() -> None:
    assert quoted_path(Path("/a b/100%")) == '"/a b/100%%"'
    with pytest.raises(InputError, match="ssh can't take a quote"):
        quoted_path(Path('/a"b'))
