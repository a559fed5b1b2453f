# SPDX-License-Identifier: Apache-2.0
"""A baseline that is gone, and what became of what it was about."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgeprune.cli.main import main
from tests.model_files import onnx_model, save
from tests.unit.check import made
from tests.unit.check.made import commit
from tests.unit.check.test_check import FILES, by_rule, found
from tests.unit.profiler.models import chain

LOCK = "edgeprune.lock.json"


def failed(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(e["rule"], e["reason"]) for e in report["judged"] if e["outcome"] == "fail"]


@pytest.mark.parametrize("options", [(), ("--allow-unmeasured",), ("--strict",)])
def test_a_lock_file_that_is_gone(
    results: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert found(capsys, *options)[0] == 0
    (results / LOCK).unlink()
    code, report = found(capsys, *options)
    assert code == 1
    ((rule, reason),) = failed(report)
    assert rule == "baseline/missing"
    assert "a commit has it" in reason
    assert "edgeprune baseline accept" in reason


def test_nothing_is_accepted_yet(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repo / "edgeprune.toml").write_text(made.PROJECT)
    made.result(repo / "out/net/rpi4")
    code, report = found(capsys, "--allow-unmeasured")
    assert code == 1
    ((rule, reason),) = failed(report)
    assert rule == "baseline/missing"
    assert "Nothing is accepted yet" in reason
    assert main(["baseline", "accept"]) == 0
    assert found(capsys, "--allow-unmeasured")[0] == 0


def test_a_lock_file_that_is_gone_where_no_growth_is_limited(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0])
    chain(repo / "net.onnx")
    assert found(capsys)[0] == 0
    assert main(["baseline", "accept"]) == 0
    commit("accepted")
    (repo / LOCK).unlink()
    assert found(capsys)[0] == 1
    commit("the lock file is gone")
    code, report = found(capsys)
    assert code == 1
    assert failed(report)[0][0] == "baseline/missing"


def test_a_renamed_model(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (results / "edgeprune.toml").write_text(made.PROJECT.replace("models.net", "models.other"))
    for options in ((), ("--allow-unmeasured",), ("out/net/rpi4", "--allow-unmeasured")):
        code, report = found(capsys, *options)
        assert code == 1
        assert "nothing of other for this target (it has net)" in failed(report)[0][1]
    assert "model and target any more" in failed(found(capsys)[1])[1][1]
    assert main(["baseline", "accept", "--reason", "renamed"]) == 0
    assert found(capsys)[0] == 0


def test_a_target_that_is_taken_off(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = made.PROJECT.replace('["rpi4"]', '["rpi4", "rpi5"]')
    (results / "edgeprune.toml").write_text(text)
    shutil.copytree(results / "out/net/rpi4", results / "out/net/rpi5")
    manifest = results / "out/net/rpi5/manifest.json"
    manifest.write_text(manifest.read_text().replace('"rpi4"', '"rpi5"'))
    data = json.loads((results / LOCK).read_text())
    data["models"]["net"]["rpi5"] = data["models"]["net"]["rpi4"]
    (results / LOCK).write_text(json.dumps(data))
    (results / "edgeprune.toml").write_text(made.PROJECT)
    code, report = found(capsys)
    assert code == 1
    ((rule, reason),) = failed(report)
    assert rule == "baseline/missing"
    assert "for rpi5" in reason
    # what is asked for alone has nothing to do with it
    assert found(capsys, "--target", "rpi4")[0] == 0


def test_an_artifact_that_the_project_names_no_more(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = FILES.replace('["net.onnx"]', '["net.onnx", "b.onnx"]')
    (repo / "edgeprune.toml").write_text(both)
    chain(repo / "net.onnx")
    chain(repo / "b.onnx")
    assert main(["baseline", "accept"]) == 0
    assert found(capsys)[0] == 0
    (repo / "edgeprune.toml").write_text(FILES)
    code, report = found(capsys, "--allow-unmeasured")
    assert code == 1
    ((rule, reason),) = failed(report)
    assert rule == "baseline/missing"
    assert "b.onnx, and the project file hasn't" in reason


def test_an_artifact_that_was_never_accepted(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repo / "edgeprune.toml").write_text(FILES)
    chain(repo / "net.onnx")
    assert main(["baseline", "accept"]) == 0
    both = FILES.replace('["net.onnx"]', '["net.onnx", "b.onnx"]')
    (repo / "edgeprune.toml").write_text(both)
    chain(repo / "b.onnx", depth=1)
    code, report = found(capsys)
    assert code == 1
    assert "has no b.onnx" in failed(report)[0][1]


def convolution(path: Path, size: int | str, channels: int = 2, batch: int | str = 1) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    weight = {"w": np.ones((channels, 3, 3, 3), np.float32)}
    save(path, onnx_model([node], {"x": (batch, 3, size, size)}, ["y"], weight))


@pytest.mark.parametrize("limits", ["", "\n[baseline]\nmacs = '+5 %'\n"])
def test_a_model_of_another_input_size(
    repo: Path, capsys: pytest.CaptureFixture[str], limits: str
) -> None:
    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0] + limits)
    convolution(repo / "net.onnx", 48)
    assert main(["baseline", "accept"]) == 0
    convolution(repo / "net.onnx", 64)
    code, report = found(capsys, "--allow-unmeasured")
    assert code == 1
    shapes = by_rule(report)["baseline/shapes"]
    assert shapes["outcome"] == "fail"
    assert "input x is 1x3x64x64 float32 and was 1x3x48x48 float32" in shapes["reason"]
    assert "output y is 1x2x64x64" in shapes["reason"]
    if limits:
        macs = by_rule(report)["baseline/macs"]
        assert macs["outcome"] == "fail"
        assert "+77.8 %" in macs["reason"]
        assert macs["place"]["line"] == 10
    assert main(["baseline", "accept", "--reason", "larger pictures"]) == 0
    assert found(capsys, "--allow-unmeasured")[0] == 0


def test_an_input_that_is_no_longer_open(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0])
    convolution(repo / "net.onnx", 48, batch="n")
    assert main(["baseline", "accept"]) == 0
    convolution(repo / "net.onnx", 48, batch="other name")
    assert found(capsys)[0] == 0
    convolution(repo / "net.onnx", 48)
    code, report = found(capsys)
    assert code == 1
    assert "and was ?x3x48x48" in by_rule(report)["baseline/shapes"]["reason"]


def test_inputs_in_another_order_are_the_same(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def added(first: str, second: str) -> None:
        sizes = {"a": (1, 4), "b": (1, 1)}
        node = helper.make_node("Add", ["a", "b"], ["y"])
        inputs = {name: sizes[name] for name in (first, second)}
        save(repo / "net.onnx", onnx_model([node], inputs, ["y"]))

    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0])
    added("a", "b")
    assert main(["baseline", "accept"]) == 0
    added("b", "a")
    assert found(capsys)[0] == 0


@pytest.mark.parametrize(("key", "factor"), [("macs", 4), ("parameters", 4), ("arena", 2)])
def test_limits_on_what_the_file_tells(
    repo: Path, capsys: pytest.CaptureFixture[str], key: str, factor: int
) -> None:
    growth = f"[baseline]\n{key} = '+10 %'\n"
    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0] + growth)
    chain(repo / "net.onnx", width=8)
    assert main(["baseline", "accept"]) == 0
    assert found(capsys)[0] == 0
    chain(repo / "net.onnx", width=16)
    code, report = found(capsys, "--allow-unmeasured")
    assert code == 1
    judged = by_rule(report)[f"baseline/{key}"]
    assert judged["outcome"] == "fail"
    assert judged["figure"]["value"] == factor * judged["baseline"]["value"]


def old(path: Path) -> None:
    """The lock file as edgeprune wrote it before, without figures of the file."""
    data = json.loads(path.read_text())
    data["schema_version"] = 1
    for targets in data["models"].values():
        for files in targets.values():
            for entry in files.values():
                del entry["inputs"], entry["outputs"]
                for key in ("macs", "parameters", "arena_estimate"):
                    entry["figures"].pop(key, None)
    path.write_text(json.dumps(data))


def test_an_old_lock_file_is_read(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    growth = "[baseline]\nsize = '+10 %'\nmacs = '+10 %'\n"
    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0] + growth)
    convolution(repo / "net.onnx", 48)
    assert main(["baseline", "accept"]) == 0
    assert json.loads((repo / LOCK).read_text())["schema_version"] == 2
    old(repo / LOCK)
    code, report = found(capsys)
    assert code == 0
    assert "baseline/macs" not in by_rule(report)
    assert any("of an earlier version" in note for note in report["notes"])
    # what it has is judged, and the present version without a figure is no old one
    convolution(repo / "net.onnx", 48, channels=16)
    assert by_rule(found(capsys)[1])["baseline/size"]["outcome"] == "fail"
    data = json.loads((repo / LOCK).read_text())
    (repo / LOCK).write_text(json.dumps({**data, "schema_version": 2}))
    assert by_rule(found(capsys)[1])["baseline/macs"]["outcome"] == "fail"
    assert main(["baseline", "accept"]) == 0
    assert json.loads((repo / LOCK).read_text())["schema_version"] == 2


def test_what_cannot_be_counted_is_not_within_its_limit(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    growth = "[baseline]\nmacs = '+10 %'\n"
    (repo / "edgeprune.toml").write_text(FILES.partition("[baseline]")[0] + growth)
    convolution(repo / "net.onnx", "height")
    assert main(["baseline", "accept"]) == 0
    code, report = found(capsys)
    assert code == 1
    assert "can't be told from the file" in by_rule(report)["baseline/macs"]["reason"]


def test_a_manifest_is_not_believed_for_what_its_file_tells(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forged(data: dict[str, Any]) -> None:
        size = data["figures"]["model.onnx"]["bytes"]
        for table in (data["figures"]["model.onnx"], data["device"]["figures"]["model.onnx"]):
            for key in ("macs", "parameters", "arena_estimate"):
                table[key] = {**size, "value": 1.0, "unit": "MACs" if key == "macs" else "B"}
        data["device"]["figures"]["model.onnx"]["bytes"] = {**size, "value": 1.0}

    text = made.PROJECT + "macs = '+1 %'\nparameters = '+1 %'\narena = '+1 %'\n"
    (results / "edgeprune.toml").write_text(text)
    made.result(results / "out/net/rpi4", depth=5, change=forged)
    code, report = found(capsys)
    assert code == 1
    rules = by_rule(report)
    assert {rules[f"baseline/{key}"]["outcome"] for key in ("size", "macs", "parameters")} == {
        "fail"
    }


def test_a_model_file_that_is_none_is_no_pass(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sealed anew around what no runtime can read."""
    folder = results / "out/net/rpi4"

    def swapped(data: dict[str, Any]) -> None:
        from edgeprune.artifact import digest

        (folder / "model.onnx").write_bytes(b"\x08\x0a" * 4000)
        size, name = 8000, digest(folder / "model.onnx")
        data["files"]["model.onnx"] = data["artifacts"][0]["sha256"] = name
        data["artifacts"][0]["bytes"] = size
        data["figures"]["model.onnx"]["bytes"]["value"] = size

    made.result(folder, change=swapped)
    code, report = found(capsys, "--allow-unmeasured")
    assert code == 1
    assert "target/format" in {rule for rule, _ in failed(report)}
