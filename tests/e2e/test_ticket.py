# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket``: the real command line, on digits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeprune.cli.main import main
from edgeprune.mask import Mask, look, read_ticket
from edgeprune.model import Event, Model, capture, parameters, read, save
from edgeprune.tickets.options import METHODS
from tests.e2e.support import tree
from tests.networks import DigitsCnn, ResNet

DATA = ("--data", "digits", "--limit", "200", "--threads", "1")
BRIEF = ("--epochs", "1", "--batch-size", "32")
TRAINS = ("imp", "gradual", "one-shot", "early-bird", "set", "rigl")


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the command, which must end well; what it prints."""
    capsys.readouterr()
    code = main(["ticket", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def data_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    return json.loads(call(capsys, *arguments, "--json"))


@pytest.fixture(scope="module")
def found(digits_pt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tickets: ``random`` (fresh), ``snip`` and ``one-shot`` at density 0.2."""
    folder = tmp_path_factory.mktemp("tickets")
    common = ("--density", "0.2", *DATA)
    for method, further in (
        ("random", ("--fresh", "--seed", "1")),
        ("snip", ("--samples", "64")),
        ("one-shot", ("--epochs", "0")),
    ):
        path = folder / f"{method}.safetensors"
        given = ["ticket", "find", str(digits_pt2), "--method", method, "-o", str(path)]
        assert main([*given, *common, *further]) == 0
    return folder


def saved(net: torch.nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    save(capture(net, (torch.zeros(2, *shape),), event=Event("test"))[0], path)
    return path


def living(model: Model, mask: Mask) -> float:
    """The share of covered weights that aren't zero."""
    state = model.program.state_dict
    return sum(int((state[name] != 0).sum()) for name in mask.keep) / mask.size


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_a_ticket_of_its_density(
    method: str, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, trained = tmp_path / "t.safetensors", tmp_path / "s.pt2"
    further: tuple[str, ...] = ("--iterations", "3") if method in ("synflow", "ntk-sap") else ()
    if method in TRAINS:
        further = (*BRIEF, "--trained", str(trained))
    if method == "imp":
        further = (*further, "--rate", "0.5")
    given = ("find", digits_pt2, "-m", method, "--density", "0.3", *DATA, *further, "-o", out)
    report = data_of(capsys, *given)
    ticket, model = read_ticket(out), read(digits_pt2)
    mask = ticket.mask
    assert json.loads(out.with_suffix(".json").read_text()) == report
    assert (report["method"], mask.about.method) == (method, method)
    assert report["figures"]["density"]["value"] == pytest.approx(100 * mask.density)
    assert report["fingerprint"] == model.fingerprint() == mask.about.facts["source"]
    assert sum(layer["kept"] for layer in report["layers"]) <= mask.kept
    if method != "early-bird":
        assert abs(mask.kept - 0.3 * mask.size) <= 0.5
        assert mask.size == look(model).size
    names = (
        ["s.pt2", "t.json", "t.safetensors"] if method in TRAINS else ["t.json", "t.safetensors"]
    )
    assert tree(tmp_path) == names
    if method not in TRAINS:
        assert "score" not in report["figures"]
        assert report["figures"]["steps"]["value"] == 0
        return
    after = read(trained)
    assert 0 <= report["figures"]["score"]["value"] <= 100
    assert "holdout_score" in report["figures"]
    assert report["figures"]["cost"]["value"] > 0.9
    if method == "early-bird":
        assert parameters(after) < parameters(model)
    else:
        assert living(after, mask) <= mask.density


def test_a_ticket_is_trained_with_its_zeros(
    found: Path, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket, out = found / "random.safetensors", tmp_path / "new" / "s.pt2"
    report = data_of(capsys, "train", digits_pt2, ticket, *DATA, *BRIEF, "-o", out)
    mask, trained = read_ticket(ticket).mask, read(out)
    state = trained.program.state_dict
    assert not any(state[name][~kept].any() for name, kept in mask.keep.items())
    assert trained.history[-1].stage == "ticket-train"
    assert report["figures"]["cost_sparse"]["value"] < report["figures"]["cost"]["value"]
    assert {"score", "drop", "holdout_score"} <= report["figures"].keys()
    assert len(report["details"]["epochs"]) == 1
    assert tree(tmp_path / "new") == ["s.json", "s.pt2"]


def test_a_fresh_ticket_brings_its_weights(found: Path, digits_pt2: Path) -> None:
    start = read_ticket(found / "random.safetensors").start
    assert start is not None
    own = read(digits_pt2).program.state_dict
    assert not torch.equal(start["conv2.weight"], own["conv2.weight"])
    assert read_ticket(found / "snip.safetensors").start is None


def test_a_control_is_trained_in_place_of_a_ticket(
    found: Path, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = found / "snip.safetensors"
    given = ("train", digits_pt2, ticket, *DATA, "--epochs", "0", "--control", "random-mask")
    report = data_of(capsys, *given, "-o", tmp_path / "c.pt2")
    mask, state = read_ticket(ticket).mask, read(tmp_path / "c.pt2").program.state_dict
    for name, kept in mask.keep.items():
        zeros = state[name] == 0
        assert int((~zeros).sum()) == int(kept.sum())
    assert any(bool((state[name] != 0).ne(kept).any()) for name, kept in mask.keep.items())
    assert "random-mask" in " ".join(report["notes"])
    assert report["details"]["start"] == "the weights of the model"
    again = (*given[:-1], "reinitialised", "-o", tmp_path / "r.pt2")
    assert data_of(capsys, *again)["details"]["start"] == "newly drawn weights"


def test_show_tells_where_a_ticket_comes_from(
    found: Path, digits_pt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = found / "snip.safetensors"
    text = call(capsys, "show", ticket, "--model", digits_pt2)
    assert "snip, unstructured, seed 0" in text
    assert "the very model" in text
    table = data_of(capsys, "show", ticket, "--model", digits_pt2)
    mask = read_ticket(ticket).mask
    assert {layer["name"]: layer["kept"] for layer in table["layers"]} == {
        name: int(kept.sum()) for name, kept in mask.keep.items()
    }
    assert table["same_model"] is True
    assert table["kept_macs"] < table["macs"]
    assert table["facts"]["options"]["at_init.samples"] == 64


def test_compare_sets_masks_beside_one_another(
    found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [found / f"{name}.safetensors" for name in ("random", "snip", "one-shot")]
    table = data_of(capsys, "compare", *paths)
    first, second = (read_ticket(path).mask for path in paths[:2])
    pair = table["pairs"][0]
    assert pair["tickets"] == ["random", "snip"]
    assert pair["hamming"] == pytest.approx(first.hamming(second))
    assert pair["overlap"] == pytest.approx(first.overlap(second))
    # A random mask overlaps with another by chance alone.
    assert pair["overlap"] == pytest.approx(pair["by_chance"], abs=0.05)
    assert len(table["pairs"]) == 3
    assert "by chance" in call(capsys, "compare", *paths)


def test_apply_carries_a_ticket_to_other_classes(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Five(DigitsCnn):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(32, 5)

    torch.manual_seed(3)
    other = saved(Five(), (1, 8, 8), tmp_path / "five.pt2")
    out, masked = tmp_path / "t.safetensors", tmp_path / "m.pt2"
    given = ("apply", other, found / "random.safetensors", "-o", out, "--masked", masked)
    table = data_of(capsys, *given)
    network, mask = look(read(other)), read_ticket(out).mask
    assert table["left"][0][0] == "head.weight"
    assert table["coverage"] == pytest.approx(1 - network["head.weight"].size / network.size)
    assert mask.same(Mask({n: k for n, k in mask.keep.items() if n != "head.weight"}, mask.about))
    assert living(read(masked), mask) == pytest.approx(mask.density)
    text = call(capsys, "apply", other, found / "random.safetensors")
    assert "head.weight" in text


def test_apply_covers_the_head_of_the_very_model(
    found: Path, digits_pt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = found / "snip.safetensors"
    assert data_of(capsys, "apply", digits_pt2, ticket)["coverage"] == 1
    assert data_of(capsys, "apply", digits_pt2, ticket, "--head", "exclude")["coverage"] < 1


def test_stretch_fits_a_ticket_to_another_depth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    short = saved(ResNet(2, 4), (3, 8, 8), tmp_path / "short.pt2")
    long = saved(ResNet(3, 4), (3, 8, 8), tmp_path / "long.pt2")
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    call(capsys, "find", short, "-m", "random", "--density", "0.3", "--threads", "1", "-o", first)
    text = call(capsys, "stretch", long, first, "--from", short, "-o", second)
    assert text.count("2 blocks, now 3") == 3
    masks = read_ticket(second).mask
    masks.check(read(long))
    assert torch.equal(masks.keep["layer1.2.conv1.weight"], masks.keep["layer1.1.conv1.weight"])


def test_ntk_looks_at_the_kernels(
    found: Path, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    svg = tmp_path / "s.svg"
    tickets = (found / "snip.safetensors", found / "random.safetensors")
    given = ("ntk", digits_pt2, *tickets, *DATA, "--samples", "12")
    rows = data_of(capsys, *given, "--svg", svg)
    assert [row["name"] for row in rows] == ["dense", "snip", "random"]
    for row in rows:
        assert sum(row["lens"]["spectrum"]) == pytest.approx(row["lens"]["trace"], rel=1e-4)
    assert rows[0]["lens"]["distance"] is None
    assert rows[1]["lens"]["distance"] > 0
    assert svg.read_text().startswith("<svg")
    start = ("ntk", digits_pt2, tickets[1], *DATA, "--samples", "12", "--start")
    assert data_of(capsys, *start)[0]["lens"]["trace"] != rows[0]["lens"]["trace"]
    assert "effective" in call(capsys, *start)


def test_a_dry_run_plans_and_writes_nothing(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("find", digits_pt2, *DATA, "--dry-run", "-o", tmp_path / "t.safetensors")
    imp = data_of(capsys, *given, "--density", "0.25", "--rate", "0.5", "--rewind", "0.5", *BRIEF)
    assert [phase["cost"] for phase in imp["phases"]] == pytest.approx([0.5] * 4, abs=0.2)
    assert imp["cost"] == pytest.approx(2, abs=0.2)
    erk = data_of(capsys, *given, "-m", "random", "--density", "0.3")
    shares = {layer["name"]: layer["density"] for layer in erk["layers"]}
    assert shares["head.weight"] == 1
    text = call(capsys, *given, "-m", "gradual")
    assert "cubic pruning" in text
    assert "masks differ by less" in call(capsys, *given, "-m", "early-bird")
    assert "never; set a smaller" in call(capsys, *given, "-m", "rigl", *BRIEF)
    assert tree(tmp_path) == []


@pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "ntk-sap"])
def test_the_plan_of_a_score_tells_what_it_costs(
    method: str, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("find", digits_pt2, "-m", method, *DATA, "--iterations", "2", "--density", "0.5")
    planned = data_of(capsys, *given, "--dry-run", "-o", tmp_path / "t.safetensors")
    done = data_of(capsys, *given, "-o", tmp_path / "t.safetensors")
    assert planned["cost"] == pytest.approx(done["figures"]["cost"]["value"])


def test_a_recipe_sets_what_has_no_option(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "t.toml"
    recipe.write_text(
        'method = "rigl"\ndensity = 0.5\n[dynamic]\nevery = 1\nfraction = 0.4\n'
        "[train]\nepochs = 1\nbatch_size = 32\n"
    )
    given = ("find", digits_pt2, *DATA, "--recipe", recipe, "-o", tmp_path / "t.safetensors")
    report = data_of(capsys, *given, "--density", "0.4")
    assert report["options"]["dynamic.every"] == 1
    assert report["options"]["density"] == 0.4
    assert report["options"]["train.batch_size"] == 32
    assert report["details"]
    recipe.write_text("[train]\nmomentum = 0.5\n")
    train = ("train", digits_pt2, tmp_path / "t.safetensors", *DATA, "--epochs", "0")
    done = data_of(capsys, *train, "--recipe", recipe, "-o", tmp_path / "s.pt2")
    assert done["options"]["train.momentum"] == 0.5
