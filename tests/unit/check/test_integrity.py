# SPDX-License-Identifier: Apache-2.0
"""Manifests that were edited, that miss files, and that were made to do harm."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgeprune.artifact import digest
from edgeprune.check import Request, Rules, check, gather
from edgeprune.errors import EdgepruneError, InputError
from edgeprune.gate.judged import CheckReport
from edgeprune.report.seal import seal_of
from tests.unit.check import made


def checked(folder: Path) -> CheckReport:
    cases = gather(Request((folder,)), folder.parent, None, None)
    return check(cases, folder.parent, Rules())


def failures(report: CheckReport) -> list[tuple[str, str]]:
    return [(each.rule, each.reason) for each in report.failed]


def edit(folder: Path, change: Callable[[dict[str, Any]], None], *, seal: bool = False) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    if seal:
        data["seal"] = seal_of(data)
    path.write_text(json.dumps(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.result(tmp_path / "rpi4")


def test_an_honest_result_passes(folder: Path) -> None:
    report = checked(folder)
    assert report.failed == ()
    assert {each.rule for each in report.judged if each.rule.startswith("integrity")} == {
        "integrity/missing",
        "integrity/hash",
        "integrity/edited",
        "integrity/origin",
    }


def test_white_space_breaks_no_seal(folder: Path) -> None:
    edit(folder, lambda _: None)
    assert checked(folder).failed == ()


def test_a_missing_file(folder: Path) -> None:
    (folder / "report.json").unlink()
    (found,) = checked(folder).failed
    assert (found.rule, found.artifact) == ("integrity/missing", "rpi4/report.json")


def test_another_file_under_the_name(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    report = checked(folder)
    (found,) = (each for each in report.failed if each.rule == "integrity/hash")
    assert found.artifact == "rpi4/model.onnx"
    # The manifest's figures are about the other file.
    open_ = {each.rule for each in report.failed if each.outcome == "not measured"}
    assert open_ == {"budget/latency", "budget/memory", "budget/drop"}


def test_a_file_of_another_size_is_not_even_hashed(folder: Path) -> None:
    os.truncate(folder / "model.onnx", 10 * 2**30)  # sparse
    report = checked(folder)
    (found,) = (each for each in report.failed if each.rule.startswith("integrity"))
    assert found.rule == "integrity/hash"
    assert "10,737,418,240 bytes" in found.reason


def test_any_huge_file_is_not_hashed(folder: Path) -> None:
    os.truncate(folder / "report.json", 10 * 2**30)
    (found,) = checked(folder).failed
    assert found.rule == "integrity/hash"


def better(data: dict[str, Any]) -> None:
    data["figures"]["model.onnx"]["drop"]["value"] = 0.0


def test_an_edited_figure(folder: Path) -> None:
    edit(folder, better)
    (found,) = failures(checked(folder))
    assert found == (
        "integrity/edited",
        "Its seal doesn't fit: it was edited after it was written.",
    )


def test_a_seal_that_was_taken_off(folder: Path) -> None:
    edit(folder, lambda data: data.pop("seal"))
    (found,) = failures(checked(folder))
    assert found[0] == "integrity/edited"
    assert "no seal" in found[1]


def fewer_bytes(data: dict[str, Any]) -> None:
    data["figures"]["model.onnx"]["bytes"]["value"] = 17


def outside_its_interval(data: dict[str, Any]) -> None:
    data["device"]["figures"]["model.onnx"]["latency_p50"]["value"] = 0.001


def another_hash(data: dict[str, Any]) -> None:
    data["artifacts"][0]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (fewer_bytes, "bytes .* in the file and 17 in the manifest"),
        (outside_its_interval, "latency_p50: 0.001 isn't in its interval"),
        (another_hash, "isn't the file that it lists"),
    ],
)
def test_a_sealed_lie_that_the_files_tell(
    folder: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    edit(folder, change, seal=True)
    (found,) = checked(folder).failed
    assert found.rule == "integrity/edited"
    assert re.search(reason, found.reason)


def test_operators_of_a_tflite_file_are_counted_anew(tmp_path: Path) -> None:
    folder = made.result(tmp_path / "rpi4")
    path = made.lite(folder / "model.tflite")
    honest = made.artifact(path).model_dump(mode="json")

    def add(data: dict[str, Any]) -> None:
        data["files"]["model.tflite"] = honest["sha256"]
        data["artifacts"].append(honest)

    edit(folder, add, seal=True)
    assert not any(each.rule.startswith("integrity") for each in checked(folder).failed)

    def lie(data: dict[str, Any]) -> None:
        data["artifacts"][1]["check"]["float_ops"] = 7

    edit(folder, lie, seal=True)
    (found,) = (each for each in checked(folder).failed if each.rule == "integrity/edited")
    assert "float operators is 0 in the file and 7 in the manifest" in found.reason


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("where", None, "without a machine"),
        ("where", " ", "without a machine"),
        ("when", None, "without a date"),
        ("when", "yesterday", "without a date"),
        ("runs", None, "without a number of runs"),
        ("runs", 0, "without a number of runs"),
        ("how", "", "without how"),
    ],
)
def test_a_figure_without_origin(folder: Path, key: str, value: object, reason: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data["device"]["figures"]["model.onnx"]["latency_p50"]["origin"][key] = value

    edit(folder, change, seal=True)
    (found,) = checked(folder).failed
    assert found.rule == "integrity/origin"
    assert reason in found.reason


def test_many_findings_are_counted(folder: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["files"] |= {f"f{k}": "0" * 64 for k in range(1000)}

    edit(folder, change, seal=True)
    found = [each for each in checked(folder).failed if each.rule == "integrity/missing"]
    assert len(found) == 11
    assert found[-1].reason == "... and 990 more."


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../x", "..\\x", "", ".", "a\0b"]
)
def test_a_manifest_that_leads_out_of_its_folder(folder: Path, name: str) -> None:
    def change(data: dict[str, Any]) -> None:
        data["files"][name] = "0" * 64

    edit(folder, change, seal=True)
    with pytest.raises(InputError, match="outside its folder") as caught:
        checked(folder)
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}\n")  # what the manifest says is there
    (folder / "report.json").unlink()
    (folder / "report.json").symlink_to(secret)
    (found,) = checked(folder).failed
    assert found.rule == "integrity/missing"
    assert "link out of" in found.reason


def test_a_link_inside_the_folder_is(folder: Path) -> None:
    (folder / "report.json").rename(folder / "real.json")
    (folder / "report.json").symlink_to("real.json")
    assert checked(folder).failed == ()


@pytest.mark.parametrize("kind", ["pipe", "folder", "circle"])
def test_no_file_in_a_files_place(folder: Path, kind: str) -> None:
    path = folder / "report.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)
    (found,) = checked(folder).failed
    assert (found.rule, found.artifact) == ("integrity/missing", "rpi4/report.json")


def manifests() -> dict[str, bytes]:
    return {
        "empty": b"",
        "truncated": b'{"schema_version": 1, "run": "',
        "no UTF-8": b'{"schema_version": 1, "run": "\xff"}',
        "an array": b"[]",
        "another schema": b'{"schema_version": 2}',
        "no schema": b"{}",
        "schema of a strange type": b'{"schema_version": {"a": [1]}}',
        "deep": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "unknown key": b'{"schema_version": 1, "what\\n\\u001b[31m": 1}',
        "lone surrogate": b'{"schema_version": 1, "run": "\\ud800"}',
        "many digits": b'{"schema_version": 1' + b"0" * 10_000 + b"}",
        "NaN": b'{"schema_version": NaN}',
        "huge": b" " * (2**23 + 1),
        "zero bytes": bytes(1000),
    }


@pytest.mark.parametrize("kind", manifests())
def test_a_bad_manifest_is_one_line(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "rpi4"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifests()[kind])
    with pytest.raises(InputError, match=r"manifest\.json") as caught:
        checked(folder)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_manifest_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(EdgepruneError, match="pipe"):
        checked(tmp_path)


def test_a_manifest_that_is_a_link_into_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="No such file"):
        checked(tmp_path)


def test_a_huge_sparse_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    os.truncate(tmp_path / "manifest.json", 2**34)
    with pytest.raises(InputError):
        checked(tmp_path)


def test_a_result_of_nothing_is_no_pass(folder: Path) -> None:
    edit(folder, lambda data: data.update(artifacts=[]), seal=True)
    (found,) = failures(checked(folder))
    assert found[0] == "integrity/missing"
    assert "names no artifact" in found[1]


def test_an_artifact_stands_there_once(folder: Path) -> None:
    edit(folder, lambda data: data["artifacts"].append(data["artifacts"][0]), seal=True)
    (found,) = failures(checked(folder))
    assert found == ("integrity/edited", "model.onnx: stands among its artifacts more than once.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unit": "h"}, "latency_p50 is in 'h', and only 's' can be judged"),
        ({"origin": {"kind": "estimated", "how": "a guess"}}, "only measured counts"),
        ({"origin": {"kind": "counted", "how": "a guess"}}, "only measured counts"),
    ],
)
def test_a_latency_that_was_not_measured_in_seconds(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    def lie(data: dict[str, Any]) -> None:
        data["device"]["figures"]["model.onnx"]["latency_p50"].update(change)

    edit(folder, lie, seal=True)
    ((rule, told),) = failures(checked(folder))
    assert rule == "integrity/origin"
    assert reason in told


def renew(folder: Path, **entries: object) -> None:
    """The manifest names the present ``model.onnx``."""

    def change(data: dict[str, Any]) -> None:
        file = folder / "model.onnx"
        sha, size = digest(file), file.stat().st_size
        data["files"]["model.onnx"] = sha
        data["artifacts"][0].update(sha256=sha, bytes=size, **entries)
        data["figures"]["model.onnx"]["bytes"]["value"] = size

    edit(folder, change, seal=True)


def test_weights_beside_an_artifact_count_and_are_listed(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    renew(folder)
    report = checked(folder)
    ((rule, told),) = failures(report)
    assert rule == "integrity/edited"
    assert "keeps weights in w, which it doesn't list" in told
    (size,) = (each for each in report.judged if each.rule == "budget/size")
    assert size.figure is not None
    assert size.figure.value == sum((folder / name).stat().st_size for name in ("model.onnx", "w"))


def test_an_artifact_is_of_the_format_that_is_said(folder: Path) -> None:
    renew(folder, format="tflite")
    ((_, told),) = failures(checked(folder))
    assert told == "model.onnx: format is onnx in the file and tflite in the manifest."
    made.lite(folder / "model.onnx")
    renew(folder, format="onnx")
    assert (
        "format is tflite in the file and onnx in the manifest" in failures(checked(folder))[0][1]
    )


@pytest.mark.parametrize("key", ["files", "versions"])
def test_half_a_character_is_no_text(folder: Path, key: str) -> None:
    edit(folder, lambda data: data[key].update({"\ud800": "0" * 64}), seal=True)
    with pytest.raises(InputError, match="is no JSON, so no Manifest"):
        checked(folder)


def test_a_model_file_that_is_no_artifact_any_more(folder: Path) -> None:
    made.lite(folder / "model.tflite")

    def listed(data: dict[str, Any]) -> None:
        data["files"]["model.tflite"] = digest(folder / "model.tflite")

    edit(folder, listed, seal=True)
    (found,) = failures(checked(folder))
    assert found[0] == "integrity/missing"
    assert "model.tflite" in found[1]
