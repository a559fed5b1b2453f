# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.address import Address, parse_address
from edgeprune.errors import InputError

GOOD = {
    "local": Address("local"),
    "local:/srv/models": Address("local", path="/srv/models"),
    "ssh://pi@board": Address("ssh", "board", "pi"),
    "ssh://board:2222": Address("ssh", "board", port=2222),
    "ssh://pi@board:/opt/models/a b": Address("ssh", "board", "pi", path="/opt/models/a b"),
    "ssh://pi@board:22/opt": Address("ssh", "board", "pi", 22, "/opt"),
    "ssh://[fe80::1%eth0]:22/opt": Address("ssh", "fe80::1%eth0", port=22, path="/opt"),
    "adb:emulator-5554": Address("adb", "emulator-5554"),
    "emulated:rpi4": Address("emulated", "rpi4"),
    "tflm": Address("tflm"),
    "web": Address("web", "node"),
    "web:chromium": Address("web", "chromium"),
}


@pytest.mark.parametrize(("text", "address"), GOOD.items())
def test_reads_what_the_user_writes(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address.without_path()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pi@board",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@board",
        "ssh://a b",
        "ssh://board;reboot",
        "ssh://pi@board:0",
        "ssh://pi@board:70000",
        "ssh://pi@board:x",
        "ssh://[::1",
        "adb:",
        "adb:-s",
        "emulated:",
        "emulated:../x",
        "local:relative",
        "tflm:x",
        "web:firefox",
    ],
)
def test_refuses_the_rest(text: str) -> None:
    with pytest.raises(InputError, match="device"):
        parse_address(text)


@given(st.text(alphabet="ssh://pi@[]:-;$`'\" \n.%x2", max_size=30))
def test_a_host_or_a_user_is_never_an_option(text: str) -> None:
    try:
        address = parse_address("ssh://" + text)
    except InputError:
        return
    for word in (address.name, address.user or "x"):
        assert not word.startswith("-")
        assert not set(word) & set(" ;$`'\"\n@/")


def test_the_loopback_of_ipv6() -> None:
    assert parse_address("ssh://u@[::1]:2222") == Address("ssh", "::1", "u", 2222)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="takes no password") as caught:
        parse_address("ssh://pi:secret@board")
    assert "secret" not in str(caught.value)
