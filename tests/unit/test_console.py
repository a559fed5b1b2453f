# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from edgeprune.cli import console, show
from edgeprune.cli.console import PlainProgress, TerminalProgress, progress


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress()
    assert isinstance(shown, PlainProgress)
    shown.say("> prune")
    with shown.bar("fine-tune", 4) as bar:
        bar.advance(1, loss=2.5)
        bar.advance(3, loss=0.25, accuracy=91)
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first == "> prune"
    assert second.startswith("  fine-tune: 4/4")
    assert second.endswith("loss 0.25  accuracy 91")


def test_long_work_is_told_now_and_then_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with PlainProgress().bar("fine-tune", 4) as bar:
        for _ in range(4):
            clock[0] += 6
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "fine-tune: 2/4",
        "fine-tune: 4/4",
        "fine-tune: 4/4",
    ]
    assert lines[0].endswith("12 s left")


def test_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = progress()
    assert isinstance(shown, TerminalProgress)
    with shown.bar("fine-tune", 4) as bar:
        bar.advance(4, loss=0.25)
    shown.say("[bold] is text here, no markup")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "4/4" in captured.err
    assert "loss 0.25" in captured.err
    assert "[bold] is text" in captured.err


def test_a_page_is_wide_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console.page().width == 120
    monkeypatch.setenv("COLUMNS", "60")
    assert console.page().width == 60


def test_a_short_name_stays_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    show.table(("name", "figure"), [("model.tflite", "4.56 us (4.33 to 4.78) " * 4)])
    out = capsys.readouterr().out
    assert "model.tflite" in out
    assert max(map(len, out.splitlines())) <= 50


def test_a_table_for_a_program_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-name-of-a-device-" * 20
    show.table(("name", "size"), [(name, "1 B")])
    assert name in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_verdict() -> None:
    command = [sys.executable, "-m", "edgeprune", "targets", "list"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.close()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 141  # as of a program that SIGPIPE ended
    assert said == b""
