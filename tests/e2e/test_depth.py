# SPDX-License-Identifier: Apache-2.0
"""Whole residual branches go only when told, from the command line to the artifact."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgeprune.channels import analyse
from edgeprune.cli.main import main
from edgeprune.model import read
from edgeprune.report import read_report
from tests.unit.channels.residual import Block

DATA = ("--data", "digits", "--limit", "200", "--threads", "1")
USELESS = "blocks.1"


class DigitsResNet(nn.Module):
    """Four alike residual blocks for 1x8x8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.Sequential(*[Block("in-place", 8) for _ in range(4)])
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def digits_resnet() -> nn.Module:
    return DigitsResNet()


@pytest.fixture
def weights(tmp_path: Path) -> tuple[str, ...]:
    """A state dict in which one block does next to nothing, and its factory."""
    torch.manual_seed(0)
    net = digits_resnet()
    with torch.no_grad():
        for parameter in net.get_submodule(USELESS).parameters():
            parameter.mul_(1e-4)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    return (str(tmp_path / "weights.pt"), "--arch", "tests.e2e.test_depth:digits_resnet")


@pytest.mark.parametrize("criterion", ["l2", "bn-scale", "taylor"])
def test_prune(weights, criterion, tmp_path, capsys) -> None:
    out = tmp_path / "pruned.pt2"
    options = ("--ratio", "0.5", "--importance", criterion, "--allow-depth", "-o", str(out))
    assert main(["prune", *weights, *DATA, *options, "--multiple", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in report["details"]["branches"]}
    going = [name for name, row in rows.items() if row["goes"]]
    assert len(rows) == 4
    assert len(going) == 2
    assert USELESS in going
    pruned = read(out)
    left = {name.rpartition(".")[0].rpartition(".")[0] for name in pruned.program.state_dict}
    assert not {f"{name}.a" for name in going} & left
    assert report["figures"]["macs"]["value"] == analyse(pruned).totals().macs
    (event,) = (event for event in pruned.history if event.stage == "prune")
    assert event.facts["branches"] == going


def test_the_plan_names_them(weights, tmp_path, capsys) -> None:
    command = ["compress", *weights, *DATA, "-t", "rpi4", "--out", str(tmp_path / "out")]
    options = ("--ratio", "0.5", "--importance", "l2", "--dry-run")
    assert main([*command, *options, "--allow-depth"]) == 0
    text = capsys.readouterr().out
    assert "residual branch that goes" in text
    assert USELESS in text
    assert "2 of 4 residual branches go whole" in text
    assert main([*command, *options, "--allow-depth", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    (row,) = (row for row in plan["prune"]["branches"] if row["name"] == USELESS)
    assert row["goes"]
    assert row["macs"] == 2 * 8 * 6 * 9 * 64
    assert row["importance"] < 1e-3
    assert main([*command, *options, "--json"]) == 0
    assert "branches" not in json.loads(capsys.readouterr().out)["prune"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_compress(weights, quick, tmp_path, capsys) -> None:
    command = ["compress", *weights, *DATA, "-t", "rpi4", "--recipe", str(quick)]
    options = ("--ratio", "0.5", "--allow-depth", "--epochs", "1", "--allow-unmeasured")
    last = ("--max-drop", "100", "--no-profile", "--numerics", "none", "-o", str(tmp_path / "out"))
    assert main([*command, *options, *last]) == 0
    text = capsys.readouterr().out
    assert "prune: 2 of 4 residual branches went: " in text
    folder = tmp_path / "out" / "rpi4"
    (stage,) = (s for s in read_report(folder / "report.json").stages if s.stage == "prune")
    going = [row["name"] for row in stage.details["branches"] if row["goes"]]
    assert len(going) == 2
    (event,) = (e for e in read(folder / "model.pt2").history if e.stage == "prune")
    assert event.facts["branches"] == going
    assert all(f"{name}" in (folder / "report.md").read_text() for name in going)
    convs = [node for node in onnx.load(folder / "model.onnx").graph.node if node.op_type == "Conv"]
    assert len(convs) == 1 + 2 * 2
