# SPDX-License-Identifier: Apache-2.0
"""``compress --ticket``: zeros that are zero in the artifacts, channels that go for real."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

from edgeprune.channels import analyse
from edgeprune.cli.main import main
from edgeprune.mask import About, Mask, Ticket, channel_mask, look, write_ticket
from edgeprune.model import Model, parameters, read
from edgeprune.report import read_report

QUIET = ("--target", "rpi4", "--threads", "1", "--no-profile", "--allow-unmeasured")


@pytest.fixture
def ticket(digits_pt2: Path, tmp_path: Path) -> Path:
    """The smallest 70 % of each layer's weights go."""
    model, path = read(digits_pt2), tmp_path / "ticket.safetensors"
    keep = {}
    for layer in look(model).layers:
        size = model.program.state_dict[layer.name].abs()
        keep[layer.name] = size >= size.flatten().quantile(0.7)
    write_ticket(path, Ticket(Mask(keep, About("by hand", model=model.fingerprint()))))
    return path


def by_channels(model: Model, path: Path) -> Path:
    groups = analyse(model)
    removed = groups.keep_all()
    for group in groups.groups:
        removed[group.channels[::2]] = True
    write_ticket(path, Ticket(channel_mask(groups, removed, About("early-bird"))))
    return path


def zeros_of_onnx(path: Path) -> int:
    weights = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    return sum(int((w == 0).sum()) for w in weights if w.ndim > 1)


def zeros_of_tflite(path: Path) -> int:
    interpreter = Interpreter(str(path))
    zeros = 0
    for tensor in interpreter.get_tensor_details():
        if len(tensor["shape"]) < 2 or tensor["dtype"] not in (np.int8, np.float32):
            continue
        try:
            zeros += int((interpreter.get_tensor(tensor["index"]) == 0).sum())
        except ValueError:  # an activation: nothing is allocated yet
            continue
    return zeros


def test_zeros_stay_zero_up_to_the_artifacts(
    digits_pt2: Path, ticket: Path, tmp_path: Path
) -> None:
    options = ("--data", "digits", "--limit", "400", "--epochs", "1", "--max-drop", "100")
    out = tmp_path / "out"
    assert main([
        "compress", str(digits_pt2), *QUIET, *options, "--out", str(out), "--ticket", str(ticket),
    ]) == 0  # fmt: skip
    result = out / "rpi4"
    report = read_report(result / "report.json")
    assert [stage.stage for stage in report.stages][1:3] == ["ticket", "finetune"]
    stage, tuned = report.stages[1], report.stages[2]
    masked = stage.details["zeros"]
    assert stage.figures["density"].value == 100 * stage.details["density"] == pytest.approx(30, 1)
    assert stage.details["densities"].keys() == {f"conv{i}.weight" for i in (1, 2, 3)} | {
        "head.weight"
    }
    assert f"{masked} masked weights stayed zero" in tuned.notes
    assert any("zeros alone give no speed" in note for note in stage.notes)
    assert tuned.figures["score"].value > stage.figures["score"].value - 5
    assert zeros_of_onnx(result / "model.onnx") >= masked
    assert zeros_of_tflite(result / "model.tflite") >= masked
    for name in ("model.onnx", "model.tflite"):
        figures = report.profile[name]
        assert figures["zipped"].value < 0.75 * figures["bytes"].value
    page = (result / "report.md").read_text()
    assert "## What the zeros save" in page and "## Density by layer" in page


def test_channels_of_a_ticket_go_for_real(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = by_channels(read(digits_pt2), tmp_path / "channels.safetensors")
    small = tmp_path / "small.pt2"
    command = ["prune", str(digits_pt2), "--ticket", str(path), "-o", str(small)]
    assert main([*command, "--threads", "1"]) == 0
    assert parameters(read(small)) < 0.4 * parameters(read(digits_pt2))
    capsys.readouterr()
    plan = ["compress", str(digits_pt2), *QUIET, "--ticket", str(path), "--dry-run", "--json"]
    assert main(plan) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ticket"]["structure"] == "channels"
    assert told["ticket"]["after"]["parameters"] == parameters(read(small))
    held = ["finetune", str(digits_pt2), "--ticket", str(path), "-o", str(tmp_path / "held.pt2")]
    assert main([*held, "--threads", "1"]) == 2
    assert "there is nothing to hold" in capsys.readouterr().err


def test_finetune_alone_holds_zeros(digits_pt2: Path, ticket: Path, tmp_path: Path) -> None:
    sparse, tuned = tmp_path / "sparse.pt2", tmp_path / "tuned.pt2"
    options = ["--ticket", str(ticket), "--threads", "1"]
    assert main(["prune", str(digits_pt2), *options, "-o", str(sparse)]) == 0
    data = ["--data", "digits", "--limit", "200", "--epochs", "1"]
    assert main(["finetune", str(sparse), *options, *data, "-o", str(tuned)]) == 0
    before, after = read(sparse).program.state_dict, read(tuned).program.state_dict
    for layer in look(read(tuned)).layers:
        zero = before[layer.name] == 0
        assert zero.any() and not after[layer.name][zero].any()
        assert not torch.equal(before[layer.name], after[layer.name])


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--ratio", "0.5"], "--ratio doesn't go with --ticket"),
        (["--allow-depth"], "--allow-depth doesn't go with --ticket"),
        (["--exclude", "head.*"], "--exclude doesn't go with --ticket"),
        (["--attention", "head_dim"], "which is unstructured: it cuts no channels"),
        (["--grouped", "groups"], "--grouped doesn't go with"),
    ],
)
def test_a_ticket_says_itself_what_is_pruned(
    digits_pt2: Path, ticket: Path, extra: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["compress", *QUIET], ["prune", "-o", "x.pt2"]):
        verb, *rest = command
        assert main([verb, str(digits_pt2), *rest, "--ticket", str(ticket), *extra]) == 2
        assert says in capsys.readouterr().err


def test_a_ticket_that_does_not_fit_is_refused_before_any_work(
    digits_pt2: Path, ticket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = {"other.weight": torch.ones(2, 2).bool()}
    write_ticket(ticket, Ticket(Mask(keep, About("imp"))))
    out = tmp_path / "out"
    command = ["compress", str(digits_pt2), *QUIET, "--out", str(out), "--ticket", str(ticket)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"{ticket}: the mask is for another network" in error
    assert len([line for line in error.splitlines() if not line.startswith(">")]) == 1
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[ticket]\nweights = "ticket"\n')
    assert main([*command, "--recipe", str(recipe)]) == 2
    assert "no weights of its own" in capsys.readouterr().err
    assert main([*command[:-2], "--recipe", str(recipe)]) == 2
    assert "name one, --ticket" in capsys.readouterr().err
    assert not out.exists()


def test_a_ticket_is_of_one_model_only(
    ticket: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = '[models.a]\nmodel = "a.pt2"\ntargets = ["rpi4"]\n'
    (tmp_path / "edgeprune.toml").write_text(project)
    monkeypatch.chdir(tmp_path)
    assert main(["compress", "--ticket", str(ticket)]) == 2
    assert "--ticket goes with a MODEL" in capsys.readouterr().err
