# SPDX-License-Identifier: Apache-2.0
"""``--size`` of the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edgeprune.cli.main import main
from tests.model_files import LiteGraph, LiteOp, onnx_model, save
from tests.unit.artifact.test_open_sizes import lite, opened, picture
from tests.unit.check.test_check import by_rule, found

PROJECT = """\
[models.net]
artifacts = ["net.onnx"]
targets = ["rpi4"]
SIZES
[baseline]
macs = "+10 %"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / ".git").mkdir()
    convolution(2)
    return tmp_path


def convolution(channels: int) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    weight = {"w": np.ones((channels, 3, 3, 3), np.float32)}
    shape = {"x": ("n", 3, "height", 4)}
    save(Path("net.onnx"), onnx_model([node], shape, ["y"], weight))


def test_check(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = found(capsys, "net.onnx")
    assert code == 0
    assert "macs" not in report["notes"][0]
    assert "--size height=320" in report["notes"][1]
    _, report = found(capsys, "net.onnx", "--size", "height=320")
    assert "macs 69.1 k" in report["notes"][0]
    lite(here / "net.tflite", picture())
    assert found(capsys, "net.onnx", "net.tflite", "--size", "height=8", "--size", "x.1=32")[0] == 0


def test_an_arena_of_the_size_that_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    lite(Path("net.tflite"), picture())
    _, report = found(capsys, "net.tflite", "-t", "stm32h7", "--strict")
    assert by_rule(report)["target/memory"]["outcome"] == "not measured"
    code, report = found(capsys, "net.tflite", "-t", "stm32h7", "--size", "x.1=32")
    assert (code, by_rule(report)["target/memory"]["outcome"]) == (0, "pass")
    code, report = found(capsys, "net.tflite", "-t", "stm32h7", "--size", "x.1=32000")
    assert (code, by_rule(report)["target/memory"]["outcome"]) == (1, "fail")


@pytest.mark.parametrize("table", ["", "sizes = { height = 16 }"])
def test_the_baseline(capsys: pytest.CaptureFixture[str], table: str) -> None:
    Path("edgeprune.toml").write_text(PROJECT.replace("SIZES", table))
    options = () if table else ("--size", "height=16")
    assert main(["baseline", "accept", *options]) == 0
    assert found(capsys, *options)[0] == 0
    convolution(3)
    code, report = found(capsys, *options)
    assert code == 1
    assert by_rule(report)["baseline/macs"]["outcome"] == "fail"
    if not table:
        assert found(capsys)[0] == 1  # nothing to compare without the size


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.onnx").rename("old.onnx")
    convolution(4)
    capsys.readouterr()
    assert main(["diff", "old.onnx", "net.onnx", "--json", "--size", "height=8"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert one["figures"]["macs"]["growth"] == 2
    assert main(["diff", "old.onnx", "net.onnx"]) == 0
    assert "--size height=320" in " ".join(capsys.readouterr().out.split())


QUICK = ("--blocks", "2", "--max-blocks", "2", "--block-seconds", "0.05", "--time-limit", "60")


def test_profile(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "net.onnx", *QUICK]) == 2
    assert "--size x.2=N" in capsys.readouterr().err
    row = opened(-1, -1, 1000)
    graph = LiteGraph({"x": row, "y": row}, [LiteOp("LOGISTIC", ["x"], ["y"])], ["x"], ["y"])
    lite(here / "net.tflite", graph)
    peaks = []
    for rows in (1, 10_000):  # an input of 40 MB is made
        sizes = ("--size", "height=8", "--size", f"x.1={rows}")
        assert main(["profile", "net.onnx", "net.tflite", *QUICK, *sizes, "--json"]) == 0
        files = json.loads(capsys.readouterr().out)["files"]
        assert files["net.onnx"]["latency_p50"]["value"] > 0
        peaks.append(files["net.tflite"]["memory_peak"]["value"])
    assert peaks[1] > peaks[0] + 40e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "width=8"), "no input has an open size of that name; there are: n, height"),
        (("--size", "x.3=8"), "no input has an open size of that name"),
        (("--size", "height"), "should be NAME=VALUE"),
        (("--size", "height=0"), "should be NAME=VALUE"),
        (("--size", "height=-3"), "should be NAME=VALUE"),
        (("--size", "height=1e3"), "should be NAME=VALUE"),
        (("--size", "height=8", "--size", "height=9"), "'height' is 8 already"),
    ],
)
@pytest.mark.parametrize("command", ["check", "diff", "profile"])
def test_what_is_no_size(
    capsys: pytest.CaptureFixture[str], command: str, options: tuple[str, ...], message: str
) -> None:
    files = ("net.onnx",) * (2 if command == "diff" else 1)
    assert main([command, *files, *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
