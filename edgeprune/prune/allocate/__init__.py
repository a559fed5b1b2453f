# SPDX-License-Identifier: Apache-2.0
"""How many channels of each group stay, so that a goal is met: one file a scope, and one list.

A scope tells for each group the loss at each width that it may have; ``search`` does the rest.
"""

from edgeprune.prune.allocate.costs import Costs, Widths
from edgeprune.prune.allocate.scopes import SCOPES, Scoped
from edgeprune.prune.allocate.search import TOLERANCE, Goal, Ladder, ladder_widths, meet

__all__ = [
    "SCOPES",
    "TOLERANCE",
    "Costs",
    "Goal",
    "Ladder",
    "Scoped",
    "Widths",
    "ladder_widths",
    "meet",
]
