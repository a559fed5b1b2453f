# SPDX-License-Identifier: Apache-2.0
"""A check's report as JUnit's XML, as Jenkins, GitLab and others read it."""

from collections.abc import Sequence
from xml.etree import ElementTree

from edgeprune.gate.judged import CheckReport, Judged
from edgeprune.report.check.words import limit, owners, summary
from edgeprune.report.text import plain, show, spread

__all__ = ["junit"]


def junit(report: CheckReport) -> str:
    """One test suite for each model and target, one case for each rule and artifact.

    A case fails where a limit is broken, is an error where its file is missing, and is skipped
    where nothing could be decided; with ``strict`` that is a failure.
    """
    root = ElementTree.Element("testsuites", {"name": "edgeprune check"})
    failed = set(map(id, report.failed))
    for name, places in owners(report).items():
        cases = [
            _case(name, report.judged[place], failed=id(report.judged[place]) in failed)
            for place in places
        ]
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": name, **_counts(cases), "timestamp": plain(report.when)}
        )
        suite.append(_properties(report))
        suite.extend(cases)
    suites = root.findall("testsuite")
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.attrib[key]) for suite in suites)))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _counts(cases: Sequence[ElementTree.Element]) -> dict[str, str]:
    def count(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    return {
        "tests": str(len(cases)),
        "failures": count("failure"),
        "errors": count("error"),
        "skipped": count("skipped"),
    }


def _properties(report: CheckReport) -> ElementTree.Element:
    properties = ElementTree.Element("properties")
    values = [("edgeprune", report.edgeprune), ("strict", str(report.strict).lower())]
    values += [("note", note) for note in report.notes]
    for name, value in values:
        ElementTree.SubElement(properties, "property", {"name": name, "value": plain(value)})
    return properties


def _case(name: str, judged: Judged, *, failed: bool) -> ElementTree.Element:
    # A dot in a class name is read as a package, so those of versions and files go.
    group = name.replace(".", "_")
    case = ElementTree.Element(
        "testcase",
        {
            "name": f"{judged.rule} of {plain(judged.artifact)}",
            "classname": f"edgeprune.{group}",
        },
    )
    if judged.outcome == "pass":
        ElementTree.SubElement(case, "system-out").text = _details(judged)
        return case
    missing = judged.rule == "integrity/missing" and judged.outcome == "fail"
    tag = "error" if missing else "failure" if failed else "skipped"
    kind = judged.rule if judged.outcome == "fail" else f"{judged.rule}: {judged.outcome}"
    told = ElementTree.SubElement(case, tag, {"type": kind, "message": plain(judged.reason)})
    told.text = _details(judged)
    return case


def _details(judged: Judged) -> str:
    lines = [summary(judged)]
    if judged.figure is not None:
        lines.append(f"figure: {spread(judged.figure)} ({plain(judged.figure.origin.how)})")
    if judged.limit is not None:
        lines.append(f"limit: {limit(judged)}")
    if judged.baseline is not None:
        lines.append(f"baseline: {show(judged.baseline)}")
    if judged.place is not None:
        lines.append(f"the limit stands in {plain(judged.place.file)}, line {judged.place.line}")
    return "\n".join(lines)
