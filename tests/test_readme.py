# SPDX-License-Identifier: Apache-2.0
"""The README says nothing that isn't so: commands parse, names exist, the code runs."""

import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from edgeprune import errors
from edgeprune.cli.main import application
from edgeprune.project import Project
from edgeprune.target import list_targets
from edgeprune.tickets.catalogue import CATALOGUE
from edgeprune.toml import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def of(program: str) -> list[str]:
    return [command for command in COMMANDS if command.split()[0] == program]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("line", of("edgeprune"))
def test_each_command_has_the_options_that_it_is_given(line: str) -> None:
    group = get_command(application())
    context = group.make_context("edgeprune", [], resilient_parsing=True)
    arguments = shlex.split(line)[1:]
    while hasattr(group, "resolve_command"):
        name, group, arguments = group.resolve_command(context, arguments)
        context = group.make_context(
            name, arguments, parent=context, resilient_parsing=hasattr(group, "resolve_command")
        )
    assert context.params


@pytest.mark.parametrize("line", of("make"))
def test_each_make_target_is_there(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_nothing_else_is_run() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"edgeprune", "make", "."}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user who has a network in ``mynet``."""
    from tests.networks import TinyMobileNet

    mynet = ModuleType("mynet")
    mynet.__dict__["Net"] = TinyMobileNet
    monkeypatch.setitem(sys.modules, "mynet", mynet)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code(title: str) -> str:
    """The one piece of Python in a section."""
    (found,) = re.findall(r"```python\n(.*?)```", section(title), re.DOTALL)
    return str(found)


def test_the_code_saves_a_model_that_loads(user: Path) -> None:
    from edgeprune.model import load

    exec(code("Your own model"), {})
    assert load(Path("model.pt2")).model.dynamic_batch


def test_the_library_code_prunes_a_model_that_loads(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeprune.channels import macs
    from edgeprune.model import load

    names: dict[str, Any] = {}
    exec(code("As a library"), names)
    smaller = load(Path("smaller.pt2")).model
    assert macs(smaller) == names["groups"].totals(names["removed"]).macs
    assert macs(smaller) < macs(names["model"])
    printed = capsys.readouterr().out
    assert "features.0.weight[0]" in printed
    assert "classifier.1.weight[0]: output, by output" in printed
    network, batch = names["network"], names["torch"].rand(3, 3, 32, 32)
    assert network(batch).shape == (3, 10)


def test_the_project_file_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    project = parse(tomllib.loads(text), Project, "README.md")
    assert list(project.models) == ["classifier", "detector"]
    assert set(project.budgets) == {"rpi4"}
    assert project.baseline.size == 1.02


def test_each_python_section_is_run_here() -> None:
    assert README.count("```python\n") == 2


def test_all_devices_are_named() -> None:
    named = set(re.findall(r"`([a-z0-9-]+)`", section("Devices")))
    shipped = {name for name, path in list_targets().items() if path.parent.name == "targets"}
    assert shipped <= named


def test_all_methods_of_tickets_are_told() -> None:
    rows = re.findall(
        r"^\| `(.*?)` \| (.*?) \| (.*?) \|$", section("Sparse training"), re.MULTILINE
    )
    told = [(name, entry.about, entry.paper) for name, entry in CATALOGUE.items()]
    assert rows[1:] == told  # below its head


def test_all_exit_codes_are_named() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {getattr(kind, "exit_code", 0) for kind in kinds}
    assert set(re.findall(r"^\| (\d) \|", section("Exit codes"), re.MULTILINE)) == {
        str(code) for code in codes | {0}
    }


def test_the_rooms_are_the_rooms() -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("How it is built"), re.MULTILINE)
    named = re.findall(r"`([^`]+)`", " ".join(rows))
    there = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "edgeprune").iterdir()
        if not path.name.startswith("_")
    ]
    assert sorted(named) == sorted(there)


def test_the_files_it_speaks_of_are_there() -> None:
    for name in ("LICENSE", "CHANGELOG.md", ".ci/run", "edgeprune/pipeline.py", "calibration"):
        assert name in README
        assert (ROOT / name).exists()


def test_the_tables_of_real_runs_have_their_places() -> None:
    for table in ("demo", "resnet20"):
        assert README.count(f"<!-- table:{table} -->\n") == 1
        assert README.count(f"<!-- /table:{table} -->\n") == 1
