# SPDX-License-Identifier: Apache-2.0
"""What every method of finding a ticket gives, and where it may work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.mask import About, Mask, Ticket
from edgeprune.model import Event, Model
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import TicketOptions

__all__ = ["Found", "Work", "about", "event"]


@dataclass(frozen=True)
class Found:
    """A ticket, what it cost, and what its method has to say."""

    ticket: Ticket
    """The mask and the weights to start from (``None``: those of the model as given)."""
    ledger: Ledger
    """What finding cost and, where ``trained`` is given, training."""
    trained: Model | None = None
    """Where the method ends with a trained sparse network: with the mask's zeros in it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able, the method's own: levels, epochs, distances."""
    notes: tuple[str, ...] = ()
    """Layer collapse, what was skipped."""


@dataclass(frozen=True)
class Work:
    """Where a method keeps what a killed run needs to go on."""

    folder: Path
    key: str
    """Of the run: a checkpoint of another run is not taken up."""

    def path(self, name: str) -> Path:
        """The file of a checkpoint."""
        return self.folder / name


def about(model: Model, options: TicketOptions, seed: int, **facts: Any) -> About:
    """Where a mask of unstructured weights, or of a pattern N:M, comes from."""
    return About(
        method=options.method,
        seed=seed,
        model=model.fingerprint(),
        structure="n:m" if options.pattern else "unstructured",
        facts={"options": options.model_dump(mode="json"), **facts},
    )


def event(options: TicketOptions, mask: Mask, **facts: Any) -> Event:
    """The entry in the history of a model that was trained with a mask."""
    return Event("ticket", options.model_dump(mode="json"), {"density": mask.density, **facts})
