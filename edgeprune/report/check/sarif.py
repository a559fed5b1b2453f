# SPDX-License-Identifier: Apache-2.0
"""A check's report as SARIF 2.1.0, as code scanning and editors read it."""

import json
import re
from typing import Any

from edgeprune.gate.judged import CheckReport, Judged, Rule
from edgeprune.report.check.rules import RULES
from edgeprune.report.check.words import advice, answer, fingerprints, uri
from edgeprune.report.text import plain

__all__ = ["sarif"]

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ORDER: tuple[Rule, ...] = tuple(RULES)


def sarif(report: CheckReport) -> str:
    """One run with a result for whatever didn't pass; every rule is described.

    What passed is left out: code scanning shows every result as an alert, whatever its kind is.
    """
    failed = set(map(id, report.failed))
    results = [
        _result(judged, name, level="error" if id(judged) in failed else "warning")
        for judged, name in zip(report.judged, fingerprints(report.judged), strict=True)
        if judged.outcome != "pass"
    ]
    run = {
        "tool": {"driver": _driver(report)},
        "invocations": [_invocation(report)],
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _driver(report: CheckReport) -> dict[str, Any]:
    return {
        "name": "edgeprune",
        "version": plain(report.edgeprune),
        "rules": [_rule(rule) for rule in _ORDER],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    told = RULES[rule]
    return {
        "id": rule,
        "name": told.name,
        "shortDescription": {"text": told.short},
        "fullDescription": {"text": told.full},
        "help": {"text": told.full.replace("`", "'"), "markdown": told.full},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": [rule.split("/")[0]]},
    }


def _invocation(report: CheckReport) -> dict[str, Any]:
    return {
        "executionSuccessful": True,
        "exitCode": 1 if report.failed else 0,
        "endTimeUtc": plain(report.when),
        "toolExecutionNotifications": [
            {"level": "note", "message": {"text": _message(note)}} for note in report.notes
        ],
        "properties": {"strict": report.strict, "answer": answer(report)},
    }


def _result(judged: Judged, name: str, *, level: str) -> dict[str, Any]:
    return {
        "ruleId": judged.rule,
        "ruleIndex": _ORDER.index(judged.rule),
        "level": level,
        "message": {"text": _message(advice(judged))},
        "locations": [{"physicalLocation": _location(judged)}],
        # Without the first GitHub makes its own from the line, which several artifacts share.
        "partialFingerprints": {"primaryLocationLineHash": f"{name}:1", "edgepruneCheck/v1": name},
        "properties": {"outcome": judged.outcome, "artifact": plain(judged.artifact)},
    }


def _location(judged: Judged) -> dict[str, Any]:
    """The line of the budget; else the artifact, which has no lines, and gets the first."""
    place = judged.place
    file = judged.artifact if place is None else place.file
    return {
        "artifactLocation": {"uri": uri(file)},
        "region": {"startLine": 1 if place is None else place.line},
    }


def _message(text: str) -> str:
    """Brackets in a message would make a link, and a backslash takes that from them."""
    return re.sub(r"([\\\[\]])", r"\\\1", plain(text))
