# SPDX-License-Identifier: Apache-2.0
"""What a check found, as people and as services read it."""

from edgeprune.report.check.badge import badge
from edgeprune.report.check.plots import Point, plot
from edgeprune.report.check.render import FORMS, Form, render
from edgeprune.report.check.terminal import print_report

__all__ = ["FORMS", "Form", "Point", "badge", "plot", "print_report", "render"]
