# SPDX-License-Identifier: Apache-2.0
"""Reduced numerics: what a target's runtimes accept, static int8, rounded weights."""

from edgeprune.quantize.blockers import static_blockers
from edgeprune.quantize.choose import Choice, candidates, decide
from edgeprune.quantize.stage import check_halves, quantize

__all__ = ["Choice", "candidates", "check_halves", "decide", "quantize", "static_blockers"]
