# SPDX-License-Identifier: Apache-2.0
"""A ticket in the place of pruning: its weights become zero, or its channels go for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from torch import nn

from edgeprune.channels import Groups, Policy, Totals, analyse, apply
from edgeprune.channels.groups import Bools
from edgeprune.context import Context
from edgeprune.errors import InputError, naming
from edgeprune.figure import Figure, counted
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import Mask, Ticket, read_ticket, removed_channels
from edgeprune.model import Event, Model
from edgeprune.recipe import PruneOptions, Recipe
from edgeprune.report.schema import StageReport
from edgeprune.tickets.start import check_start
from edgeprune.toml import Config
from edgeprune.workspace import file_hash

__all__ = [
    "Effect",
    "TicketInUse",
    "TicketUse",
    "as_stage",
    "effect",
    "mask_to_hold",
    "open_ticket",
    "use_ticket",
]

_NO_SPEED = (
    "zeros alone give no speed: ONNX Runtime and LiteRT store and multiply them like any weight; "
    "they help where a file is compressed, as in a download"
)


class TicketUse(Config):
    """All that the result of ``use_ticket`` depends on besides the model."""

    digest: str
    """sha256 of the ticket's file."""
    weights: Literal["model", "ticket"] = "model"
    attention: Literal["heads", "head_dim"] = "heads"
    grouped: Literal["channels", "groups"] = "channels"


@dataclass(frozen=True)
class TicketInUse:
    """A ticket that fits its model, and how it is used."""

    ticket: Ticket
    options: TicketUse
    name: str
    """Of its file."""

    @property
    def held(self) -> Mask | None:
        """What stays zero from here on; nothing where the channels are gone."""
        mask = self.ticket.mask
        return None if mask.about.structure == "channels" else mask

    def facts(self) -> dict[str, Any]:
        """What a report says of it, as JSON."""
        mask = self.ticket.mask
        return {
            "file": self.name,
            "method": mask.about.method,
            "structure": mask.about.structure,
            "density": mask.density,
            "zeros": mask.size - mask.kept,
            "covered": mask.size,
            "densities": mask.densities,
        }


@dataclass(frozen=True)
class Effect:
    """What a ticket does to its model."""

    removed: Bools | None
    """Of the channels, where it is by channels."""
    groups: Groups | None
    before: Totals
    after: Totals
    """By shapes: zeros change nothing here."""


def open_ticket(path: Path | None, recipe: Recipe, model: Model) -> TicketInUse | None:
    """Read a ticket and see that it fits; ``None`` where there is none.

    Raises:
        InputError: It can't be read, is for another network, or lacks the weights asked for.
    """
    if path is None:
        if recipe.ticket.weights == "ticket":
            raise InputError("the recipe's [ticket] wants a ticket's weights: name one, --ticket")
        return None
    ticket = read_ticket(path)
    options = TicketUse(
        digest=file_hash(path),
        weights=recipe.ticket.weights,
        attention=recipe.prune.attention,
        grouped=recipe.prune.grouped,
    )
    found = TicketInUse(ticket, options, path.name)
    with naming(path):
        if options.weights == "ticket":
            _check_own(ticket, model)
        effect(model, found)
    return found


def as_stage(
    path: Path, recipe: Recipe
) -> Callable[[Model, PruneOptions, Context], tuple[Model, StageReport]]:
    """What ``prune`` does with a ticket; for its errors see ``open_ticket``."""

    def stage(model: Model, _: PruneOptions, context: Context) -> tuple[Model, StageReport]:
        used = open_ticket(path, recipe, model)
        assert used is not None  # there is a path
        return use_ticket(used, model, used.options, context)

    return stage


def mask_to_hold(path: Path, model: Model) -> Mask:
    """What training ``model`` has to leave zero.

    Raises:
        InputError: The ticket can't be read, is for another network, or has no zeros to hold.
    """
    mask = read_ticket(path).mask
    with naming(path):
        if mask.about.structure == "channels":
            raise InputError(
                "is by channels, which `edgeprune prune --ticket` removes: there is nothing to hold"
            )
        mask.check(model)
    return mask


def use_ticket(
    used: TicketInUse, model: Model, options: TicketUse, context: Context
) -> tuple[Model, StageReport]:
    """The stage: ``model`` with zeros where the mask is, or without the channels that it removes.

    Raises:
        InputError: The ticket is for another network.
    """
    start, mask = perf_counter(), used.ticket.mask
    changes = effect(model, used)
    facts = {"method": mask.about.method, "density": mask.density}
    event = Event("ticket", options.model_dump(mode="json"), facts)
    notes: list[str] = []
    if options.weights == "ticket" and used.ticket.start is not None:
        model = with_state(model, used.ticket.start, event)
        notes.append("starts from the ticket's own weights, not from the model's")
    if changes.removed is not None and changes.groups is not None:
        result = apply(model, changes.groups, changes.removed, event)
    else:
        module = model.module()
        changed = _zero(module, mask)
        if changed:
            notes.append(
                f"{changed} of {mask.size - mask.kept} masked weights weren't zero before: the "
                "model is not one that was trained with this ticket"
            )
        result = with_state(model, read_state(module), event)
        notes.append(_NO_SPEED)
    report = StageReport(
        stage="ticket",
        seconds=perf_counter() - start,
        figures=_figures(mask),
        notes=(f"{used.name}: {mask.about.method}, {mask.about.structure}", *notes),
        details=used.facts(),
    )
    return result, report


def effect(model: Model, used: TicketInUse) -> Effect:
    """What ``use_ticket`` would do; nothing is edited.

    Raises:
        InputError: The ticket is for another network.
    """
    mask, options = used.ticket.mask, used.options
    groups = analyse(model, Policy(options.attention, options.grouped))
    if used.held is not None:
        mask.check(model)
        return Effect(None, None, groups.totals(), groups.totals())
    removed = removed_channels(groups, mask)
    for group in groups.groups:
        if removed[group.channels].all():
            raise InputError(f"the ticket leaves no channel of '{group.name}': nothing could flow")
    return Effect(removed, groups, groups.totals(), groups.totals(removed))


def _check_own(ticket: Ticket, model: Model) -> None:
    if ticket.start is None:
        raise InputError("the ticket has no weights of its own; the recipe's [ticket] wants them")
    check_start(ticket, model)


@torch.no_grad()
def _zero(module: nn.Module, mask: Mask) -> int:
    """Put the mask's zeros into the parameters; how many weren't zero."""
    changed = 0
    named = dict(module.named_parameters(remove_duplicate=False))
    for name, kept in mask.keep.items():
        changed += int((named[name][~kept] != 0).sum())
        named[name].masked_fill_(~kept, 0)
    return changed


def _figures(mask: Mask) -> dict[str, Figure]:
    how = "of the weights that the mask covers, living ones"
    return {"density": counted(100 * mask.density, "%", how)}
