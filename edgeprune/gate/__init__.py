# SPDX-License-Identifier: Apache-2.0
"""Budgets in, verdicts out."""

from edgeprune.gate.budgets import judge, merge, overall, passed
from edgeprune.gate.verdict import Outcome, Verdict

__all__ = ["Outcome", "Verdict", "judge", "merge", "overall", "passed"]
