# SPDX-License-Identifier: Apache-2.0
"""The table of rules, one small function per operator; an operator without one freezes."""

from edgeprune.channels.op import Rule
from edgeprune.channels.rules import contract, einsum, join, layout, norm, pick, recurrent, window
from edgeprune.channels.rules import pointwise as elementwise

__all__ = ["RULES", "pointwise"]

pointwise = elementwise.pointwise

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **contract.RULES,
    **einsum.RULES,
    **recurrent.RULES,
    **norm.RULES,
    **layout.RULES,
    **window.RULES,
    **join.RULES,
    **pick.RULES,
}
"""By the operator's name without namespace and overload."""
