# SPDX-License-Identifier: Apache-2.0
"""``inspect``: the short view, every group, the drawing, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from edgeprune.cli.main import main
from edgeprune.model import Event, capture, save
from tests import networks
from tests.e2e.support import run, tree

Golden = Callable[[str, str], None]
SVG = "{http://www.w3.org/2000/svg}"


@torch.library.custom_op("edgeprune_tests::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    """An operator that no rule can know."""
    return x.flip(1)


@mystery.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Mixed(nn.Module):
    """Two layers with the unknown operator between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(mystery(self.first(x)))


class Single(nn.Module):
    """One layer, from input to output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


def model(folder: Path, name: str, network: nn.Module, *shape: int) -> Path:
    captured, _ = capture(network.eval(), (torch.zeros(2, *shape),), event=Event("test"))
    path = folder / f"{name}.pt2"
    save(captured, path)
    return path


@pytest.fixture(autouse=True)
def _page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return model(tmp_path, "digits", networks.digits_cnn(), 1, 8, 8)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What ``inspect`` prints."""

    def inspect(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main(["inspect", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return inspect


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line with which ``inspect`` refuses."""

    def inspect(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main(["inspect", *map(str, arguments)]) == 2
        told = capsys.readouterr()
        assert not told.out
        (line,) = told.err.splitlines()
        return line

    return inspect


def test_all_groups_as_text(digits: Path, ask: Callable[..., str], golden: Golden) -> None:
    golden("inspect/digits-groups.txt", ask(digits, "--groups"))


def test_the_short_view_as_text(digits: Path, ask: Callable[..., str], golden: Golden) -> None:
    golden("inspect/digits.txt", ask(digits))


def test_a_group_of_a_transformer_says_what_renormalises_it(
    tmp_path: Path, ask: Callable[..., str]
) -> None:
    path = model(tmp_path, "vit", networks.TinyViT(), 3, 32, 32)
    text = ask(path, "--groups")
    assert "renormalises: layer_norm, layer_norm_1" in text
    everything = json.loads(ask(path, "--json"))
    words = text.replace(",", " ").split()
    slices = [member for group in everything["groups"] for member in group["members"]]
    assert all(words.count(f"{name}[{dim}]") == 1 for name, dim in slices)
    assert all(len(line) <= 120 for line in text.splitlines())


def test_long_names_stay_whole_where_they_are_piped(tmp_path: Path) -> None:
    name = "a_name_that_is_longer_than_any_terminal_is_wide_" * 3
    network = nn.Sequential()
    network.add_module(name, nn.Linear(4, 6))
    network.add_module("head", nn.Linear(6, 2))
    path = model(tmp_path, "long", network, 4)
    for arguments in ((), ("--groups",)):
        done = run("inspect", path, *arguments, cwd=tmp_path)
        assert name in done.stdout
        assert "\u2026" not in done.stdout


def test_json_has_the_same_keys_whatever_is_asked(digits: Path, ask: Callable[..., str]) -> None:
    found = json.loads(ask(digits, "--json"))
    assert json.loads(ask(digits, "--json", "--groups")) == found
    keys = {"inputs", "numerics", "history", "totals", "layers", "groups", "frozen"}
    assert set(found) == keys
    numbers = {"channels", "parameters", "macs", "bytes"}
    for group in found["groups"]:
        assert set(group) == {"name", "members", "renormalises", *numbers}
        assert all(isinstance(group[key], int) for key in numbers)
        assert all(isinstance(n, str) and isinstance(d, int) for n, d in group["members"])
    for frozen in found["frozen"]:
        assert set(frozen) == {"name", "dim", "size", "of", "cause", "node"}
        assert 0 < frozen["size"] <= frozen["of"]
    nodes = {layer["node"] for layer in found["layers"]} | {"output"}
    assert {frozen["node"] for frozen in found["frozen"]} <= nodes


def test_an_operator_without_a_rule_is_named(tmp_path: Path, ask: Callable[..., str]) -> None:
    path = model(tmp_path, "mixed", Mixed(), 8)
    # An operator that isn't torch's own may do anything: a file that has one needs trust.
    for arguments in ((), ("--groups",)):
        assert "no rule for edgeprune_tests.mystery" in ask(path, "--trust-pickle", *arguments)
    picture = tmp_path / "mixed.svg"
    ask(path, "--trust-pickle", "--svg", picture)
    assert "no rule for edgeprune_tests.mystery" in picture.read_text()


def test_a_model_of_which_nothing_can_be_pruned(tmp_path: Path, ask: Callable[..., str]) -> None:
    path = model(tmp_path, "single", Single(), 8)
    assert "No channel can be pruned" in ask(path)
    assert "no channel can be pruned" in ask(path, "--groups")
    assert json.loads(ask(path, "--json"))["groups"] == []
    ask(path, "--svg", tmp_path / "single.svg")
    assert "only" in (tmp_path / "single.svg").read_text()


def test_the_drawing_of_the_readme(tmp_path: Path, ask: Callable[..., str], golden: Golden) -> None:
    path = model(tmp_path, "resnet20", networks.resnet20(), 3, 32, 32)
    picture = tmp_path / "resnet20.svg"
    said = ask(path, "--svg", picture)
    assert said == f"{picture}: boxes: 31, channel groups: 12\n"
    golden("inspect/resnet20.svg", picture.read_text())


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (networks.digits_cnn, (1, 8, 8)),
        (networks.TinyMobileNet, (3, 32, 32)),
        (networks.TinyViT, (3, 32, 32)),
    ],
)
def test_a_drawing_has_every_layer_and_group(
    tmp_path: Path, ask: Callable[..., str], network: Callable[[], Any], shape: tuple[int, ...]
) -> None:
    path = model(tmp_path, "net", network(), *shape)
    picture = tmp_path / "net.svg"
    found = json.loads(ask(path, "--svg", picture, "--json"))
    root = ElementTree.fromstring(picture.read_text())
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    lines = {line for title in titles for line in title.splitlines()}
    assert {layer["name"] for layer in found["layers"] if layer["parameters"]} <= lines
    for number, group in enumerate(found["groups"], 1):
        gives = f"gives group {number}: {group['name']}, {group['channels']} channels"
        assert gives in lines
        assert group["name"] in titles  # in the legend
    for frozen in found["frozen"]:
        name = f"{frozen['name']}[{frozen['dim']}]"
        assert f"frozen: {name}: {frozen['cause']} ({frozen['node']})" in lines


def test_the_same_model_gives_the_same_drawing(digits: Path, ask: Callable[..., str]) -> None:
    first, second = digits.with_name("a.svg"), digits.with_name("b.svg")
    ask(digits, "--svg", first)
    ask(digits, "--svg", second)
    assert first.read_bytes() == second.read_bytes()


def test_drawing_and_groups_together(digits: Path, ask: Callable[..., str]) -> None:
    text = ask(digits, "--svg", digits.with_name("a.svg"), "--groups")
    assert "slices: conv1.weight[0]" in text
    assert digits.with_name("a.svg").exists()


def test_places_that_a_drawing_cannot_go_to(digits: Path, refusal: Callable[..., str]) -> None:
    folder = digits.parent
    there = folder / "there.svg"
    there.write_text("precious")
    (folder / "folder.svg").mkdir()
    before = tree(folder)
    assert "is there already; --overwrite replaces it" in refusal(digits, "--svg", there)
    assert "name it net.png.svg" in refusal(digits, "--svg", folder / "net.png")
    assert "is an SVG file" in refusal(digits, "--svg", digits, "--overwrite")
    assert "is a folder" in refusal(digits, "--svg", folder / "folder.svg")
    assert "there is no folder" in refusal(digits, "--svg", folder / "none" / "net.svg")
    assert "no such file" in refusal(folder / "none.pt2", "--svg", folder / "net.svg").lower()
    assert tree(folder) == before
    assert there.read_text() == "precious"


def test_a_drawing_is_replaced_when_told(digits: Path, ask: Callable[..., str]) -> None:
    there = digits.with_name("there.svg")
    there.write_text("old")
    ask(digits, "--svg", there, "--overwrite")
    assert there.read_text().startswith("<svg")
    assert tree(digits.parent) == ["digits.pt2", "there.svg"]
