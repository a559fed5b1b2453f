# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.device.address import FORMS, parse_address
from edgeprune.device.agent import CODE
from edgeprune.device.open import open_agent, open_shell, ssh_options
from edgeprune.device.settings import (
    Entry,
    Places,
    check_name,
    environment,
    find_device,
    read_devices,
    write_devices,
)
from edgeprune.errors import ConfigError, InputError, OutputError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
ENTRIES = st.builds(
    Entry,
    address=st.sampled_from(["ssh://pi@board:22", "emulated:rpi4", "tflm", "adb:R58", "web"]),
    python=st.none() | st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    identity=st.none() | TEXT,
    folder=st.none() | TEXT,
    benchmark_model=st.none() | TEXT,
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True).filter(
    lambda name: name not in FORMS
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "config", tmp_path / "cache")


def put(places: Places, text: str) -> None:
    places.config.mkdir(parents=True, exist_ok=True)
    places.devices.write_text(text, encoding="utf-8")


def test_at_first_there_are_none(places: Places) -> None:
    assert read_devices(places) == {}
    assert not places.config.exists()


@given(devices=st.dictionaries(NAMES, ENTRIES, max_size=4))
def test_what_is_written_is_read(
    devices: dict[str, Entry], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("places")
    places = Places(folder / "config", folder / "cache")
    write_devices(places, devices)
    assert read_devices(places) == devices
    assert [path.name for path in places.config.iterdir()] == ["devices.toml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[board", "devices.toml: is no TOML"),
        ("board = 1", "key 'board' should be a table"),
        ("[board]", "[board]: key 'address' is missing"),
        ('[board]\naddress = "ssh://-x"', "[board]: key 'address': device 'ssh://-x': '-x' can't"),
        ('[board]\naddress = "ssh://x:/opt"', "[board]: key 'address': 'ssh://x:/opt' has a fold"),
        ('[board]\naddress = "web"\npyton = "x"', "unknown key 'pyton'; did you mean 'python'?"),
        ('[board]\naddress = "web"\npython = []', "key 'python' should"),
        ('[board]\naddress = "web"\npython = "x"', "key 'python' should"),
        ('[board]\naddress = "web"\nidentity = ""', "key 'identity' should"),
        ('[board]\naddress = "web"\nidentity = 3', "key 'identity' should"),
        ('["-x"]\naddress = "web"', "'-x' can't be the name of a device"),
        ('["tflm"]\naddress = "web"', "'tflm' can't be the name of web"),
    ],
)
def test_a_wrong_file_is_told_by_device_and_key(places: Places, text: str, said: str) -> None:
    put(places, text)
    with pytest.raises(InputError) as caught:
        read_devices(places)
    assert said in str(caught.value)


def test_a_file_that_can_not_be_read_is_told(places: Places) -> None:
    places.devices.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"devices\.toml: a folder, where a file is needed"):
        read_devices(places)


def test_a_folder_that_can_not_be_written_is_told(places: Places) -> None:
    places.config.touch()
    with pytest.raises(OutputError, match=r"devices\.toml: can't be written"):
        write_devices(places, {})


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "a:b", "ä", "x\n", ".x"])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="can't be the name of a device"):
        check_name(name, parse_address("ssh://board"))


BOARD = '[board]\naddress = "ssh://pi@board"\npython = ["py"]\n'


def test_a_device_is_found_by_name_and_by_address(places: Places) -> None:
    put(places, BOARD)
    for text in ("board", "ssh://pi@board"):
        named = find_device(text, places)
        assert (named.name, str(named.address)) == ("board", "ssh://pi@board")
        assert named.entry.python == ("py",)


def test_an_address_that_was_not_added_works_too(places: Places) -> None:
    named = find_device("ssh://other:2222", places)
    assert (named.name, named.entry.python) == ("ssh://other:2222", None)
    assert find_device("local", places).address.kind == "local"


def test_an_address_under_two_names_is_nobodys(places: Places) -> None:
    put(places, BOARD + BOARD.replace("[board]", "[same]"))
    assert find_device("ssh://pi@board", places).name == "ssh://pi@board"


def test_an_unknown_name_is_told_with_the_nearest(places: Places) -> None:
    put(places, BOARD)
    with pytest.raises(InputError, match=r"no such device; did you mean 'board'\?; added are boa"):
        find_device("bord", places)


def test_a_folder_is_taken_only_where_one_makes_sense(places: Places) -> None:
    put(places, BOARD)
    for text in ("board:/opt/x y", "ssh://pi@board:/opt/x y", "ssh://pi@board/opt/x y"):
        named = find_device(text, places, takes_path=True)
        assert (named.name, named.address.path) == ("board", "/opt/x y")
    for text in ("board:/opt", "ssh://pi@board:/opt"):
        with pytest.raises(InputError):
            find_device(text, places)


def test_environments_lie_in_the_cache(places: Places) -> None:
    folders = {
        text: environment(places, parse_address(text)).relative_to(places.cache).as_posix()
        for text in ("emulated:rpi4", "tflm", "web", "web:chromium")
    }
    assert folders == {
        "emulated:rpi4": "emulated/rpi4",
        "tflm": "tflm",
        "web": "web",
        "web:chromium": "web",
    }


@pytest.mark.parametrize("text", ["emulated:..", "emulated:.", "emulated:-x", "emulated:X"])
def test_no_environment_lies_outside_its_folder(places: Places, text: str) -> None:
    with pytest.raises(InputError, match=r"can't be the name of a target|none of local"):
        environment(places, parse_address(text))


def test_a_key_may_be_in_the_home_folder(places: Places) -> None:
    put(places, '[board]\naddress = "ssh://board"\nidentity = "~/.ssh/board"\n')
    options = ssh_options(find_device("board", places), places)
    assert options.identity == Path("~/.ssh/board").expanduser()
    assert options.known_hosts == places.known_hosts


def test_this_machine_has_a_shell_and_an_agent(places: Places) -> None:
    named = find_device("local", places)
    assert open_shell(named, places).run(("pwd",)).out.decode().strip() == str(Path.cwd())
    with open_agent(named, places) as agent:
        assert agent.name == "local"
        assert agent.shell.run(("pwd",)).out.decode().strip() == str(CODE.resolve())


@pytest.mark.parametrize("text", ["tflm", "web", "adb:R58", "emulated:rpi4"])
def test_what_takes_no_commands_says_so(places: Places, text: str) -> None:
    with pytest.raises(InputError, match=f"no commands can be run on {text}"):
        open_shell(find_device(text, places), places)


@pytest.mark.parametrize("text", ["tflm", "web:chromium", "adb:R58"])
def test_what_has_no_agent_says_so(places: Places, text: str) -> None:
    with pytest.raises(InputError, match=f"the agent doesn't run on {text}"):
        open_agent(find_device(text, places), places)


def test_an_emulated_board_that_is_not_set_up_says_how(places: Places) -> None:
    with pytest.raises(InputError, match="edgeprune device add emulated:rpi4"):
        open_agent(find_device("emulated:rpi4", places), places)
    with pytest.raises(ConfigError, match="no target 'nix'"):
        open_agent(find_device("emulated:nix", places), places)
