# SPDX-License-Identifier: Apache-2.0
"""A file that can't be made in some numerics: ``auto`` goes on to the next, and what passed and
what was trained are kept."""

import sys
from pathlib import Path

import pytest

import edgeprune.export.export  # noqa: F401  (its package has a function of that name)
from edgeprune.cli.main import main
from edgeprune.errors import CheckFailed, InputError
from edgeprune.model import Model
from edgeprune.report import read_manifest, read_report
from tests.e2e.support import tree

exporting = sys.modules["edgeprune.export.export"]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """``{"int8"}``: no TFLite file is made in int8, as where a converter refuses the model."""
    refused: set[str] = set()
    write = exporting.write_tflite

    def refusing(model: Model, path: Path, **options: object) -> tuple[str, ...]:
        if model.numerics in refused:
            raise InputError("tflite: operator aten.lstm.input is refused")
        return write(model, path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "write_tflite", refusing)
    return refused


def compress(model: Path, out: Path, *options: str) -> int:
    quick = ("--data", "digits", "--limit", "120", "--epochs", "1", "--ratio", "0.5")
    fixed = ("--target", "rpi4", "--no-profile", "--allow-unmeasured", "--max-drop", "100")
    return main(["compress", str(model), *quick, *fixed, "--out", str(out), *options])


def test_auto_takes_the_next_numerics_and_says_why(
    digits_pt2: Path, tmp_path: Path, refuse: set[str]
) -> None:
    refuse.add("int8")
    assert compress(digits_pt2, tmp_path) == 0
    report = read_report(tmp_path / "rpi4" / "report.json")
    assert {artifact.numerics for artifact in report.artifacts} == {"int8-dynamic"}
    assert len(report.artifacts) == 2 and not report.missing
    (quantized,) = [stage for stage in report.stages if stage.stage == "quantize"]
    assert "int8: model.tflite: tflite: operator aten.lstm.input is refused" in quantized.notes[0]
    names = {stage.stage for stage in report.stages}
    assert {"quantize, not kept", "export, not kept"} <= names
    assert report.seconds == pytest.approx(sum(stage.seconds for stage in report.stages), rel=1e-9)
    assert tree(tmp_path) == sorted(
        ["rpi4", *(f"rpi4/{p.name}" for p in (tmp_path / "rpi4").iterdir())]
    )


def test_what_passed_is_kept_and_the_training_goes_on_to_other_numerics(
    digits_pt2: Path, tmp_path: Path, refuse: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refuse.add("int8")
    assert compress(digits_pt2, tmp_path, "--numerics", "int8") == 1
    result = tmp_path / "rpi4"
    manifest = read_manifest(result / "manifest.json")
    assert [artifact.file for artifact in manifest.artifacts] == ["model.onnx"]
    (missing,) = manifest.missing
    assert (missing.file, missing.numerics) == ("model.tflite", "int8")
    assert missing.reason == "tflite: operator aten.lstm.input is refused"
    assert "model.tflite is missing" in (result / "report.md").read_text()
    assert "model.tflite is missing" in capsys.readouterr().out

    assert main(["check", str(result / "manifest.json"), "--allow-unmeasured"]) == 1
    assert "model.tflite" in capsys.readouterr().out

    assert compress(digits_pt2, tmp_path, "--numerics", "fp32", "--resume") == 0
    assert "> finetune: done before the interruption, taken up" in capsys.readouterr().err
    manifest = read_manifest(result / "manifest.json")
    assert {artifact.file for artifact in manifest.artifacts} == {"model.onnx", "model.tflite"}
    assert not manifest.missing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rpi4"]


def test_a_whole_result_is_not_replaced_by_resuming(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(digits_pt2, tmp_path, "--numerics", "fp32", "--epochs", "0") == 0
    assert compress(digits_pt2, tmp_path, "--numerics", "fp16", "--resume") == 2
    assert "holds a result already" in capsys.readouterr().err


def test_training_is_kept_where_no_file_passes(
    digits_pt2: Path, tmp_path: Path, refuse: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refuse.add("int8")
    only = ("--format", "tflite")
    assert compress(digits_pt2, tmp_path, "--numerics", "int8", *only) == 2
    assert "--resume with other --numerics" in capsys.readouterr().err
    assert not (tmp_path / "rpi4").exists()
    assert compress(digits_pt2, tmp_path, "--numerics", "fp32", "--resume", *only) == 0
    assert "> finetune: done before the interruption, taken up" in capsys.readouterr().err


def test_the_dense_model_is_refused_before_any_training(
    digits_pt2: Path, tmp_path: Path, refuse: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refuse.add("fp32")
    assert compress(digits_pt2, tmp_path, "--numerics", "int8") == 2
    told = capsys.readouterr().err
    assert "dense model.tflite: tflite: operator aten.lstm.input is refused" in told
    assert "> finetune" not in told
    assert not (tmp_path / "rpi4").exists()


def test_export_alone_keeps_what_passed(
    digits_pt2: Path, tmp_path: Path, refuse: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refuse.add("fp32")
    out = tmp_path / "artifacts"
    assert main(["export", str(digits_pt2), "--data", "digits", "-o", str(out)]) == 1
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    assert "model.tflite: missing: tflite: operator" in capsys.readouterr().out


def test_an_artifact_that_differs_is_missing(
    digits_pt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = exporting.check

    def differs(path: Path, *args: object, name: str, **options: object) -> object:
        if name == "model.onnx":
            raise CheckFailed("model.onnx: 3.0 dB from its model")
        return check(path, *args, name=name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "check", differs)
    out = tmp_path / "artifacts"
    assert main(["export", str(digits_pt2), "--data", "digits", "-o", str(out)]) == 1
    assert [path.name for path in out.iterdir()] == ["model.tflite"]
