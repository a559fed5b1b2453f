# SPDX-License-Identifier: Apache-2.0
"""A run as JSON, as a page, and in a terminal."""

from edgeprune.report.files import read_manifest, read_report, to_json, write_json
from edgeprune.report.page import markdown
from edgeprune.report.terminal import render_terminal

__all__ = ["markdown", "read_manifest", "read_report", "render_terminal", "to_json", "write_json"]
