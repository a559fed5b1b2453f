# SPDX-License-Identifier: Apache-2.0
import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from edgeprune.cli.main import main
from edgeprune.project import ProjectFile, find_project

ROOT = Path(__file__).parents[2]
FILE = "edgeprune.toml"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def project() -> ProjectFile:
    found = find_project(Path())
    assert found is not None
    return found


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_from_options_alone(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "my net.pt2", "--data", "photos/", "-t", "rpi4", "-t", "stm32h7"]
    limits = ["--max-size", "500kB", "--max-latency", "25ms", "--max-drop", "1.5"]
    assert main(["init", *given, *limits, "--out", str(desk / "made")]) == 0
    told = capsys.readouterr().out
    assert "edgeprune compress" in told
    assert "my net.pt2 isn't there yet" in told
    entry = project().project.models["my-net"]
    assert (entry.model, entry.data, entry.targets) == (
        "my net.pt2",
        "photos/",
        ("rpi4", "stm32h7"),
    )
    assert entry.out == "made"
    for target in entry.targets:
        budgets = project().target("my-net", target).budgets
        assert (budgets.size, budgets.latency, budgets.drop) == (500_000, 0.025, 1.5)


def test_finished_files_alone(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "kws.tflite").touch()
    files = ["--artifacts", str(desk / "kws.tflite"), "--artifacts", "b.onnx"]
    assert main(["init", *files, "--target", "rpi4", "--name", "wake"]) == 0
    assert project().project.models["wake"].artifacts == ("kws.tflite", "b.onnx")
    told = capsys.readouterr().out
    assert "compress" not in told
    assert "b.onnx isn't there yet" in told
    assert "kws.tflite isn't" not in told
    assert "one model" not in told


def test_files_taken_for_one_model_are_told(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = ["--artifacts", "a/net.onnx"], ["--artifacts", "kws.tflite"]
    assert main(["init", *one, *other, "-t", "rpi4"]) == 0
    assert "a/net.onnx, kws.tflite are taken for one model, net" in capsys.readouterr().out
    both = ["init", *one, "--artifacts", "net.tflite", "-t", "rpi4", "--overwrite"]
    assert main(both) == 0
    assert "one model" not in capsys.readouterr().out


def test_a_file_named_twice_is_one_and_a_long_name_is_none(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "x" * 300 + ".onnx"
    assert main(["init", "--artifacts", long, "--artifacts", long, "--target", "host"]) == 0
    (entry,) = project().project.models.values()
    assert entry.artifacts == (long,)
    assert "isn't there yet" in capsys.readouterr().out


def test_a_target_file_of_ones_own(desk: Path) -> None:
    (desk / "boards").mkdir()
    shipped = (ROOT / "targets" / "rpi4.toml").read_text()
    (desk / "boards" / "mine.toml").write_text(shipped.replace('"rpi4"', '"mine"', 1))
    given = ["--model", "m.pt2", "--target", "boards/mine.toml", "--max-size", "1MB"]
    assert main(["init", *given]) == 0
    assert project().target("m", "boards/mine.toml").budgets.size == 1_000_000


def test_nothing_is_overwritten_unasked(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / FILE).write_text("mine")
    given = ["init", "--model", "m.pt2", "--target", "host"]
    assert main(given) == 2
    assert "edgeprune.toml: is there already; --overwrite" in error(capsys)
    assert (desk / FILE).read_text() == "mine"
    assert main([*given, "--overwrite"]) == 0
    assert set(project().project.models) == {"m"}
    assert [path.name for path in desk.iterdir()] == [FILE]


def test_in_a_pyproject(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real = desk / "real.toml"
    real.write_text("[project]\nname = 'x'\n")
    real.chmod(0o640)
    (desk / "pyproject.toml").symlink_to(real)
    given = ["init", "--model", "m.pt2", "--target", "host", "--pyproject"]
    assert main(given) == 0
    assert real.read_text().startswith("[project]\nname = 'x'\n\n# What edgeprune")
    assert (desk / "pyproject.toml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert project().path.name == "pyproject.toml"
    assert main(given) == 2
    assert "already; edit it there" in error(capsys)
    assert main(given[:-1]) == 2
    assert "pyproject.toml: has [tool.edgeprune] already" in error(capsys)
    assert main([*given, "--overwrite"]) == 2
    assert "--overwrite replaces edgeprune.toml" in error(capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            [],
            "no terminal to ask on, so --model or --artifacts and --target are needed (here: here",
        ),
        (["--target", "host"], "so --model or --artifacts is needed (here: here.pt2)"),
        (["--model", "m.pt2"], "so --target is needed"),
        (["--model", "m.pt2", "--target", "rpi44"], "no target 'rpi44'"),
        (["--model", "m.onnx", "--target", "host"], "a finished file goes to --artifacts"),
        (["--artifacts", "m.pt2", "--target", "host"], "should end in .onnx or .tflite"),
        (["--artifacts", "m.onnx", "--model", "m.pt2", "-t", "host"], "goes without --artifacts"),
        (["--artifacts", "m.onnx", "--out", "x", "-t", "host"], "goes without --artifacts"),
        (["--artifacts", "m.onnx", "--max-drop", "1", "-t", "host"], "goes without --artifacts"),
        (["--model", "m.pt2", "-t", "host", "--max-size", "2 apples"], "--max-size"),
        (["--model", "m.pt2", "-t", "host", "--max-latency", "-1ms"], "--max-latency"),
        (["--model", "m.pt2", "-t", "host", "--max-drop", "101"], "--max-drop"),
        (["--model", "m.pt2", "-t", "host", "--name", "a/b"], "a/b"),
        (["--model", " ", "-t", "host"], "models.model.model"),
        (["--model", "m.pt2", "-t", "host", "--pyproject"], "pyproject.toml: isn't here"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    arguments: list[str], told: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (desk / "here.pt2").touch()
    assert main(["init", *arguments]) == 2
    assert told in error(capsys)
    assert not (desk / FILE).exists()


def asked(answers: list[str], *arguments: str) -> tuple[int, str]:
    """The command on a terminal of its own: each answer is typed when a question stands there."""
    terminal, its = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "edgeprune", "init", *arguments],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # for Ctrl-C
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "dumb"},
    )  # fmt: skip
    os.close(its)
    shown, left, seen, typed, end = "", list(answers), 0, "", time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]:
                if typed in ("\x03", "\x04"):  # a signal is missed just before Python waits
                    os.write(terminal, typed.encode())
                continue
            try:
                part = os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
            shown += part.decode()
            if left and shown.endswith(": ") and len(shown) > seen:
                seen = len(shown)
                typed = left.pop(0)
                os.write(terminal, typed.encode())
        code = running.wait(timeout=60)
    finally:
        running.kill()
        running.wait()
        os.close(terminal)
    assert not left, shown
    return code, shown


def test_on_a_terminal_it_asks(desk: Path) -> None:
    (desk / "net.pt2").touch()
    (desk / "photos" / "cat").mkdir(parents=True)
    (desk / "photos" / "cat" / "1.png").touch()
    code, shown = asked(
        ["\n", "\n", "rpi44\n", "rpi4, host\n", "2 apples\n", "2MB\n", "\n", "\n", "\n"]
    )
    assert code == 0, shown
    assert "Models here: net.pt2" in shown
    assert "no target 'rpi44'; did you mean" in shown
    assert "is no quantity" in shown
    entry = project().project.models["net"]
    assert (entry.model, entry.data, entry.targets) == ("net.pt2", "photos/", ("rpi4", "host"))
    assert project().project.budgets["rpi4"].size == 2_000_000
    assert project().project.budgets["host"].size is None


def test_a_finished_file_is_asked_less(desk: Path) -> None:
    code, shown = asked(["no.txt\n", "x.tflite\n"], "--target", "rpi4", "--max-size", "2MB")
    assert code == 0, shown
    assert "should end in one of" in shown
    assert project().project.models["x"].artifacts == ("x.tflite",)


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "end of input"])
def test_leaving_writes_nothing(desk: Path, key: str) -> None:
    code, shown = asked(["net.pt2\n", key])
    assert code == 130, shown
    assert "interrupted" in shown
    assert list(desk.iterdir()) == []
