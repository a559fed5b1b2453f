# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket``: sparse training; which weights can go, and training without them."""

import typer

from edgeprune.cli.ticket.carry import add_to as add_carry
from edgeprune.cli.ticket.find import add_to as add_find
from edgeprune.cli.ticket.lens import add_to as add_lens
from edgeprune.cli.ticket.look import add_to as add_look
from edgeprune.cli.ticket.train import add_to as add_train

__all__ = ["app"]

app = typer.Typer(
    help="Sparse training: find which weights a network can do without, and train it without them.",
    no_args_is_help=True,
)
for add_to in (add_find, add_train, add_carry, add_look, add_lens):
    add_to(app)
