# SPDX-License-Identifier: Apache-2.0
"""What the command line says of itself."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from typer.main import get_command

from edgeprune.cli.main import application, main

NARROW = 80


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))
    monkeypatch.setenv("TERMINAL_WIDTH", str(NARROW))  # typer's own


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("command", ["check", "init", "history", "render", "baseline accept"])
def test_a_paragraph_of_a_help_is_folded_by_the_terminal_alone(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= NARROW
    for line, following in pairwise(lines):
        # A line that ends early though the next word would have had room was folded by hand.
        text = not set("─│╭╰") & {*line, *following}
        if text and line.strip() and following.strip():
            assert len(line.rstrip()) + len(following.split()[0]) >= NARROW - 2, line


def test_where_a_project_file_may_be_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--help"]) == 0
    assert "[tool.edgeprune]" in capsys.readouterr().out


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All there are, those of groups too."""
    yield name, group
    for inner, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {inner}".strip())


def test_no_help_loses_what_stands_in_brackets() -> None:
    for name, command in commands(get_command(application())):
        told = [command.help, command.epilog, *(param.help for param in command.params)]
        for text in filter(None, told):
            # Rich takes a word in brackets for a style and leaves it out, but for a backslash.
            assert not re.search(r"(?<!\\)\[[a-z]", text), (name, text)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("render check.json", "junit, markdown, github, sarif, gitlab (see `edgeprune render --"),
        ("diff HEAD", "'AFTER'. (see `edgeprune diff --help`)"),
        ("baseline accept --nope", "(see `edgeprune baseline accept --help`)"),
        ("nope", "(see `edgeprune --help`)"),
    ],
)
def test_wrong_usage_is_one_line_with_the_help_to_read(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
