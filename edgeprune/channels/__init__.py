# SPDX-License-Identifier: Apache-2.0
"""Channel analysis: which parts of which parameters must live or die together.

``analyse(model)`` gives the groups; ``apply(model, groups, removed, event)`` takes channels out.
"""

from edgeprune.channels.groups import Frozen, Group, Groups, Totals, analyse
from edgeprune.channels.surgery import apply, masked
from edgeprune.model import Model

__all__ = ["Frozen", "Group", "Groups", "Totals", "analyse", "apply", "macs", "masked"]


def macs(model: Model) -> int:
    """Multiply-accumulates of one sample, from shapes alone: convolutions, linear layers, matrix
    products and attention."""
    return analyse(model).totals().macs
