# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: importance, a printable plan, and the stage that carries it out."""

from edgeprune.prune.depth import BranchPlan
from edgeprune.prune.plan import GroupPlan, PrunePlan
from edgeprune.prune.stage import plan, prune

__all__ = ["BranchPlan", "GroupPlan", "PrunePlan", "plan", "prune"]
