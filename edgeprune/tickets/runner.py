# SPDX-License-Identifier: Apache-2.0
"""Finding and training tickets over files: one result, whole or not there, that a kill can't hurt.

The page to read first of this room: ``find`` opens model and data, lets a method of ``methods.py``
find a ticket, and writes it; ``train`` trains the network of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError, naming
from edgeprune.finetune import read_state
from edgeprune.mask import Ticket, look, read_ticket, write_ticket
from edgeprune.model import Event, save
from edgeprune.progress import Progress
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.catalogue import CATALOGUE, used_options
from edgeprune.tickets.controls import CONTROLS
from edgeprune.tickets.files import (
    READY,
    Begun,
    Task,
    begin,
    check_places,
    common,
    done_before,
    identity,
    one_training,
    publish,
    ready,
    samples_of,
    scores,
)
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.methods import FIND
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.report import (
    TicketReport,
    cost_figures,
    layer_reports,
    mask_figures,
    uncovered,
)
from edgeprune.tickets.start import check_start, started
from edgeprune.tickets.training import Training
from edgeprune.workspace import chain, file_hash, kept

__all__ = ["FindTask", "TrainTask", "find", "find_places", "train"]


@dataclass(frozen=True)
class FindTask(Task):
    """Find a ticket and write it to ``output``."""

    options: TicketOptions = field(default_factory=TicketOptions)
    trained: Path | None = None
    """Where the trained network goes, if the method ends with one."""


@dataclass(frozen=True)
class TrainTask(Task):
    """Train the network of a ticket and write it to ``output``."""

    ticket: Path = Path()
    control: str | None = None
    """One of ``CONTROLS``, trained in place of the ticket itself."""
    options: FinetuneOptions = field(default_factory=lambda: TicketOptions().train)


def find(task: FindTask, progress: Progress) -> TicketReport:
    """Find a ticket; write it, its report and, where asked, the trained network.

    Raises:
        InputError: The model, the data, an option or an output can't be used.
        KeyboardInterrupt: Ctrl-C; ``resume`` goes on from there.
    """
    places = find_places(task)
    begun = begin(task, task.options, progress)
    facts = used_options(task.options)
    about = identity(begun, task, facts)
    key = chain("find", about)
    done = done_before(places, key, task, progress)
    if done is not None:
        return done
    with kept(task.output, about, resume=task.resume) as folder:
        if not (folder / READY).exists():
            context = replace(begun.context, folder=folder)
            progress.say(f"> find: {task.options.method}")
            found = FIND[task.options.method](begun.model, task.options, context, Work(folder, key))
            ticket = _complete(found.ticket, begun, task, facts)
            write_ticket(folder / "ticket", ticket)
            if found.trained is not None and "trained" in places:
                save(found.trained, folder / "trained")
            report = _find_report(task, begun, replace(found, ticket=ticket), key, places)
            ready(folder, report)
        return publish(folder, places)


def train(task: TrainTask, progress: Progress) -> TicketReport:
    """Train a ticket's network from the ticket's own start, zeros held; write it and its report.

    A ticket without weights of its own starts from those of the model.

    Raises:
        InputError: The model, the ticket, the data or the output can't be used.
        KeyboardInterrupt: Ctrl-C; ``resume`` goes on from there.
    """
    places = {"trained": task.output, "report": task.output.with_suffix(".json")}
    check_places(places, task, ".pt2")
    ticket = read_ticket(task.ticket)
    begun = begin(task, None, progress)
    start = _begins(ticket, task.control)
    with naming(task.ticket):
        ticket.mask.check(begun.given)
        check_start(ticket, begun.given)
        if task.control is not None:
            ticket = CONTROLS[task.control](ticket, begun.given, task.seed)
    begun = replace(begun, model=started(begun.given, ticket))
    facts: dict[str, Any] = {
        f"train.{k}": v for k, v in task.options.model_dump(mode="json").items()
    }
    facts |= {"ticket": file_hash(task.ticket), "control": task.control}
    about = identity(begun, task, facts)
    key = chain("train", about)
    done = done_before(places, key, task, progress)
    if done is not None:
        return done
    with kept(task.output, about, resume=task.resume) as folder:
        if not (folder / READY).exists():
            inside = replace(begun, context=replace(begun.context, folder=folder))
            _train(task, ticket, inside, key, start)
        return publish(folder, places)


def find_places(task: FindTask) -> dict[str, Path]:
    """Where the files of ``find`` go.

    Raises:
        InputError: One can't go there, or ``trained`` is named and nothing is trained.
    """
    places = {"ticket": task.output, "report": task.output.with_suffix(".json")}
    method = task.options.method
    if task.trained is not None and not CATALOGUE[method].trains:
        raise InputError(
            f"--trained: {method} only finds a mask and trains nothing; `edgeprune ticket train` "
            "trains it"
        )
    if task.trained is not None and (task.data is None or task.options.train.epochs == 0):
        why = "no --data is given" if task.data is None else "--epochs is 0"
        raise InputError(f"--trained: {why}, so nothing is trained; leave it out")
    if task.trained is not None:
        places["trained"] = task.trained
    elif method == "early-bird":
        places["trained"] = task.output.with_suffix(".pt2")
    check_places(places, task, ".safetensors")
    return places


def _complete(ticket: Ticket, begun: Begun, task: FindTask, facts: Mapping[str, Any]) -> Ticket:
    """The ticket with the options that its method used and, if drawn anew, with its weights."""
    about = ticket.mask.about
    told = {**about.facts, "options": dict(facts), "source": begun.given.fingerprint()}
    if begun.context.data is not None:
        told["data"] = begun.context.data.name
    mask = replace(ticket.mask, about=replace(about, facts=told))
    start = ticket.start
    if start is None and task.options.fresh:
        start = read_state(begun.model.module())
    return Ticket(mask, start)


def _find_report(
    task: FindTask, begun: Begun, found: Found, key: str, places: Mapping[str, Path]
) -> TicketReport:
    mask, context, options = found.ticket.mask, begun.context, task.options
    notes = (*begun.notes, *found.notes, *uncovered(begun.given, mask, options.exclude))
    figures = mask_figures(mask)
    if found.trained is not None:
        figures |= scores(found.trained, begun, options.train)
        if "trained" not in places:
            notes = (*notes, "the trained network was not kept; --trained FILE.pt2 writes it")
    samples = None
    if context.data is not None:
        samples = samples_of(options.train, begun.model, context.data, context)
    budget = one_training(options.train)
    return TicketReport(
        command="find",
        method=options.method,
        options=used_options(options),
        figures=figures | cost_figures(found.ledger, samples, budget),
        layers=layer_reports(look(begun.given), mask),
        details=dict(found.details),
        notes=notes,
        **common(task, begun, key, places),
    )


def _begins(ticket: Ticket, control: str | None) -> str:
    """What the training of a ticket, or of its control, starts from, in words."""
    own = "the ticket's own weights" if ticket.start else "the weights of the model"
    if control == "reinitialised":
        return "newly drawn weights"
    return f"{own}, shuffled within each layer" if control == "shuffled" else own


def _train(task: TrainTask, ticket: Ticket, begun: Begun, key: str, start: str) -> None:
    context, folder, options = begun.context, begun.context.folder, task.options
    context.progress.say("> train")
    network = look(begun.given)
    ledger = Ledger(network)
    training = Training(
        begun.model, options, context, ledger, mask=ticket.mask, title="ticket train"
    )
    training.run(checkpoint=folder / "train.pt", key=key)
    facts = {"density": ticket.mask.density, "seed": task.seed}
    trained = training.trained(Event("ticket-train", options.model_dump(mode="json"), facts))
    save(trained, folder / "trained")
    samples = samples_of(options, begun.model, training.data, context)
    figures = mask_figures(ticket.mask) | scores(trained, begun, options)
    budget = one_training(options)
    control = () if task.control is None else (f"not the ticket, but its control {task.control}",)
    places = {"trained": task.output, "report": task.output.with_suffix(".json")}
    report = TicketReport(
        command="train",
        method=ticket.mask.about.method,
        options={f"train.{k}": v for k, v in options.model_dump(mode="json").items()},
        figures=figures | cost_figures(ledger, samples, budget),
        layers=layer_reports(network, ticket.mask),
        details={"epochs": training.history, "start": start, "control": task.control},
        notes=(*begun.notes, *training.plan.notes, f"started from {start}", *control),
        **common(task, begun, key, places),
    )
    ready(folder, report)
