# SPDX-License-Identifier: Apache-2.0
"""Targets: every shipped file holds what it must, every wrong file is refused in one clear line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeprune.cli.targets import app
from edgeprune.errors import ConfigError
from edgeprune.target import Target, find_target, list_targets

ROOT = Path(__file__).parents[2]
WRONG = sorted((ROOT / "tests/data/targets").glob("*.toml"))
SHIPPED = (
    "android-arm64",
    "coral-edgetpu",
    "esp32-s3",
    "host",
    "jetson-orin-nano",
    "rpi-zero-2w",
    "rpi3",
    "rpi4",
    "rpi5",
    "stm32h7",
    "web-wasm",
)
MICROCONTROLLERS = ("esp32-s3", "stm32h7")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ./targets to put files in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    return tmp_path / "targets"


def shipped(name: str) -> str:
    return (ROOT / "targets" / f"{name}.toml").read_text()


def test_these_targets_are_shipped() -> None:
    assert tuple(sorted(path.stem for path in (ROOT / "targets").glob("*.toml"))) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_is_complete(name: str) -> None:
    target = find_target(name)
    assert target.name == name
    assert target.budgets.drop == 1.0
    if name != "host":
        assert target.reach.hint is not None
        assert target.budgets.size is not None
        assert target.device.isa
    if name != "coral-edgetpu":
        assert all("fp32" in target.runtime(form).numerics for form in target.formats)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_names_its_sources_in_a_comment(name: str) -> None:
    first, *rest = shipped(name).splitlines()
    assert first == "# SPDX-License-Identifier: Apache-2.0"
    assert name == "host" or "Source" in "\n".join(rest)


def test_dot_product_is_told_apart() -> None:
    with_it = {name for name in SHIPPED if "asimddp" in find_target(name).device.isa}
    assert with_it == {"android-arm64", "jetson-orin-nano", "rpi5"}


@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_microcontrollers_take_static_int8_and_float_only(name: str) -> None:
    target = find_target(name)
    for form in target.formats:
        assert target.runtime(form).numerics == ("int8", "fp32")
    note = target.runtime("tflite").note
    assert note is not None and "GELU" in note and "Hybrid" in note


def test_formats_follow_the_runtimes() -> None:
    assert find_target("rpi4").formats == ("onnx", "tflite")
    assert find_target("coral-edgetpu").formats == ("tflite",)
    with pytest.raises(ConfigError, match="coral-edgetpu: no runtime for onnx; it takes tflite"):
        find_target("coral-edgetpu").runtime("onnx")


def test_quantities_are_read_in_their_units() -> None:
    target = find_target("stm32h7")
    assert target.device.ram == 1 << 20
    assert target.device.flash == 2 << 20
    assert target.budgets.memory == 512 << 10
    assert find_target("rpi4").budgets.latency == pytest.approx(0.05)


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_file_is_refused(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# must fail: ")
    with pytest.raises(ConfigError) as caught:
        find_target(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: {expected}")
    assert "\n" not in message


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match=r"a\.toml: is no TOML: it is not text in UTF-8"):
        find_target(str(tmp_path / "a.toml"))
    with pytest.raises(ConfigError, match=r"b\.toml: can't be read: No such file"):
        find_target(str(tmp_path / "b.toml"))
    (tmp_path / "c.toml").mkdir()
    with pytest.raises(ConfigError, match=r"c\.toml: a folder, where a file is needed"):
        find_target(str(tmp_path / "c.toml"))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        find_target("rpi44")
    assert str(caught.value).startswith("no target 'rpi44'; did you mean 'rpi4'?; known: android")


def test_a_file_of_ones_own_works_by_name_and_hides_a_shipped_one(own_folder: Path) -> None:
    mine = shipped("rpi4").replace('size = "16MB"', 'size = "1MB"')
    (own_folder / "rpi4.toml").write_text(mine)
    (own_folder / "mine.toml").write_text(mine.replace('name = "rpi4"', 'name = "mine"'))
    assert find_target("rpi4").budgets.size == 1_000_000
    assert find_target("mine").name == "mine"
    assert list_targets()["rpi4"] == Path("targets/rpi4.toml")
    assert "rpi5" in list_targets()


def test_a_file_found_by_name_must_bear_it(own_folder: Path) -> None:
    (own_folder / "mine.toml").write_text(shipped("rpi4"))
    with pytest.raises(ConfigError, match=r"mine\.toml: key 'name' is 'rpi4'; it should be the"):
        find_target("mine")
    assert find_target("targets/mine.toml").name == "rpi4"


def test_a_target_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        find_target("rpi4").threads = 1  # type: ignore[misc]


def test_list_shows_each_target() -> None:
    result = CliRunner().invoke(app, ["list"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()[1:] if line[0] != " "][
        : len(SHIPPED)
    ] == list(SHIPPED)
    assert "16 MB" in result.output


def test_list_as_json() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    listed = json.loads(result.output)
    assert [entry["name"] for entry in listed] == list(SHIPPED)
    assert listed[0]["formats"] == ["onnx", "tflite"]


@pytest.mark.parametrize("name", SHIPPED)
def test_show_says_everything(name: str) -> None:
    result = CliRunner().invoke(app, ["show", name], env={"COLUMNS": "400"})
    target = find_target(name)
    facts = [target.device.title, target.device.soc, target.device.cpu, *target.device.isa]
    for form in target.formats:
        facts += [target.runtime(form).version, target.runtime(form).note or ""]
    assert result.exit_code == 0
    for fact in facts:
        assert fact in result.output


def test_show_as_json_is_the_target() -> None:
    result = CliRunner().invoke(app, ["show", "rpi5", "--json"])
    table = json.loads(result.output)
    assert Path(table.pop("file")).name == "rpi5.toml"
    assert Target.model_validate(table) == find_target("rpi5")


def test_show_takes_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(shipped("rpi4"))
    result = CliRunner().invoke(app, ["show", str(tmp_path / "mine.toml")])
    assert "Raspberry Pi 4 Model B" in result.output


def test_show_of_an_unknown_target_raises_for_the_command_line() -> None:
    result = CliRunner().invoke(app, ["show", "rpi6"])
    assert isinstance(result.exception, ConfigError)
