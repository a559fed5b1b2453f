# SPDX-License-Identifier: Apache-2.0
"""Channel analysis: which parts of which parameters must live or die together.

``analyse(model)`` gives the groups; ``find_branches(model, groups)`` the residual branches;
``apply(model, groups, removed, event, branches)`` takes channels and branches out.

Nothing is run and nothing trained; shapes alone tell what each group costs::

    import torch
    from torch import nn

    from edgeprune.channels import analyse, apply
    from edgeprune.model import Event, capture

    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3))
    model, notes = capture(net, (torch.rand(2, 3, 32, 32),), event=Event("capture"))

    groups = analyse(model)
    for group in groups.groups:
        print(group.name, group.size, group.members, group.macs, group.renormalises)
    for frozen in groups.frozen:
        print(f"{frozen.name}[{frozen.dim}]: {frozen.cause}, by {frozen.node}")

    removed = groups.keep_all()
    removed[groups.groups[0].channels[::2]] = True  # every second one
    print(groups.totals(), groups.totals(removed))
    smaller = apply(model, groups, removed, Event("prune"))

``smaller`` computes what ``masked(model, groups, removed)`` computes, except behind a node that a
group ``renormalises``.
"""

from edgeprune.channels.branches import Branch, cut, find_branches, without
from edgeprune.channels.computed import Computed, evaluate, find_computed
from edgeprune.channels.groups import Frozen, Group, Groups, Totals, analyse
from edgeprune.channels.policy import Policy
from edgeprune.channels.surgery import apply, masked
from edgeprune.model import Model

__all__ = [
    "Branch",
    "Computed",
    "Frozen",
    "Group",
    "Groups",
    "Policy",
    "Totals",
    "analyse",
    "apply",
    "cut",
    "evaluate",
    "find_branches",
    "find_computed",
    "macs",
    "masked",
    "without",
]


def macs(model: Model) -> int:
    """Multiply-accumulates of one sample, from shapes alone: convolutions, linear layers, matrix
    products and attention."""
    return analyse(model).totals().macs
