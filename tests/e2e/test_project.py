# SPDX-License-Identifier: Apache-2.0
"""A project file from end to end: compressed, accepted, checked, without naming anything."""

import json
import shutil
from pathlib import Path

import pytest

from edgeprune.cli.main import main
from tests.e2e.support import QUICK
from tests.unit.profiler.models import chain

PROJECT = """\
[models.digits]
model = "digits.pt2"
data = "digits"
recipe = "quick.toml"
out = "results"
targets = ["rpi4", "host"]

[budgets.rpi4]
size = "400kB"

[models.digits.budgets.host]
drop = 100
latency = "10s"

[budgets.host]
size = "400kB"

[baseline]
size = "+2 %"
memory = "+5 %"
accuracy = -5
"""
FILE = """\
[models.net]
artifacts = ["net.onnx"]
targets = ["host"]

[baseline]
latency = "+50 %"
"""
FAST = ("--limit", "240", "--epochs", "1", "--ratio", "0.5", "--threads", "1", "--max-drop", "100")


@pytest.fixture
def project(digits_pt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "edgeprune.toml").write_text(PROJECT)
    (tmp_path / "quick.toml").write_text(QUICK)
    shutil.copyfile(digits_pt2, tmp_path / "digits.pt2")
    return tmp_path


def test_compress_accept_check(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", *FAST, "-t", "host", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    limits = {(each["budget"], each["limit"]) for each in report["verdicts"]}
    assert {("size", 400e3), ("latency", 10.0)} <= limits
    assert sorted(path.name for path in (project / "results").iterdir()) == ["host"]
    assert main(["compress", *FAST, "-t", "host"]) == 2
    assert "holds a result already" in capsys.readouterr().err

    assert main(["baseline", "accept", "-t", "host", "--reason", "the first"]) == 0
    capsys.readouterr()
    assert main(["check", "-t", "host", "--format", "json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert not [each for each in checked["judged"] if each["outcome"] == "fail"]
    rules = {each["rule"] for each in checked["judged"] if each["outcome"] == "pass"}
    assert {"integrity/edited", "integrity/hash", "budget/latency", "baseline/accuracy"} <= rules
    # The other target was never compressed.
    assert main(["check"]) == 1
    assert "integrity/missing of results/rpi4/manifest.json" in capsys.readouterr().out


def test_the_plan_of_all_targets(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--dry-run", "--json", "--threads", "1"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [plan["target"] for plan in plans] == ["rpi4", "host"]
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits"], "--data goes with a MODEL"),
        (["--out", "x"], "--out goes with a MODEL"),
        (["-t", "rpi5"], "has no 'model' to compress for rpi5"),
        (["digits.pt2"], "--target: name the device"),
    ],
)
def test_what_does_not_go_together(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["compress", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_without_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    assert main(["compress"]) == 2
    assert "name a MODEL and a --target" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_ratio_from_acceptance_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Really measured, on whatever runs this: four times the work is seen on any machine."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "edgeprune.toml").write_text(FILE)
    chain(tmp_path / "net.onnx", width=256, depth=4)
    measure = ("--measure", "--time-limit", "60")
    assert main(["baseline", "accept", *measure]) == 0
    chain(tmp_path / "net.onnx", width=256, depth=16)
    capsys.readouterr()
    assert main(["check", *measure]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "baseline/latency of net.onnx: latency as a multiple of the reference model's" in out
    assert "(MatMul): new" in out
