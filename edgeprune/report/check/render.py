# SPDX-License-Identifier: Apache-2.0
"""A check's report in the form that is asked for."""

import json
import re
from collections.abc import Callable
from typing import Literal, get_args

from edgeprune.gate.judged import CheckReport
from edgeprune.report.check.github import github
from edgeprune.report.check.gitlab import gitlab
from edgeprune.report.check.junit import junit
from edgeprune.report.check.markdown import markdown
from edgeprune.report.check.sarif import sarif
from edgeprune.report.check.terminal import terminal

__all__ = ["FORMS", "Form", "render"]

Form = Literal["terminal", "json", "junit", "markdown", "github", "sarif", "gitlab"]
FORMS: tuple[Form, ...] = get_args(Form)


def _json(report: CheckReport) -> str:
    """Sorted keys, so that equal reports are equal text."""
    data = report.model_dump()
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if re.search("[\ud800-\udfff]", text):
        # Bytes of a file's name that are no UTF-8, which only an escape can hold.
        text = json.dumps(data, indent=2, sort_keys=True, allow_nan=False)
    return f"{text}\n"


_RENDERERS: dict[Form, Callable[[CheckReport], str]] = {
    "terminal": terminal,
    "json": _json,
    "junit": junit,
    "markdown": markdown,
    "github": github,
    "sarif": sarif,
    "gitlab": gitlab,
}


def render(report: CheckReport, form: Form) -> str:
    """The report as text that ends with a newline; equal text for equal reports.

    ``terminal`` is 100 columns wide and without colours; on a real terminal use ``print_report``.
    """
    return _RENDERERS[form](report)
