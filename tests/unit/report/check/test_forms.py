# SPDX-License-Identifier: Apache-2.0
"""Each form of a check's report: as text, against its schema, and with names that mean harm."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from edgeprune.figure import Figure, counted
from edgeprune.gate.judged import CheckReport, Judged, Place, Rule
from edgeprune.gate.verdict import Outcome
from edgeprune.report.check import FORMS, badge, print_report, render
from edgeprune.report.check.rules import RULES
from edgeprune.report.check.words import answer, fingerprints, uri
from tests.unit.report.check import reports

ROOT = Path(__file__).parents[4]
SCHEMAS = ROOT / "tests" / "data" / "schemas"
SUFFIXES = {
    "terminal": "txt",
    "json": "json",
    "junit": "xml",
    "markdown": "md",
    "github": "txt",
    "sarif": "sarif",
    "gitlab": "json",
}
REPORTS: dict[str, Callable[[], CheckReport]] = {
    "mixed": reports.report,
    "passed": reports.passed,
    "empty": reports.empty,
}


@cache
def junit_schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(SCHEMAS / "junit-10.xsd")


@cache
def sarif_schema() -> jsonschema.Draft4Validator:
    text = (SCHEMAS / "sarif-schema-2.1.0.json").read_text(encoding="utf-8")
    return jsonschema.Draft4Validator(
        json.loads(text), format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER
    )


def shown(report: CheckReport, width: int, *, terminal: bool = False) -> str:
    page = StringIO()
    system = "standard" if terminal else None
    console = Console(
        file=page, width=width, force_terminal=terminal, color_system=system, legacy_windows=False
    )
    print_report(report, console)
    return page.getvalue()


def sarif_of(report: CheckReport) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(render(report, "sarif"))["runs"][0]
    return run


def check_all(report: CheckReport) -> None:
    """What must hold of every form, whatever the names are."""
    junit_schema().validate(render(report, "junit"))
    sarif = json.loads(render(report, "sarif"))
    assert list(sarif_schema().iter_errors(sarif)) == []
    for each in sarif["runs"][0]["results"]:
        assert URI.fullmatch(each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
    found = json.loads(render(report, "gitlab"))
    assert len({each["fingerprint"] for each in found}) == len(found)
    assert CheckReport.model_validate(json.loads(render(report, "json"))) == report
    for text in (badge(report), *(render(report, form) for form in FORMS)):
        assert text.encode("utf-8").endswith(b"\n")
    for line in render(report, "github").splitlines():
        assert COMMAND.fullmatch(line), line
    ElementTree.fromstring(badge(report))
    assert " ".join(render(report, "terminal").split()).endswith(answer(report))
    assert len(render(report, "markdown")) <= 65_536


URI = re.compile(r"(file:///)?([\w.~/-]|%[0-9A-F]{2})+", re.ASCII)
COMMAND = re.compile(
    r"::(error|warning|notice) (file=[^,:\r\n]+,(line=\d+,)?)?title=[^,:\r\n]+::[^\r\n]*"
)


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("form", FORMS)
def test_goldens(form: Any, name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"check/{name}-{form}.{SUFFIXES[form]}", render(REPORTS[name](), form))


@pytest.mark.parametrize("name", REPORTS)
def test_golden_badges(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"check/{name}-badge.svg", badge(REPORTS[name]()))


@pytest.mark.parametrize(
    ("width", "figure", "baseline"), [(100, True, True), (80, True, False), (72, False, False)]
)
def test_a_table_has_the_intervals_that_there_is_room_for(
    width: int, figure: bool, baseline: bool
) -> None:
    told = shown(reports.report(), width)
    rows = [line for line in told.splitlines() if line.startswith("pass ") and "latency" in line]
    assert [("(23.9 to 25.4)" in row, "(23.6 to 24.7)" in row) for row in rows] == [
        (figure, baseline)
    ]
    assert "outcome   " in told


def test_what_holds_of_several_files_and_limits_is_told_once() -> None:
    def missing(artifact: str, rule: Rule, line: int) -> Judged:
        return Judged(
            rule=rule,
            model="net",
            target="rpi4",
            artifact=artifact,
            outcome="not measured",
            reason="nothing is accepted.",
            place=Place(file="edgeprune.toml", line=line),
        )

    rules: tuple[tuple[Rule, int], ...] = (("baseline/size", 3), ("baseline/latency", 4))
    judged = [missing(f"{k}.onnx", rule, line) for k in range(6) for rule, line in rules]
    notes = ("0.onnx: can't be told.", "1.onnx: can't be told.", "a note")
    report = reports.passed().model_copy(update={"judged": tuple(judged), "notes": notes})
    told = " ".join(shown(report, 80).split())
    which = "net for rpi4: baseline/size, baseline/latency of"
    assert told.count("nothing is accepted") == 1
    assert f"{which} 0.onnx, 1.onnx, 2.onnx, 3.onnx and 2 more: nothing is accepted." in told
    assert "the limits stand in edgeprune.toml:3, edgeprune.toml:4" in told
    assert "- 0.onnx, 1.onnx: can't be told. - a note" in told


def test_golden_of_a_narrow_terminal(golden: Callable[[str, str], None]) -> None:
    text = shown(reports.report(strict=True), 80)
    assert max(map(len, text.splitlines())) <= 80
    golden("check/strict-80.txt", "\n".join(line.rstrip() for line in text.splitlines()) + "\n")


@pytest.mark.parametrize("name", REPORTS)
def test_what_holds_of_every_form(name: str) -> None:
    check_all(REPORTS[name]())


@pytest.mark.parametrize("name", reports.HOSTILE, ids=range(len(reports.HOSTILE)))
def test_names_that_mean_harm(name: str) -> None:
    check_all(reports.hostile(name))


TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(reports.HOSTILE))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
FIGURES = st.none() | st.builds(
    lambda value, unit, how, ends: Figure(
        value=value,
        unit=unit,
        origin=counted(0, "", how).origin,
        low=ends and min(ends),
        high=ends and max(ends),
    ),
    NUMBERS,
    st.sampled_from(["B", "s", "%", "points", "x", "J", "dB", ""]),
    TEXTS,
    st.none() | st.tuples(NUMBERS, NUMBERS),
)
JUDGED = st.builds(
    Judged,
    rule=st.sampled_from(Rule.__args__),  # type: ignore[attr-defined]
    model=st.none() | TEXTS,
    target=st.none() | TEXTS,
    artifact=TEXTS,
    outcome=st.sampled_from(Outcome.__args__),  # type: ignore[attr-defined]
    reason=TEXTS,
    unit=st.sampled_from(["B", "s", "points", ""]),
    figure=FIGURES,
    limit=st.none() | NUMBERS,
    baseline=FIGURES,
    blame=st.lists(TEXTS, max_size=2).map(tuple),
    place=st.none() | st.builds(Place, file=TEXTS, line=st.integers(1, 10**6)),
)
ANY = st.builds(
    CheckReport,
    judged=st.lists(JUDGED, max_size=4).map(tuple),
    strict=st.booleans(),
    notes=st.lists(TEXTS, max_size=2).map(tuple),
    when=st.just(reports.WHEN),
    edgeprune=TEXTS,
)


@given(ANY)
def test_any_report_is_valid_in_every_form(report: CheckReport) -> None:
    check_all(report)


def test_the_schemas_refuse_what_is_wrong() -> None:
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        junit_schema().validate(render(reports.report(), "junit").replace("classname", "class"))
    sarif = json.loads(render(reports.report(), "sarif"))
    sarif["runs"][0]["results"][0]["level"] = "fatal"
    assert [error.validator for error in sarif_schema().iter_errors(sarif)] == ["enum"]


def test_every_rule_has_its_help() -> None:
    assert set(RULES) == set(Rule.__args__)  # type: ignore[attr-defined]
    rules = sarif_of(reports.empty())["tool"]["driver"]["rules"]
    assert all(rule["help"]["text"] and rule["shortDescription"]["text"] for rule in rules)


@pytest.mark.parametrize("strict", [False, True])
def test_the_counts_of_junit(strict: bool) -> None:
    root = ElementTree.fromstring(render(reports.report(strict=strict), "junit"))
    suites = {suite.attrib["name"]: suite for suite in root}
    first = suites["classifier for rpi4"]
    counts = {key: first.attrib[key] for key in ("tests", "failures", "errors", "skipped")}
    expected = ("6", "4", "0", "0") if strict else ("6", "2", "0", "2")
    assert tuple(counts.values()) == expected
    assert suites["wakeword for stm32h7"].attrib["errors"] == "1"
    assert (root.attrib["tests"], root.attrib["errors"]) == ("8", "1")
    skipped = first.findall("testcase/skipped")
    assert all(
        "lies on both" in s.attrib["message"] or "not judged" in s.attrib["message"]
        for s in skipped
    )


def test_levels_of_sarif_and_severities_of_gitlab() -> None:
    levels = [r["level"] for r in sarif_of(reports.report())["results"]]
    assert levels == ["error", "warning", "warning", "error", "error"]
    severities = [e["severity"] for e in json.loads(render(reports.report(), "gitlab"))]
    assert severities == ["major", "minor", "info", "major", "critical"]
    strict = reports.report(strict=True)
    assert {r["level"] for r in sarif_of(strict)["results"]} == {"error"}
    assert sarif_of(strict)["invocations"][0]["exitCode"] == 1
    assert sarif_of(reports.passed())["invocations"][0]["exitCode"] == 0


def test_the_place_is_the_line_of_the_budget_else_the_artifact() -> None:
    places = [
        (each["location"]["path"], each["location"]["lines"]["begin"])
        for each in json.loads(render(reports.report(), "gitlab"))
    ]
    assert places[0] == ("edgeprune.toml", 12)
    assert places[-1] == ("dist/stm32h7/model_int8.tflite", 1)
    lines = render(reports.report(), "github").splitlines()
    assert lines[0].startswith("::error file=edgeprune.toml,line=12,title=")
    assert lines[2].startswith("::error file=dist/stm32h7/model_int8.tflite,title=")


def test_fingerprints_stay_when_figures_change_and_are_never_equal() -> None:
    one = reports.judged()[0]
    changed = one.model_copy(update={"reason": "another", "limit": 1.0, "place": None})
    assert fingerprints([one]) == fingerprints([changed])
    assert len(set(fingerprints([one, one, *reports.judged()]))) == 2 + len(reports.judged())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dist/a model#1.onnx", "dist/a%20model%231.onnx"),
        ("./a.onnx", "a.onnx"),
        ("c:d", "c%3Ad"),
        ("/tmp/\u00fc", "file:///tmp/%C3%BC"),
        ("../up", "../up"),
    ],
)
def test_uris(path: str, expected: str) -> None:
    assert uri(path) == expected


def test_colours_are_for_terminals() -> None:
    report = reports.report()
    assert "\x1b[" in shown(report, 100, terminal=True)
    assert "\x1b[" not in shown(report, 100)
    assert "\x1b" not in render(report, "terminal")


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for name in reports.HOSTILE:
        text = shown(reports.hostile(name), width)
        assert max(cell_len(line) for line in text.split("\n")) <= width


def test_a_log_is_given_no_orders() -> None:
    """GitHub carries out what a line of a log begins with, or holds behind two hashes."""
    for name in reports.HOSTILE:
        for line in render(reports.hostile(name), "terminal").splitlines():
            assert not line.lstrip().startswith("::")
            assert "##[" not in line


@pytest.mark.parametrize("name", reports.HOSTILE, ids=range(len(reports.HOSTILE)))
def test_nothing_in_markdown_is_markup(name: str) -> None:
    """A parser of its own finds our tags, rows and bold words, and none of the names'."""
    text = render(reports.hostile(name), "markdown")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {child.type for child in inline}
    assert kinds <= {"text", "html_inline", "strong_open", "strong_close", "softbreak"}
    tags = {child.content for child in inline if child.type == "html_inline"}
    assert tags <= {"<code>", "</code>", "<sub>", "</sub>"}
    blocks = {
        token.content.split("<summary>")[0].strip()
        for token in tokens
        if token.type == "html_block"
    }
    assert blocks <= {"<details>", "</details>", ""}
    assert sum(token.type == "tr_open" for token in tokens) == 2 + 5
    assert sum(token.type in ("th_open", "td_open") for token in tokens) == 7 * (2 + 5)


def test_markdown_calls_nobody_and_links_nowhere() -> None:
    text = render(reports.hostile("@all #12 !3 &4 https://g.org www.g.org"), "markdown")
    seen = html.unescape(re.sub(r"<code>.*?</code>", "", text))
    assert re.search(r"[@#!&]\w", seen) is None
    assert "://" not in text
    assert "www.g" not in text


def test_a_long_report_says_what_markdown_leaves_out() -> None:
    row = reports.judged()[0]
    text = render(reports.report(*[row] * 2000), "markdown")
    assert len(text) < 65_536
    assert re.search(r"… and 1\d\d\d more\.", text)
    assert "of 2000 checks 2000 failed" in text


def test_annotations_that_github_hides_are_counted() -> None:
    row = reports.judged()[0]
    lines = render(reports.report(*[row] * 14), "github").splitlines()
    assert sum(line.startswith("::error ") for line in lines) == 14
    assert "4 more than GitHub shows" in lines[-1]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (
            reports.empty(),
            "nothing was judged: no budget, baseline or manifest applies to these files",
        ),
        (reports.passed(), "passed: all 3 checks passed"),
        (reports.report(reports.judged()[5]), "passed: the one check passed"),
        (
            reports.report(),
            "FAILED: of 8 checks 3 failed, 1 inconclusive, 1 not measured, 3 passed",
        ),
        (reports.report(reports.judged()[1]), "passed with warnings: of 1 check 1 inconclusive"),
        (
            reports.report(reports.judged()[1], strict=True),
            "FAILED: of 1 check 1 inconclusive (what is not decided fails with --strict)",
        ),
    ],
)
def test_answers(report: CheckReport, expected: str) -> None:
    assert answer(report) == expected


def test_a_badge_shows_the_largest_of_several_and_nothing_that_is_absent() -> None:
    assert "size \u2264 2.31 MB" in badge(reports.report())
    one = badge(reports.report(*reports.judged()[:3]))
    assert ">size 2.31 MB<" in one
    assert ">latency 24.6 ms<" in one
    assert "latency" not in badge(reports.report(reports.judged()[0])).split("</title>")[1]
    assert "nothing judged" in badge(reports.empty())


def test_it_needs_neither_torch_nor_matplotlib() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "ai_edge_litert", "scipy", "matplotlib")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))\nimport edgeprune.report.check\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
