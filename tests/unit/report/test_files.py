# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from edgeprune.errors import EdgepruneError, InputError, OutputError
from edgeprune.report import read_manifest, read_report, to_json, write_json
from edgeprune.report.schema import Manifest, RunReport
from tests.unit.report import reports


def manifest(report: RunReport) -> Manifest:
    return Manifest(
        run="0" * 64,
        target=report.target,
        files={artifact.file: artifact.sha256 for artifact in report.artifacts},
        artifacts=report.artifacts,
        preprocessing={"mean": [0.5], "std": [0.25]},
        figures=report.profile,
        verdicts=report.verdicts,
        versions=report.versions,
    )


def test_a_report_reads_back_equal(tmp_path: Path) -> None:
    report = reports.full()
    write_json(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_manifest_reads_back_equal(tmp_path: Path) -> None:
    expected = manifest(reports.full())
    write_json(expected, tmp_path / "manifest.json")
    assert read_manifest(tmp_path / "manifest.json") == expected


def test_the_order_of_keys_makes_no_difference() -> None:
    report = reports.full()
    turned = report.model_copy(
        update={
            "profile": {name: report.profile[name] for name in reversed(list(report.profile))},
            "versions": dict(reversed(report.versions.items())),
        }
    )
    assert to_json(turned) == to_json(report)
    assert to_json(report).endswith("}\n")


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    write_json(reports.bare(), path)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match=r"report\.json: can't be written: No space left"):
        write_json(reports.full(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        write_json(reports.bare(), tmp_path / "no" / "report.json")


def test_details_that_json_cannot_hold_are_refused() -> None:
    report = reports.bare()
    stage = report.stages[0].model_copy(update={"details": {"loss": object()}})
    with pytest.raises(EdgepruneError, match="RunReport can't be written as JSON"):
        to_json(report.model_copy(update={"stages": (stage,)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read: No such file"),
        ("", "is no JSON"),
        ("\udcff", "is no JSON"),
        ("[]", "schema version 1, but of None"),
        ('{"schema_version": 2}', "schema version 1, but of 2"),
        ('{"schema_version": 1}', "is no Manifest: run: Field required"),
    ],
)
def test_other_files_are_refused_in_one_line(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=message) as error:
        read_manifest(path)
    assert "\n" not in str(error.value)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    data = json.loads(to_json(reports.bare())) | {"surprise": 1}
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="surprise"):
        read_report(tmp_path / "report.json")
