# SPDX-License-Identifier: Apache-2.0
import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgeprune.cli import rendered
from edgeprune.cli.main import main
from edgeprune.report.check import FORMS, badge, render
from edgeprune.report.files import to_json
from tests.unit.report.check.reports import passed, report


class Stdin(io.TextIOWrapper):
    """Standard input with a content, as a pipe or a terminal gives it."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "check.json"
    path.write_text(to_json(report()))
    return path


def error(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    return text


def test_a_badge_of_a_file(check: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["badge", str(check), "-o", "badge.svg"]) == 0
    assert Path("badge.svg").read_text() == badge(report())
    assert "badge.svg" in capsys.readouterr().out
    assert main(["badge", str(check), "-o", "badge.svg"]) == 2
    assert "--overwrite" in error(capsys)
    check.write_text(to_json(passed()))
    assert main(["badge", str(check), "-o", "badge.svg", "--overwrite"]) == 0
    assert (
        ElementTree.fromstring(Path("badge.svg").read_text())
        .attrib["aria-label"]
        .endswith("all 3 checks passed")
    )


def test_a_badge_of_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(to_json(report()).encode()))
    assert main(["badge"]) == 0
    assert capsys.readouterr().out == badge(report())


@pytest.mark.parametrize("form", FORMS)
def test_each_form(check: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(check), "--format", form]) == 0
    assert capsys.readouterr().out == render(report(), form)  # type: ignore[arg-type]
    assert main(["render", str(check), "--format", form, "-o", "out.txt"]) == 0
    assert Path("out.txt").read_text() == render(report(), form)  # type: ignore[arg-type]


def test_paths_are_told_from_here(check: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(check), "--format", "json", "--base", "in ner/models/../x/"]) == 0
    found = json.loads(capsys.readouterr().out)["judged"]
    assert found[0]["artifact"] == "in ner/x/dist/rpi4/model.onnx"
    assert found[0]["place"] == {"file": "in ner/x/edgeprune.toml", "line": 12}
    check.write_text(check.read_text().replace("dist/rpi4/model.onnx", "/abs/model.onnx"))
    assert main(["render", str(check), "--format", "json", "--base", ".."]) == 0
    found = json.loads(capsys.readouterr().out)["judged"]
    assert found[0]["artifact"] == "/abs/model.onnx"
    assert found[0]["place"]["file"] == "../edgeprune.toml"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"no json", "is no report of"),
        (b"{}", "is no report of"),
        (b"\xff\xfe", "is no report of"),
        (b"[" * 100_000, "is no report of"),
        (json.dumps({**json.loads(to_json(report())), "schema_version": 9}).encode(), "schema_v"),
        (json.dumps({**json.loads(to_json(report())), "more": 1}).encode(), "more"),
        (re.sub(r'"line": \d+', '"line": 0', to_json(report())).encode(), "place.line"),
        (to_json(report())[:-40].encode(), "is no report of"),
    ],
    ids=[
        "empty",
        "blank",
        "text",
        "another",
        "no text",
        "deep",
        "version",
        "unknown",
        "line",
        "cut off",
    ],
)
def test_what_is_no_report_is_refused(
    check: Path, content: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check.write_bytes(content)
    for command in (["badge", str(check)], ["render", str(check), "-f", "junit"]):
        assert main(command) == 2
        line = error(capsys)
        assert told in line
        assert "check.json" in line


def test_a_huge_file_is_not_read_whole(
    check: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with check.open("wb") as file:
        file.truncate(10**10)  # sparse
    monkeypatch.setattr(rendered, "_MOST", 2**20)
    assert main(["badge", str(check)]) == 2
    assert "more than 1,048,576 B" in error(capsys)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.json"], "none.json: can't be read: No such file"),
        (["."], "can't be read: Is a directory"),
        (["check.json", "-o", "badge.png"], "should end in .svg"),
        (["check.json", "-o", "none/badge.svg"], "there is no folder none"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    check: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["badge", *arguments]) == 2
    assert told in error(capsys)


def test_a_terminal_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"", terminal=True))
    assert main(["badge"]) == 2
    assert "pipe into this" in error(capsys)
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["badge"]) == 2
    assert "pipe into this" in error(capsys)
