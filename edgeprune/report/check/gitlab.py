# SPDX-License-Identifier: Apache-2.0
"""A check's report as GitLab's Code Quality JSON."""

import json
from typing import Any

from edgeprune.gate.judged import CheckReport, Judged
from edgeprune.report.check.words import advice, fingerprints, path

__all__ = ["gitlab"]


def gitlab(report: CheckReport) -> str:
    """A list of what didn't pass, each at its budget's line, else at line 1 of its artifact."""
    failed = set(map(id, report.failed))
    found = [
        _finding(judged, name, failed=id(judged) in failed)
        for judged, name in zip(report.judged, fingerprints(report.judged), strict=True)
        if judged.outcome != "pass"
    ]
    return json.dumps(found, indent=2) + "\n"


def _finding(judged: Judged, name: str, *, failed: bool) -> dict[str, Any]:
    place = judged.place
    return {
        "description": advice(judged),
        "check_name": judged.rule,
        "fingerprint": name,
        "severity": _severity(judged, failed=failed),
        "location": {
            "path": path(judged.artifact if place is None else place.file),
            "lines": {"begin": 1 if place is None else place.line},
        },
    }


def _severity(judged: Judged, *, failed: bool) -> str:
    if failed:
        return "critical" if judged.rule.startswith("integrity/") else "major"
    return "minor" if judged.outcome == "inconclusive" else "info"
