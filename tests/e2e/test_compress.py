# SPDX-License-Identifier: Apache-2.0
"""``edgeprune compress``, from a file to a judged result."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.cli.main import main
from edgeprune.deploy.health import read_batch
from edgeprune.model import Event, capture, parameters, read, save
from edgeprune.profiler.runtime import open_session
from edgeprune.report import read_manifest, read_report
from edgeprune.report.schema import RunReport
from edgeprune.units import format_seconds
from tests.e2e.support import tree
from tests.networks import TinyBert, TinyMobileNet, TinyViT

STAGES = ["load", "prune", "finetune", "quantize", "export"]
OTHER = ["dense", "profile", "evaluate", "judge"]
"""What else takes time."""
FAST = ("--limit", "240", "--epochs", "1", "--ratio", "0.5")


def compress(model: Path, quick: Path, *options: str, target: str = "rpi4") -> int:
    fixed = ("--target", target, "--recipe", str(quick), "--out", str(quick.parent / "out"))
    return main(["compress", str(model), *fixed, "--threads", "1", *options])


def result(quick: Path, target: str = "rpi4") -> Path:
    return quick.parent / "out" / target


def report_of(quick: Path, target: str = "rpi4") -> RunReport:
    return read_report(result(quick, target) / "report.json")


@pytest.fixture(scope="module")
def full(digits_pt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run that several tests look at; its folder."""
    folder = tmp_path_factory.mktemp("full")
    recipe = folder / "quick.toml"
    recipe.write_text("[profile]\nblocks = 2\nmax_blocks = 2\nblock_seconds = 0.02\nmin_runs = 3\n")
    options = ("--data", "digits", "--allow-unmeasured", "--max-drop", "100", "--epochs", "4")
    assert compress(digits_pt2, recipe, *options, "--ratio", "0.5", "--batch-size", "32") == 0
    return folder


def test_result_is_whole_and_alone(full: Path) -> None:
    assert tree(full / "out") == sorted(
        ["rpi4"]
        + [
            f"rpi4/{name}"
            for name in (
                "health.npz",
                "manifest.json",
                "model.onnx",
                "model.pt2",
                "model.tflite",
                "report.json",
                "report.md",
            )
        ]
    )


def test_manifest_has_the_hash_of_each_file(full: Path) -> None:
    folder = full / "out" / "rpi4"
    manifest = read_manifest(folder / "manifest.json")
    assert set(manifest.files) == {p.name for p in folder.iterdir()} - {"manifest.json"}
    for name, digest in manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert manifest.preprocessing is not None
    layouts = {artifact.file: artifact.inputs[0].layout for artifact in manifest.artifacts}
    assert layouts == {"model.onnx": "NCHW", "model.tflite": "NHWC"}


def test_manifest_tells_what_each_artifact_answers(full: Path) -> None:
    folder = full / "out" / "rpi4"
    health = read_manifest(folder / "manifest.json").health
    assert health is not None
    assert health.inputs == "evaluation data"
    for name, expected in health.artifacts.items():
        batch = read_batch(folder / health.file, name, expected)
        got = open_session(folder / name).run(list(batch.inputs))
        assert np.array_equal(got[0], batch.outputs[0]), name
        assert "int8 step" in expected.outputs[0].why
    assert set(health.artifacts) == {"model.onnx", "model.tflite"}


def test_each_stage_answers_for_itself(full: Path) -> None:
    report = read_report(full / "out" / "rpi4" / "report.json")
    assert [stage.stage for stage in report.stages] == STAGES + OTHER
    assert report.metric == "accuracy"
    for stage in report.stages[:5]:
        assert {"parameters", "macs", "score"} <= set(stage.figures), stage.stage
        # int8 values are stored as such by the export alone: its files have the bytes.
        assert ("bytes" in stage.figures) == (stage.stage in {"load", "prune", "finetune"})
    load, prune, _, quantize, *_ = (stage.figures for stage in report.stages)
    assert prune["parameters"].value < 0.6 * load["parameters"].value
    assert prune["macs"].value < 0.6 * load["macs"].value
    assert quantize["macs"].value == prune["macs"].value


def test_every_second_is_in_a_stage(full: Path) -> None:
    folder = full / "out" / "rpi4"
    report = read_report(folder / "report.json")
    assert all(stage.seconds > 0 for stage in report.stages)
    assert report.seconds == pytest.approx(sum(stage.seconds for stage in report.stages), rel=1e-9)
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert f"- Time: {format_seconds(report.seconds)}: load " in page


def test_artifacts_are_measured_beside_the_dense_ones(full: Path) -> None:
    profile = read_report(full / "out" / "rpi4" / "report.json").profile
    assert set(profile) == {"dense.onnx", "dense.tflite", "model.onnx", "model.tflite"}
    for name, figures in profile.items():
        assert {"bytes", "latency_p50", "memory_peak"} <= set(figures), name
        assert figures["latency_p50"].origin.where
    for name in ("model.onnx", "model.tflite"):
        assert {"score", "drop", "latency_ratio"} <= set(profile[name])
        assert profile[name]["score"].value > 80
        assert 4 * profile[name]["bytes"].value < profile["dense.onnx"]["bytes"].value


def test_unmeasured_budgets_are_not_passed(full: Path) -> None:
    report = read_report(full / "out" / "rpi4" / "report.json")
    outcomes = {(v.budget, v.artifact): v.outcome for v in report.verdicts}
    assert outcomes["latency", "model.onnx"] == "not measured"
    assert outcomes["size", "model.onnx"] == "pass"
    assert any("rpi4" in line for line in report.not_measured)


def test_final_model_reloads_without_its_class(full: Path, digits_pt2: Path) -> None:
    small = read(full / "out" / "rpi4" / "model.pt2")
    assert [event.stage for event in small.history][:2] == ["test", "finetune"]
    assert "quantize" in [event.stage for event in small.history]
    assert small.module()(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert parameters(read(digits_pt2)) > 0


def test_page_is_readable(full: Path) -> None:
    text = (full / "out" / "rpi4" / "report.md").read_text()
    assert "model.tflite" in text
    assert "not measured" in text


def test_an_unmeasured_budget_ends_with_1(
    digits_pt2: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", "digits", *FAST, "--max-drop", "100", "--no-profile", "--format", "onnx")
    assert compress(digits_pt2, quick, *options) == 1
    assert "--allow-unmeasured" in capsys.readouterr().err
    report = report_of(quick)
    assert any("--no-profile" in line for line in report.not_measured)
    assert any("--limit 240" in line for line in report.not_measured)
    assert set(report.profile["model.onnx"]) == {"bytes", "score", "drop"}


def test_a_broken_budget_ends_with_1_and_leaves_the_result(digits_pt2: Path, quick: Path) -> None:
    options = ("--data", "digits", *FAST, "--no-profile", "--format", "onnx", "--max-size", "1kB")
    assert compress(digits_pt2, quick, *options, "--allow-unmeasured") == 1
    failed = [v.budget for v in report_of(quick).verdicts if v.outcome == "fail"]
    assert "size" in failed


def test_this_machine_as_target_is_judged_on_its_latency(
    digits_pt2: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", "digits", *FAST, "--max-drop", "100", "--max-latency", "10s")
    extra = ("--max-memory", "8GB", "--format", "onnx", "--json")
    assert compress(digits_pt2, quick, *options, *extra, target="host") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((result(quick, "host") / "report.json").read_text())
    outcomes = {v["budget"]: v["outcome"] for v in printed["verdicts"]}
    assert outcomes["latency"] == outcomes["memory"] == "pass"


def test_without_data_weights_decide_and_the_report_says_what_is_missing(
    digits_pt2: Path, quick: Path
) -> None:
    options = ("--ratio", "0.5", "--no-profile", "--allow-unmeasured", "--format", "onnx")
    compress(digits_pt2, quick, *options)
    report = report_of(quick)
    assert report.metric is None
    assert any(line.startswith("accuracy: no data") for line in report.not_measured)
    assert all("score" not in stage.figures for stage in report.stages)
    prune = next(stage for stage in report.stages if stage.stage == "prune")
    assert prune.details["importance"] == "l2"


def test_without_labels_nothing_is_called_accuracy(digits_pt2: Path, quick: Path) -> None:
    random = np.random.default_rng(0)
    data = quick.parent / "unlabelled.npz"
    np.savez(data, x=random.standard_normal((120, 1, 8, 8)).astype(np.float32))
    options = ("--data", str(data), "--ratio", "0.25", "--epochs", "1", "--no-profile")
    compress(digits_pt2, quick, *options, "--format", "onnx")
    report = report_of(quick)
    assert report.metric == "fidelity to the dense model"
    page = (result(quick) / "report.md").read_text()
    assert "accuracy on" not in page
    assert "agreement with" not in page


def test_existing_result_is_kept_unless_overwritten(
    digits_pt2: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quickest = ("--ratio", "0", "--numerics", "none", "--no-profile", "--allow-unmeasured")
    options = (*quickest, "--format", "onnx")
    assert compress(digits_pt2, quick, *options) == 0
    before = (result(quick) / "report.json").read_bytes()
    assert compress(digits_pt2, quick, *options) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (result(quick) / "report.json").read_bytes() == before
    assert compress(digits_pt2, quick, *options, "--overwrite", "--seed", "7") == 0
    assert report_of(quick).seed == 7
    assert tree(quick.parent / "out")[0] == "rpi4"


def test_keep_work_keeps_the_model_after_each_stage(digits_pt2: Path, quick: Path) -> None:
    options = ("--ratio", "0.5", "--numerics", "none", "--no-profile", "--allow-unmeasured")
    assert compress(digits_pt2, quick, *options, "--format", "onnx", "--keep-work") == 0
    work = quick.parent / "out" / ".rpi4.work"
    assert parameters(read(work / "prune" / "model.pt2")) < parameters(read(digits_pt2))


def test_dry_run_tells_the_plan_and_writes_nothing(
    digits_pt2: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(quick.parent)
    assert compress(digits_pt2, quick, "--data", "digits", "--ratio", "0.5", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "conv1" in text
    assert "MACs" in text
    assert "int8" in text
    assert compress(digits_pt2, quick, "--data", "digits", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["prune"]["after"]["macs"] < plan["prune"]["before"]["macs"]
    assert tree(quick.parent) == before


def test_dry_run_predicts_what_comes_out(
    digits_pt2: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--ratio", "0.5", "--numerics", "none", "--format", "onnx", "--no-profile")
    assert compress(digits_pt2, quick, *options, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert compress(digits_pt2, quick, *options, "--allow-unmeasured") == 0
    (figures,) = (s.figures for s in report_of(quick).stages if s.stage == "export")
    assert figures["macs"].value == plan["prune"]["after"]["macs"]
    assert figures["parameters"].value == plan["prune"]["after"]["parameters"]


def test_two_targets_in_one_command(
    digits_pt2: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--ratio", "0", "--numerics", "none", "--no-profile", "--format", "onnx", "--json")
    assert compress(digits_pt2, quick, *options, "-t", "rpi5", "--allow-unmeasured") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["target"] for each in printed] == ["rpi4", "rpi5"]
    assert result(quick).is_dir()
    assert result(quick, "rpi5").is_dir()


def save_captured(network: nn.Module, example: Any, path: Path) -> None:
    model, _ = capture(network.eval(), (example,), event=Event("test"))
    save(model, path)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (TinyBert, (16,)),
        pytest.param(TinyMobileNet, (3, 32, 32), marks=pytest.mark.slow),
        pytest.param(TinyViT, (3, 32, 32), marks=pytest.mark.slow),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_other_families_end_with_artifacts_that_agree_with_their_model(
    network: type[nn.Module], shape: tuple[int, ...], quick: Path
) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    if network is TinyBert:
        samples = random.integers(0, 100, (96, *shape))
    else:
        samples = random.standard_normal((96, *shape)).astype(np.float32)
    data, model = quick.parent / "data.npz", quick.parent / "model.pt2"
    np.savez(data, x=samples)
    save_captured(network(), torch.from_numpy(samples[:2]), model)
    options = ("--data", str(data), "--ratio", "0.25", "--epochs", "1", "--max-drop", "100")
    extra = ("--no-profile", "--allow-unmeasured")
    assert compress(model, quick, *options, *extra) == 0
    report = report_of(quick)
    assert {artifact.file for artifact in report.artifacts} == {"model.onnx", "model.tflite"}
    for artifact in report.artifacts:
        assert artifact.check.sqnr_db is None or artifact.check.sqnr_db > 20, artifact.file
    assert (
        report.stages[1].figures["parameters"].value < report.stages[0].figures["parameters"].value
    )
