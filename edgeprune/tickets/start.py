# SPDX-License-Identifier: Apache-2.0
"""A network at the weights that a ticket starts from."""

from __future__ import annotations

from edgeprune.errors import InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import Ticket
from edgeprune.model import Event, Model

__all__ = ["check_start", "started"]


def check_start(ticket: Ticket, model: Model) -> None:
    """Refuse weights to start from that can't be those of ``model``; a ticket may have none.

    Raises:
        InputError: They are of another network, or parameters aren't finite.
    """
    if ticket.start is None:
        return
    for name, value in read_state(model.module()).items():
        found = ticket.start.get(name)
        if found is None or found.shape != value.shape:
            told = "none" if found is None else f"shape {tuple(found.shape)}"
            raise InputError(
                f"the weights that it starts from are of another network: '{name}' has "
                f"shape {tuple(value.shape)} in the model, {told} in the ticket; `edgeprune "
                "ticket apply` carries it over"
            )
    for name in model.program.graph_signature.parameters:
        if not bool(ticket.start[name].isfinite().all()):
            raise InputError(
                f"the weights that it starts from hold NaN or infinity, in '{name}'; find the "
                "ticket again, from a model of finite numbers"
            )


def started(model: Model, ticket: Ticket) -> Model:
    """The model with the weights that the ticket starts from, which ``check_start`` has let pass;
    its own where it has none."""
    if ticket.start is None:
        return model
    return with_state(
        model, ticket.start, Event("ticket", {}, {"method": ticket.mask.about.method})
    )
