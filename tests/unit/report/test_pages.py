# SPDX-License-Identifier: Apache-2.0
import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from edgeprune.report import markdown, render_terminal
from edgeprune.report.schema import RunReport
from edgeprune.report.view import view
from tests.unit.report import reports

Golden = Callable[[str, str], None]

REPORTS = {
    "full": reports.full(),
    "elsewhere": reports.full(device_measured=False),
    "bare": reports.bare(),
    "reached": reports.reached(),
}


def printed(report: RunReport, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    render_terminal(report, console)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("name", REPORTS)
def test_page(name: str, golden: Golden) -> None:
    golden(f"report/{name}.md", markdown(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_terminal(name: str, golden: Golden) -> None:
    golden(f"report/{name}.txt", printed(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_terminal_cuts_nothing(name: str, width: int) -> None:
    text = printed(REPORTS[name], width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for section in view(REPORTS[name]):
        if section.table is not None and not section.only_page:
            figures = (cell.partition(" (")[0] for row in section.table.rows for cell in row)
            assert all(figure in text for figure in figures)  # none is taken from its unit


def test_the_answer_comes_first() -> None:
    title, _, summary, _, rest = markdown(REPORTS["full"]).split("\n", 4)
    assert title == "# resnet.pt2 for board: NO"
    assert summary == (
        "of 8 budgets: 2 failed (size of model.tflite, latency of model.tflite); 1 not measured "
        "(drop of model.tflite); 1 inconclusive (latency of model.onnx); 4 met."
    )
    assert "| size | model.onnx | 100 kB | 98.6 kB | yes |" in rest
    assert "| size | model.tflite | 100 kB | 105 kB | NO |" in rest


def test_what_is_absent_is_a_dash_with_its_reason() -> None:
    page = markdown(REPORTS["bare"])
    assert "| load | \u2013 | 950 | 12 k | 3.8 kB | \u2013 |" in page
    assert "- \u2013 in accuracy: nothing was evaluated, for want of data." in page
    assert "- \u2013 in latency: only files are run on a device's runtime." in page
    assert "accuracy: no data was given" in page


@pytest.mark.parametrize(
    ("kept", "answer"),
    [
        ({"pass"}, "yes"),
        ({"pass", "inconclusive"}, "yes, with a warning"),
        ({"pass", "inconclusive", "not measured"}, "not all measured"),
        ({"pass", "fail", "not measured"}, "NO"),
        (set(), "not judged"),
    ],
)
def test_the_title_is_the_worst_of_the_verdicts(kept: set[str], answer: str) -> None:
    report = REPORTS["full"]
    verdicts = tuple(v for v in report.verdicts if v.outcome in kept)
    page = markdown(report.model_copy(update={"verdicts": verdicts}))
    assert page.startswith(f"# resnet.pt2 for board: {answer}\n")


def test_a_slower_artifact_is_called_slower() -> None:
    page = markdown(REPORTS["full"])
    assert "model.tflite is slower than the dense file here." in page
    assert "| 2.22x (2.02 to 2.47) |" in page


HOSTILE = (
    "a|b",
    "**bold**",
    "<script>alert(1)</script>",
    "[link](http://x)",
    "`code`",
    "_em_ snake_case_name",
    "# title",
    "two\nlines",
    "[red]rich[/red]",
    "[/]",
    "esc\x1b[31m",
    "~~gone~~",
    "&amp;",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_never_turn_into_markup(name: str) -> None:
    base = REPORTS["full"]
    first = base.stages[0].model_copy(update={"stage": name, "notes": (name,)})
    report = base.model_copy(
        update={
            "model": name,
            "stages": (first, *base.stages[1:]),
            "profile": {name: base.profile["model.onnx"], **base.profile},
            "not_measured": (name,),
        }
    )
    page = markdown(report)
    tables = [line for line in page.splitlines() if line.startswith("| ")]
    ordinary = [line for line in markdown(base).splitlines() if line.startswith("| ")]
    assert {_cells(line) for line in tables} == {_cells(line) for line in ordinary}
    assert "\x1b" not in page
    assert not re.search(r"(?<!\\)[*`<>~\[\]|]", page.splitlines()[0])
    text = printed(report)
    assert "\x1b" not in text
    shown = " ".join(name.replace("\x1b", " ").split())
    assert shown in text.replace("\n", " ")


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def test_underscores_inside_words_are_left_readable() -> None:
    report = REPORTS["bare"].model_copy(update={"model": "my_net_2.pt2"})
    assert markdown(report).startswith("# my_net_2.pt2 for board")
