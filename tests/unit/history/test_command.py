# SPDX-License-Identifier: Apache-2.0
import json
import re
from pathlib import Path

import pytest

from edgeprune.cli.main import main
from tests.unit.history.locks import NAME, Repository, accepted, lock

PROJECT = '[models.classifier]\nartifacts = ["model.onnx"]\ntargets = ["rpi4"]\n'


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository(tmp_path / "team")
    (repository.folder / "edgeprune.toml").write_text(PROJECT)
    for size, score in ((1_000, 90.0), (2_000, 91.0), (1_500, 90.5)):
        content = lock(
            reason=f"size {size} [b]is[/b] right",
            **{"model.onnx": accepted(size, latency=size * 1e-6, ratio=size / 500, score=score)},
        )
        repository.commit(content, message=f"to {size}")
    (repository.folder / "inner").mkdir()
    monkeypatch.chdir(repository.folder / "inner")
    monkeypatch.setenv("COLUMNS", "160")
    return repository


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_a_table_of_the_projects_lock_file(
    team: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history"]) == 0
    told = capsys.readouterr().out
    rows = re.findall(r"(?m)^([0-9a-f]{10}) +2026-01-\d\d +classifier for rpi4.* (\d.*B) ", told)
    assert [size for _, size in rows] == ["1 kB", "2 kB", "1.5 kB"]
    assert "2.00x (1.94 to 2.08)" in told
    assert "[b]is[/b] right" in told


def test_json_has_all_of_it(team: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["subject"] for each in told["commits"]] == ["to 1000", "to 2000", "to 1500"]
    artifact = told["commits"][1]["artifacts"][0]
    assert artifact["figures"]["bytes"]["value"] == 2000
    assert artifact["figures"]["score"]["origin"]["kind"] == "measured"
    assert artifact["machine"] == "a"


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_pictures_and_page(
    team: Repository, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib; pip install 'edgeprune[plots]'")
    out = tmp_path / f"h{suffix}"
    assert main(["history", "-o", str(out)]) == 0
    start = {".svg": b"<?xml", ".png": b"\x89PNG", ".html": b"<!DOCTYPE html>"}[suffix]
    first = out.read_bytes()
    assert first.startswith(start)
    assert main(["history", "-o", str(out)]) == 2
    assert "--overwrite" in error(capsys)
    assert main(["history", "-o", str(out), "--overwrite"]) == 0
    assert out.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


def test_the_page_holds_the_plot(team: Repository, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib; pip install 'edgeprune[plots]'")
    out = tmp_path / "h.html"
    assert main(["history", "-o", str(out)]) == 0
    assert "data:image/svg+xml;base64," in out.read_text()


def test_a_lock_file_by_its_name(team: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", str(team.folder / NAME), "--limit", "1", "--rev", "main"]) == 0
    told = capsys.readouterr().out
    assert "1.5 kB" in told
    assert "2 kB" not in told
    assert "only the newest 1" in told


def test_a_broken_old_version_is_told(team: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    team.commit("{}")
    team.commit(lock(7_000))
    assert main(["history"]) == 0
    told = capsys.readouterr().out
    assert "7 kB" in told
    assert re.search(r"(?m)^ - [0-9a-f]{10} .*is no lock file.*skipped$", told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-o", "h.gif"], "should end in .svg or .png or .html; name it h.gif.svg"),
        (["-o", "."], "is a folder"),
        (["-o", "none/h.svg"], "there is no folder none"),
        (["-o", "n" * 300 + ".svg"], "can't be written"),
        (["--rev", "nowhere"], "no such commit"),
        (["--model", "clasifier"], "did you mean 'classifier'"),
        (["--limit", "0"], "--limit"),
        (["none.json"], "no commit up to HEAD has it"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    team: Repository, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", *arguments]) == 2
    assert told in error(capsys)


def test_without_a_project_the_lock_file_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["history"]) == 2
    assert "edgeprune history LOCK" in error(capsys)
