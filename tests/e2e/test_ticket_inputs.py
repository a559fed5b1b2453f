# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket``: every kind of bad input is refused in a line, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgeprune.cli.main import main
from edgeprune.finetune import read_state
from edgeprune.mask import About, Mask, Ticket, read_ticket, write_ticket
from edgeprune.model import read
from tests.e2e.support import tree
from tests.e2e.test_bad_input import refused
from tests.e2e.test_ticket import BRIEF, DATA

Arguments = Callable[[Path, Path], list[str | Path]]


@pytest.fixture(scope="module")
def snip(digits_pt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket without weights of its own."""
    path = tmp_path_factory.mktemp("tickets") / "snip.safetensors"
    given = ["ticket", "find", str(digits_pt2), "-m", "snip", "--samples", "64", *DATA]
    assert main([*given, "--density", "0.2", "-o", str(path)]) == 0
    return path


def finding(*options: str) -> Arguments:
    return lambda model, folder: [
        "find", model, *DATA, "-o", folder / "t.safetensors", *options,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (finding("--density", "0"), "'density' should be greater than 0, got 0.0"),
        (finding("--density", "1.5"), "'density' should be less than or equal to 1, got 1.5"),
        (finding("-m", "random", "--pattern", "2:5"), "has 1 inputs, which 5 doesn't divide"),
        (finding("-m", "random", "--pattern", "4:2"), "4:2"),
        (finding("-m", "snip", "--epochs", "3"), "--epochs: isn't used by snip"),
        (finding("-m", "rigl", "--rewind", "0.1"), "--rewind: isn't used by rigl, only by imp"),
        (finding("-m", "set", "--pattern", "2:4"), "--pattern: isn't used by set"),
        (finding("-m", "random", "--alloc", "by-hand"), "[densities]"),
        (finding("-m", "random", "--exclude", "haed*"), "--exclude haed*: fits no weight"),
        (finding("-m", "snip", "--trained", "s.pt2"), "--trained: snip only finds a mask"),
        (finding("-m", "rigl", "--epochs", "0"), "takes 1 epoch or more"),
        (finding("--lr", "-1"), "'train.learning_rate' should be greater than 0"),
        (finding("--recipe", "nowhere.toml"), "nowhere.toml: can't be read"),
    ],
)
def test_options_that_cannot_be(
    arguments: Arguments,
    says: str,
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["ticket", *map(str, arguments(digits_pt2, tmp_path))]
    assert says in refused(given, tmp_path, capsys)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("[imp]\nrat = 0.5\n", "unknown key 'imp.rat'; did you mean 'rate'?"),
        ('method = "snip"\n[imp]\nrate = 0.5\n', "key 'imp.rate': isn't used by snip, only by imp"),
        ("[train]\npatience = 3\n", "key 'train.patience': isn't used by imp"),
        ("density = 2.0\n", "key 'density' should be less than or equal to 1"),
    ],
)
def test_recipes_that_cannot_be(
    recipe: str, says: str, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.toml"
    path.write_text(recipe)
    given = ["ticket", "find", str(digits_pt2), *DATA, "--recipe", str(path)]
    line = refused([*given, "-o", str(tmp_path / "t.safetensors")], tmp_path, capsys)
    assert "t.toml" in line
    assert says in line


def test_data_is_asked_for(
    digits_pt2: Path, snip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, ticket = str(tmp_path / "t.safetensors"), str(snip)
    model = str(digits_pt2)
    for given in (
        ["find", model, "-o", out],
        ["train", model, ticket, "-o", str(tmp_path / "s.pt2")],
        ["ntk", model, ticket],
    ):
        assert "--data" in refused(["ticket", *given], tmp_path, capsys)


def another(folder: Path) -> Path:
    """A ticket for another network."""
    keep = {"conv1.weight": torch.ones(4, 1, 3, 3, dtype=torch.bool)}
    write_ticket(folder / "t.safetensors", Ticket(Mask(keep, About("by hand"))))
    return folder / "t.safetensors"


def no_ticket(folder: Path) -> Path:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, folder / "t.safetensors")
    return folder / "t.safetensors"


def garbage(folder: Path) -> Path:
    (folder / "t.safetensors").write_bytes(bytes(range(256)) * 9)
    return folder / "t.safetensors"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (another, "for another network: 'conv1.weight' has shape (16, 1, 3, 3)"),
        (no_ticket, "but no ticket"),
        (garbage, "no ticket, or damaged"),
        (lambda folder: folder / "nowhere.safetensors", "there is no such file"),
    ],
)
def test_tickets_that_cannot_be_used(
    make: Callable[[Path], Path],
    says: str,
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(make(tmp_path))
    given = ["ticket", "train", str(digits_pt2), path, *DATA, "-o", str(tmp_path / "s.pt2")]
    assert says in refused(given, tmp_path, capsys)
    if make is not another:
        assert says in refused(["ticket", "show", path], tmp_path, capsys)
    else:
        line = refused(["ticket", "apply", str(digits_pt2), path], tmp_path, capsys)
        assert "conv1.weight" in line


def test_outputs_that_cannot_be(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["ticket", "find", str(digits_pt2), *DATA, "-m", "gradual", *BRIEF]
    for further, says in (
        (["-o", str(tmp_path / "t.pt2")], "should end in .safetensors"),
        (["-o", str(tmp_path / "t.safetensors"), "--trained", str(tmp_path / "t.onnx")], ".pt2"),
        (["-o", str(tmp_path)], "is a folder"),
        (["-o", str(tmp_path / ("n" * 238 + ".safetensors"))], "File name too long"),
        (["-o", str(tmp_path / ("n" * 300 + ".safetensors")), "--resume"], "File name too long"),
        (["-o", "/proc/1/t.safetensors"], "/proc/1/t.safetensors: can't be written: "),
        (
            ["-o", str(tmp_path / "t.safetensors"), "--trained", "/proc/1/s.pt2"],
            "/proc/1/s.pt2: can't be written: ",
        ),
    ):
        if "/proc/1" in str(further) and not Path("/proc/1").exists():
            continue
        assert says in refused([*given, *further], tmp_path, capsys)
    (tmp_path / "t.json").write_text("precious")
    line = refused([*given, "-o", str(tmp_path / "t.safetensors")], tmp_path, capsys)
    assert "t.json: is there already" in line


def test_no_result_takes_the_place_of_the_model(
    snip: Path, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, ticket = tmp_path / "m.pt2", snip
    model.write_bytes(digits_pt2.read_bytes())
    for arguments in (
        ("find", model, "-m", "early-bird", "-o", tmp_path / "m.safetensors", *DATA),
        ("train", model, ticket, "-o", model, *DATA),
        ("apply", model, ticket, "--masked", model),
    ):
        assert main(["ticket", *map(str, arguments), "--overwrite"]) == 2
        assert f"{model}: is the model itself" in capsys.readouterr().err
    assert model.read_bytes() == digits_pt2.read_bytes()
    assert tree(tmp_path) == ["m.pt2"]


def test_weights_to_start_from_that_are_of_another_network_or_no_numbers(
    snip: Path, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, path = read_ticket(snip).mask, tmp_path / "t.safetensors"
    endless = read_state(read(digits_pt2).module())
    endless["bn1.bias"][0] = torch.inf  # no mask covers it
    given = ["ticket", "train", str(digits_pt2), str(path), *DATA, "-o", str(tmp_path / "c.pt2")]
    for start, says in (
        ({"none": torch.ones(1)}, "are of another network: 'conv1.weight' has shape"),
        (endless, "hold NaN or infinity, in 'bn1.bias'"),
    ):
        write_ticket(path, Ticket(mask, start))
        for control in ([], ["--control", "shuffled"]):
            line = refused([*given, *control], tmp_path, capsys)
            assert line.startswith(f"error: {path}: the weights that it starts from {says}")


def test_a_dry_run_refuses_places_as_finding_does(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["ticket", "find", str(digits_pt2), "-m", "snip", *DATA]
    for further, says in (
        (["-o", str(tmp_path / "t.safetensors"), "--trained", "s.pt2"], "snip only finds a mask"),
        (["-o", str(tmp_path / "t.pt2")], "should end in .safetensors"),
    ):
        line = refused([*given, *further, "--dry-run"], tmp_path, capsys)
        assert says in line
        assert refused([*given, *further], tmp_path, capsys) == line
    # What is there already is no hindrance: a plan replaces nothing.
    (tmp_path / "t.safetensors").write_text("precious")
    assert main([*given, "-o", str(tmp_path / "t.safetensors"), "--dry-run"]) == 0
    assert (tmp_path / "t.safetensors").read_text() == "precious"
