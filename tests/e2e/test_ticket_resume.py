# SPDX-License-Identifier: Apache-2.0
"""Killed, interrupted, or with a result that could not be put in its place: a run goes on."""

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import main
from edgeprune.errors import OutputError
from edgeprune.mask import read_ticket
from edgeprune.model import read
from tests.e2e.support import begun, tree
from tests.e2e.test_ticket import BRIEF, DATA

IMP = ("--density", "0.5", "--rate", "0.25", "--epochs", "2", "--batch-size", "16", "--fresh")


def imp(model: Path, folder: Path, *further: str) -> list[str | Path]:
    out = ("-o", folder / "t.safetensors", "--trained", folder / "s.pt2")
    return ["ticket", "find", model, *DATA, *IMP, *out, *further]


def interrupt(arguments: list[str | Path], folder: Path, name: str, number: int) -> str:
    """Start the command, and send it the signal once its work folder has that file."""
    awaited = folder / ".t.safetensors.work" / name
    with begun(*arguments, cwd=folder) as process:
        end = time.monotonic() + 120
        while not awaited.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(number)
        assert process.stderr is not None
        rest = process.stderr.read()
    assert process.returncode in (-number, 130), rest
    return rest


def test_killed_and_interrupted_it_goes_on_to_the_same_files(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    calm.mkdir()
    out.mkdir()
    assert main(list(map(str, imp(digits_pt2, calm)))) == 0
    interrupt(imp(digits_pt2, out), out, "level-0.pt", signal.SIGKILL)
    said = interrupt(imp(digits_pt2, out, "--resume"), out, "level-1.pt", signal.SIGINT)
    assert said.strip().splitlines()[-1].endswith("--resume")
    assert "Traceback" not in said
    # Another seed, or other options, are told apart; nothing of the work is lost by that.
    capsys.readouterr()
    for change, told in (
        (("--seed", "5"), "seed was 0, is 5"),
        (("--rate", "0.3"), "imp.rate was 0.25, is 0.3"),
    ):
        assert main(list(map(str, imp(digits_pt2, out, "--resume", *change)))) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert "of another run" in line
        assert told in line
    assert main(list(map(str, imp(digits_pt2, out, "--resume")))) == 0
    assert "went on after level" in capsys.readouterr().err
    assert tree(out) == tree(calm) == ["s.pt2", "t.json", "t.safetensors"]
    for name in ("t.safetensors", "s.pt2"):
        assert (out / name).read_bytes() == (calm / name).read_bytes()
    assert main(list(map(str, imp(digits_pt2, out, "--resume")))) == 0
    assert "done before the interruption" in capsys.readouterr().err
    assert main(list(map(str, imp(digits_pt2, out)))) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_kill_between_the_renames_is_mended(
    digits_pt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeprune.tickets import runner

    class Killed(BaseException):
        pass

    def half(folder: Path, places: dict[str, Path]) -> None:
        shutil.copyfile(folder / "ticket", places["ticket"])
        raise Killed

    out = tmp_path / "t.safetensors"
    given = ["ticket", "find", str(digits_pt2), "-m", "random", *DATA, "-o", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "publish", half)
        assert main(given) == 3
    assert not (tmp_path / "t.json").exists()
    assert main([*given, "--resume"]) == 0
    assert tree(tmp_path) == ["t.json", "t.safetensors"]
    assert read_ticket(out).mask.about.method == "random"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``x`` and ``y`` in it, which are file systems of their own."""
    replace = Path.replace

    def within(self: Path, target: Path) -> Path:
        if self.parent.name in ("x", "y") and self.parent == target.parent:
            return replace(self, target)
        if ".work" in str(self) and self.parent == target.parent:
            return replace(self, target)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", within)
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y"):
        Path(name).mkdir()
    return tmp_path


def pruned_once(model: Path, *further: str) -> list[str]:
    given = ["ticket", "find", str(model), "-m", "one-shot", *DATA, *BRIEF, "--density", "0.5"]
    return [*given, "-o", "x/u.safetensors", *further]


def unpublished(given: list[str], patches: pytest.MonkeyPatch) -> None:
    """Run a command that does all its work, and finds the disk full then."""

    def full(*_: object) -> None:
        raise OutputError("y/s.pt2: can't be written: No space left on device")

    with patches.context() as patch:
        patch.setattr("edgeprune.tickets.files.save_all", full)
        assert main(given) == 2


def files_of(report: str) -> Any:
    return json.loads(Path(report).read_text())["files"]


def test_a_trained_network_may_go_to_another_file_system(
    two: Path, digits_pt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(pruned_once(digits_pt2, "--trained", "y/s.pt2")) == 0
    assert tree(two) == ["x", "x/u.json", "x/u.safetensors", "y", "y/s.pt2"]
    told = capsys.readouterr().out.splitlines()[-3:]
    assert sorted(told) == ["x/u.json", "x/u.safetensors", "y/s.pt2"]
    names = {"ticket": "u.safetensors", "report": "u.json", "trained": "../y/s.pt2"}
    assert files_of("x/u.json") == names
    shutil.move(two / "x", two / "moved")
    assert read(two / "moved" / names["trained"]).history[-1].stage == "ticket"


def test_what_could_not_be_published_may_go_elsewhere(
    two: Path, digits_pt2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unpublished(pruned_once(digits_pt2, "--trained", "y/s.pt2"), monkeypatch)
    assert not any(name.startswith(("x/u", "y/")) for name in tree(two))
    there = Path("x/s.pt2")
    there.write_text("precious")
    again = pruned_once(digits_pt2, "--resume", "--trained", "x/s.pt2")
    capsys.readouterr()
    assert main(again) == 2
    assert "x/s.pt2: is there already; --overwrite" in capsys.readouterr().err
    assert there.read_text() == "precious"
    there.unlink()
    assert main(again) == 0
    assert tree(two) == ["x", "x/s.pt2", "x/u.json", "x/u.safetensors", "y"]
    assert files_of("x/u.json")["trained"] == "s.pt2"
    assert "x/s.pt2" in capsys.readouterr().out.splitlines()
    assert main(again) == 0
    assert "was done before the interruption" in capsys.readouterr().err
    assert main(pruned_once(digits_pt2, "--resume", "--trained", "y/s.pt2")) == 2
    assert "is there already; --overwrite" in capsys.readouterr().err


def test_a_network_that_was_not_kept_cannot_be_asked_for_later(
    two: Path, digits_pt2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unpublished(pruned_once(digits_pt2), monkeypatch)
    assert main(pruned_once(digits_pt2, "--resume", "--trained", "y/s.pt2")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: y/s.pt2: can't be written: the run that is resumed kept no such")
    assert main(pruned_once(digits_pt2, "--resume")) == 0
    assert tree(two) == ["x", "x/u.json", "x/u.safetensors", "y"]
