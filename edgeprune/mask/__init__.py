# SPDX-License-Identifier: Apache-2.0
"""Masks: which weights live, how they stay so in training, and their file."""

from edgeprune.mask.channels import channel_mask, removed_channels
from edgeprune.mask.hold import Held
from edgeprune.mask.layers import Layer, Network, look
from edgeprune.mask.mask import About, Mask, Structure
from edgeprune.mask.store import Ticket, read_ticket, write_ticket

__all__ = [
    "About",
    "Held",
    "Layer",
    "Mask",
    "Network",
    "Structure",
    "Ticket",
    "channel_mask",
    "look",
    "read_ticket",
    "removed_channels",
    "write_ticket",
]
