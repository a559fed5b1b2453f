# SPDX-License-Identifier: Apache-2.0
"""What changed between two versions, from files, folders and commits."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgeprune.artifact import digest
from edgeprune.cli.main import main
from tests.unit.check import made
from tests.unit.profiler.models import chain


def git(*arguments: str, stdin: bytes = b"") -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, input=stdin)
    return done.stdout.decode().strip()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a result in its first commit, and one layer more in its second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    git("init", "-q", "-b", "main")
    made.result(tmp_path / "out/rpi4", depth=4)
    git("add", ".")
    git("commit", "-qm", "one")
    made.result(tmp_path / "out/rpi4", depth=5)
    git("add", ".")
    git("commit", "-qm", "two")
    return tmp_path


def data(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main(["diff", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("HEAD~1", "out"),
        ("HEAD~1", "out/rpi4"),
        ("HEAD~1:out/rpi4", "out/rpi4/manifest.json"),
        ("HEAD~1:out/rpi4", "main"),
        ("HEAD~1:out/rpi4/model.onnx", "out/rpi4/model.onnx"),
    ],
)
def test_a_layer_more_since_a_commit(
    repo: Path, capsys: pytest.CaptureFixture[str], before: str, after: str
) -> None:
    (found,) = data(capsys, before, after)["artifacts"]
    assert found["state"] == "changed"
    assert found["operators"] == {"MatMul": [4, 5]}
    (layer,) = found["layers"]
    assert layer["before"] is None
    assert layer["after"]["name"] == "h4"
    assert found["figures"]["parameters"]["growth"] == 1.25
    assert (
        found["figures"]["bytes"]["after"]["value"] == (repo / "out/rpi4/model.onnx").stat().st_size
    )


def test_the_tables(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "HEAD~1", "out"]) == 0
    out = capsys.readouterr().out
    assert "rpi4: rpi4/model.onnx: changed" in out
    assert "+25.0 %" in out
    assert "10 ms (9.9 to 10.1)" in out
    assert " - operators: MatMul 4 -> 5" in out
    assert " - h4 (MatMul): new: 1.02 k parameters" in out
    assert main(["diff", "HEAD~1", "out", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("## edgeprune diff\n")
    assert "| parameters | 4.1 k | 5.12 k | +25.0 % |" in out


def test_nothing_is_left_behind(
    repo: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["diff", "HEAD~1", "out"]) == 0
    assert main(["diff", "HEAD~1:out/rpi4/report.json", "out"]) == 2
    assert list(place.iterdir()) == []


def test_retrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain(tmp_path / "a.onnx", depth=2)
    chain(tmp_path / "b.onnx", depth=2)
    made.retrain(tmp_path / "b.onnx", 3)
    assert main(["diff", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")]) == 0
    assert "the same operators and layers: other weights" in capsys.readouterr().out
    (same,) = data(capsys, str(tmp_path / "a.onnx"), str(tmp_path / "a.onnx"))["artifacts"]
    assert same["state"] == "same"
    assert same["layers"] == []


def test_files_that_came_and_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, file in (
        ("a", "old.onnx"),
        ("b", "new.onnx"),
        ("a", "kept.onnx"),
        ("b", "kept.onnx"),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        chain(tmp_path / name / file)
    found = data(capsys, str(tmp_path / "a"), str(tmp_path / "b"))["artifacts"]
    assert {each["name"]: each["state"] for each in found} == {
        "kept.onnx": "same",
        "new.onnx": "new",
        "old.onnx": "gone",
    }


def test_latency_of_another_machine_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.result(tmp_path / "a")
    at = made.device()
    slow = made.timed(0.02, 0.019, 0.021, "another board")
    figures = {"model.onnx": {**at.figures["model.onnx"], "latency_p50": slow}}
    made.result(tmp_path / "b", at=at.model_copy(update={"figures": figures}), seed=2)
    (found,) = data(capsys, str(tmp_path / "a"), str(tmp_path / "b"))["artifacts"]
    latency = found["figures"]["latency_p50"]
    assert (latency["growth"], latency["comparable"]) == (None, False)


def test_a_manifest_that_lies_is_told(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repo / "out/rpi4/report.json").write_text("other")
    found = data(capsys, "HEAD", "out")
    assert any("integrity/hash" in note for note in found["notes"])


def test_links_and_odd_paths_of_a_commit_are_not_written(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = repo.parent / "secret.onnx"
    chain(secret)
    (repo / "out/rpi4/model.onnx").unlink()
    (repo / "out/rpi4/model.onnx").symlink_to(secret)
    git("add", ".")
    git("commit", "-qm", "a link")
    found = data(capsys, "HEAD", "out")
    assert any("integrity/missing" in note for note in found["notes"])
    blob = git("hash-object", "-w", "--stdin", stdin=b"x")
    inner = git("mktree", stdin=f"100644 blob {blob}\tx.onnx\n".encode())
    tree = git("mktree", stdin=f"040000 tree {inner}\t..\n".encode())
    commit = git("commit-tree", tree, "-m", "up")
    assert main(["diff", f"{commit}:.", "out"]) == 2
    assert not (repo.parent / "x.onnx").exists()
    assert secret.exists()


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("no-such-thing", "no-such-thing: is neither a path nor a commit"),
        ("HEAD:nothing", "HEAD: has nothing at nothing: a commit has only what was committed"),
        ("HEAD:../..", "is outside the repository"),
        (":x", "isn't there"),
        ("HEAD^{tree}", "is neither a path nor a commit"),
        ("HEAD:out/rpi4/report.json", "report.json"),
        ("pipe", "pipe"),
        ("x" * 5000, "is neither a path nor a commit"),
        (f"HEAD:{'x' * 5000}", "HEAD: has nothing at x"),
    ],
)
def test_bad_sides_are_one_line(
    repo: Path, capsys: pytest.CaptureFixture[str], before: str, message: str
) -> None:
    os.mkfifo(repo / "pipe")
    assert main(["diff", before, "out"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_outside_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    chain(tmp_path / "a.onnx")
    assert main(["diff", "main", "a.onnx"]) == 2
    assert "not a git repository" in capsys.readouterr().err


def test_what_is_not_copied_of_a_commit_is_not_missed(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(manifest: dict[str, Any]) -> None:
        manifest["files"]["model.pt2"] = digest(repo / "out/rpi4/model.pt2")

    (repo / "out/rpi4/model.pt2").write_text("large")
    made.result(repo / "out/rpi4", change=add)
    git("add", ".")
    git("commit", "-qm", "a program too")
    assert data(capsys, "HEAD", "out")["notes"] == []


def test_no_room_for_a_copy_is_one_line(
    repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(repo / "nowhere"))
    assert main(["diff", "HEAD", "out"]) == 2
    assert "HEAD: can't be copied to a temporary folder" in capsys.readouterr().err


def test_a_repository_whose_name_is_no_text(
    repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(bytes(repo) + b"/\xff"))
    odd.mkdir()
    (repo / "out").rename(odd / "out")
    (repo / ".git").rename(odd / ".git")
    monkeypatch.chdir(odd)
    assert [each["state"] for each in data(capsys, "HEAD", "out")["artifacts"]] == ["same"]
