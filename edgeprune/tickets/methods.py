# SPDX-License-Identifier: Apache-2.0
"""Which function finds the tickets of which method; ``catalogue`` says what each does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeprune.context import Context
from edgeprune.model import Model
from edgeprune.tickets.at_init import grasp, ntk_sap, random, snip, synflow
from edgeprune.tickets.dynamic import find_rigl, find_set
from edgeprune.tickets.early_bird import find_early_bird
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.gradual import find_gradual, find_one_shot
from edgeprune.tickets.imp import find_imp
from edgeprune.tickets.options import Method, TicketOptions

__all__ = ["FIND", "Find"]

Find = Callable[[Model, TicketOptions, Context, Work], Found]

FIND: Mapping[Method, Find] = {
    "imp": find_imp,
    "gradual": find_gradual,
    "one-shot": find_one_shot,
    "snip": snip.find,
    "grasp": grasp.find,
    "synflow": synflow.find,
    "ntk-sap": ntk_sap.find,
    "random": random.find,
    "early-bird": find_early_bird,
    "set": find_set,
    "rigl": find_rigl,
}
