# SPDX-License-Identifier: Apache-2.0
"""The answer to one budget."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeprune.figure import Figure

__all__ = ["Outcome", "Verdict"]

Outcome = Literal["pass", "fail", "inconclusive", "not measured"]


class Verdict(BaseModel):
    """One budget of one artifact: the limit, the figure where there is one, and the outcome."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: Literal["size", "latency", "memory", "drop"]
    artifact: str
    limit: float
    unit: str
    outcome: Outcome
    figure: Figure | None
    reason: str
    """One sentence a person can act on."""
