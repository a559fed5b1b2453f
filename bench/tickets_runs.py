# SPDX-License-Identifier: Apache-2.0
"""The runs of the tickets bench: what there is to run, and one of them from start to accuracy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from edgeprune.channels import analyse, apply
from edgeprune.context import Context
from edgeprune.data import Data, open_data
from edgeprune.finetune import with_state
from edgeprune.finetune.loss import outputs_of
from edgeprune.mask import Mask, Ticket, look, read_ticket, removed_channels, write_ticket
from edgeprune.model import Event, Model, capture
from edgeprune.recipe import FinetuneOptions, Precision
from edgeprune.target import find_target
from edgeprune.tickets import controls
from edgeprune.tickets.at_init.collapse import collapsed, effective_density
from edgeprune.tickets.carry.elastic import stretch
from edgeprune.tickets.found import Work
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.methods import FIND
from edgeprune.tickets.options import (
    AtInitOptions,
    DynamicOptions,
    EarlyBirdOptions,
    ImpOptions,
    TicketOptions,
)
from edgeprune.tickets.training import Training
from tests.networks import DigitsCnn, ResNet

__all__ = ["METHODS", "Case", "Plan", "fits", "measure", "night", "quick", "waves"]

METHODS = (
    "imp", "one-shot", "gradual", "snip", "grasp", "synflow", "ntk-sap", "random", "set", "rigl",
)  # fmt: skip
CONTROLS = ("imp, retrained", "imp, reinitialised", "imp, random-mask", "imp, shuffled")
SEEDS = (0, 1, 2)
HERE = Path(__file__).parent
Kind = str
Net = Literal["digits", "resnet20", "resnet20x2", "resnet32"]


@dataclass(frozen=True)
class Case:
    """One run. ``kind`` is a method, a control of one, or a comparison of its own."""

    net: Net
    kind: Kind
    density: float
    seed: int

    @property
    def text(self) -> str:
        """In a line."""
        return f"{self.net} {self.kind} at {self.density:g}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs and what they share."""

    title: str
    data: str
    epochs: Mapping[Net, int]
    """Of one training."""
    bird_data: str
    bird_epochs: int
    """Of the early birds: five masks in a queue are a quarter of twenty epochs already."""
    batch_size: int
    rate: float
    precision: Precision
    cases: tuple[Case, ...]

    def settings(self, case: Case) -> dict[str, Any]:
        """All that a case is run with; a row with others isn't of this plan."""
        bird = case.kind in _BIRDS
        return {
            "data": Path((self.bird_data if bird else self.data).split("=")[0]).stem,
            "epochs": self.bird_epochs if bird else self.epochs[case.net],
            "batch_size": self.batch_size,
            "rate": self.rate,
            "samples": 128 if case.net == "resnet20x2" else 512,
            "precision": "float32" if case.kind.endswith(", float32") else self.precision,
        }


def fits(plan: Plan, row: Mapping[str, Any]) -> bool:
    """Whether a row was made as ``plan`` has it."""
    case = Case(**row["case"])
    return case in plan.cases and row["settings"] == plan.settings(case)


def quick() -> Plan:
    """Digits, in minutes."""
    cases = [case for seed in SEEDS for case in _cell("digits", seed)]
    cases += [Case("digits", kind, 0.5, seed) for seed in SEEDS for kind in _BIRDS]
    return Plan(
        "scikit-learn's digits",
        "digits",
        {"digits": 20},
        "digits",
        60,
        128,
        0.1,
        "float32",
        tuple(cases),
    )


def night(data: Path | None) -> Plan:
    """CIFAR-10, in a night; in less where the processor computes in bfloat16."""
    cases: list[Case] = []
    for seed in SEEDS:
        cases += _cell("resnet20", seed)
        cases += [Case("resnet20", kind, 0.5, seed) for kind in _BIRDS]
        cases += [Case("resnet32", kind, 0.2, seed) for kind in _ELASTIC]
    # Before the wide network, whose trainings are the longest.
    cases += [Case("resnet20", "dense, float32", 1.0, seed) for seed in SEEDS]
    for seed in SEEDS:
        cases += [c for c in _cell("resnet20x2", seed) if c.kind not in CONTROLS]
    epochs: Mapping[Net, int] = {"resnet20": 5, "resnet32": 5, "resnet20x2": 2}
    many, few = (f"{HERE / name}={data}" for name in ("cifar10_4k.toml", "cifar10_2k.toml"))
    return Plan("CIFAR-10", many, epochs, few, 100, 64, 0.05, "bfloat16", tuple(cases))


_BIRDS = ("early-bird", "early-bird, retrained", "late-bird")
_ELASTIC = (
    "elastic",
    "elastic, random-mask",
    "elastic, new weights",
    "elastic, new weights, random-mask",
)


_SECOND = (*CONTROLS, *_ELASTIC, "early-bird, retrained")
"""They take the ticket of another run."""


def _cell(net: Net, seed: int) -> list[Case]:
    kinds = (*METHODS, *CONTROLS)
    sparse = [Case(net, kind, density, seed) for density in (0.2, 0.05) for kind in kinds]
    return [Case(net, "dense", 1.0, seed), *sparse]


def waves(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Those that need nothing first, then those that need another's ticket; what trains longest
    last. A wave begins when the one before has ended."""
    for place in range(3):
        mine = [case for case in cases if _place(case) == place]
        yield [case for case in mine if case.kind not in _SECOND]
        yield [case for case in mine if case.kind in _SECOND]


def _place(case: Case) -> int:
    if case.kind in _BIRDS:
        return 2 if case.seed else 0  # the first seed of all there is, then the rest
    return int(case.net == "resnet20x2")


def measure(plan: Plan, case: Case, work: Path) -> dict[str, Any]:
    """Find the ticket, train it where its method doesn't, and look at the evaluation data once."""
    start = time.perf_counter()
    settings = plan.settings(case)
    data = _data(plan.bird_data if case.kind in _BIRDS else plan.data)
    model = _network(case, data)
    folder = work / case.text.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(find_target("host"), folder, data, seed=case.seed)
    given = _Given(plan, case, model, context, work, settings)
    result = _RUNS.get(case.kind, _by_method)(given)
    mask = result.mask
    kept = [] if mask is None else list(mask.densities.values())
    dense, sparse = result.ledger.relative(settings["epochs"] * data.sizes["train"])
    return {
        "settings": settings,
        "accuracy": _accuracy(result.model, data, settings["precision"]),
        "dense": dense,
        "sparse": sparse,
        "density": None if mask is None else mask.density,
        "layers": [min(kept), max(kept)] if kept else None,
        "collapsed": [] if mask is None else list(collapsed(mask)),
        "effective": None if mask is None else effective_density(model, mask),
        "peak_bytes": result.ledger.peak_bytes,
        "seconds": time.perf_counter() - start,
        **result.facts,
    }


@dataclass(frozen=True)
class _Given:
    plan: Plan
    case: Case
    model: Model
    context: Context
    work: Path
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Of a run, and so of its checkpoints."""
        return f"{self.case.text}, {dict(self.settings)}"

    def options(self, **changes: Any) -> TicketOptions:
        train = FinetuneOptions(
            epochs=self.settings["epochs"],
            batch_size=self.settings["batch_size"],
            learning_rate=self.settings["rate"],
            precision=self.settings["precision"],
            distill=0.0,
        )
        imp = ImpOptions(rate=0.5, rewind=0.1)
        often = DynamicOptions(every=10)  # a training here has hundreds of steps, not 100,000
        return TicketOptions(
            density=self.case.density,
            train=train,
            imp=imp,
            dynamic=often,
            at_init=AtInitOptions(samples=self.settings["samples"]),
            **changes,
        )


@dataclass(frozen=True)
class _Result:
    model: Model
    ledger: Ledger
    mask: Mask | None
    facts: dict[str, Any]


def _by_method(given: _Given) -> _Result:
    options = given.options(method=given.case.kind)
    work = Work(given.context.folder, given.key)
    found = FIND[options.method](given.model, options, given.context, work)
    write_ticket(given.context.folder / "ticket.safetensors", found.ticket)
    trained = found.trained
    if trained is None:
        trained = _train(given, found.ticket, found.ledger)
    facts = {"notes": list(found.notes)}
    if options.method == "early-bird":
        facts["details"] = dict(found.details)
    return _Result(trained, found.ledger, found.ticket.mask, facts)


def _dense(given: _Given) -> _Result:
    ledger = Ledger(look(given.model))
    training = Training(given.model, given.options().train, given.context, ledger)
    training.run()
    return _Result(training.trained(Event("dense")), ledger, None, {})


def _control(given: _Given) -> _Result:
    """IMP's ticket, its mask with other weights, or its densities with other places: each gets one
    whole training from its first step."""
    ticket = _ticket_of(given, replace(given.case, kind="imp"))
    kind, seed = given.case.kind.removeprefix("imp, "), given.case.seed + 1000
    if kind != "retrained":
        ticket = controls.CONTROLS[kind](ticket, given.model, seed)
    ledger = Ledger(look(given.model))
    return _Result(_train(given, ticket, ledger), ledger, ticket.mask, {})


def _elastic(given: _Given) -> _Result:
    """ResNet-20's ticket, mask and weights, on ResNet-32; its mask alone, on new weights; or random
    places of the same densities with the same weights."""
    source = replace(given.case, net="resnet20", kind="imp")
    small = _network(source, _data(given.plan.data))
    ticket = stretch(_ticket_of(given, source), small, given.model).ticket
    if "new weights" in given.case.kind:
        ticket = Ticket(ticket.mask)
    if given.case.kind.endswith("random-mask"):
        ticket = controls.random_mask(ticket, given.model, given.case.seed + 1000)
    ledger = Ledger(look(given.model))
    return _Result(_train(given, ticket, ledger), ledger, ticket.mask, {})


def _retrained_bird(given: _Given) -> _Result:
    """The network that early-bird cut, trained for as long as the late bird's (as You et al. 2020
    compare tickets of different epochs)."""
    ticket = _ticket_of(given, replace(given.case, kind="early-bird"))
    groups = analyse(given.model)
    assert ticket.start is not None
    drawn = with_state(given.model, ticket.start, Event("start"))
    small = apply(drawn, groups, removed_channels(groups, ticket.mask), Event("prune"))
    ledger, after = Ledger(look(given.model)), Ledger(look(small))
    training = Training(small, given.options().train, given.context, after)
    training.run()
    ledger.dense, ledger.sparse = after.dense, after.sparse  # told by the dense network's training
    return _Result(training.trained(Event("train")), ledger, ticket.mask, {})


def _late_bird(given: _Given) -> _Result:
    """The early bird's pruning after a whole training, and another whole training after it."""
    whole = given.options(method="early-bird")
    never = EarlyBirdOptions(window=given.settings["epochs"] + 1)  # pruned at the end
    options = whole.model_copy(update={"early_bird": never})
    work = Work(given.context.folder, given.key)
    found = FIND["early-bird"](given.model, options, given.context, work)
    assert found.trained is not None
    assert not found.details["found"]
    after = Ledger(look(found.trained))
    training = Training(found.trained, whole.train, given.context, after)
    training.run()
    ledger = found.ledger
    ledger.dense, ledger.sparse = ledger.dense + after.dense, ledger.sparse + after.sparse
    return _Result(training.trained(Event("late-bird")), ledger, found.ticket.mask, {})


_RUNS = {
    "dense": _dense,
    "dense, float32": _dense,
    "early-bird, retrained": _retrained_bird,
    "late-bird": _late_bird,
    **dict.fromkeys(CONTROLS, _control),
    **dict.fromkeys(_ELASTIC, _elastic),
}


def _ticket_of(given: _Given, case: Case) -> Ticket:
    path = given.work / case.text.replace(" ", "_") / "ticket.safetensors"
    if path.exists():
        return read_ticket(path)
    measure(given.plan, case, given.work)  # its row is there, but not its ticket any more
    return read_ticket(path)


def _train(given: _Given, ticket: Ticket, ledger: Ledger) -> Model:
    model = given.model
    if ticket.start is not None:
        model = with_state(model, ticket.start, Event("start"))
    options = given.options().train
    training = Training(model, options, given.context, ledger, mask=ticket.mask)
    training.run()
    return training.trained(Event("train"))


def _accuracy(model: Model, data: Data, precision: Precision) -> float:
    """In percent, in the numbers that the network was trained in."""
    module, right, seen = model.module(), 0, 0
    with torch.no_grad():
        for batch in data.evaluation(250):
            assert batch.labels is not None
            (logits,) = outputs_of(module, batch, None, precision)
            right += int((logits.argmax(1) == batch.labels).sum())
            seen += len(batch)
    return 100 * right / seen


@lru_cache(maxsize=1)
def _data(name: str) -> Data:
    return open_data(name, seed=0)


def _network(case: Case, data: Data) -> Model:
    torch.manual_seed(case.seed)
    nets = {
        "digits": lambda: DigitsCnn(32),
        "resnet20": lambda: ResNet(3),
        "resnet20x2": lambda: ResNet(3, width=32),
        "resnet32": lambda: ResNet(5),
    }
    # Convolutions run fastest on weights that lie so.
    network = nets[case.net]().to(memory_format=torch.channels_last)
    model, _ = capture(network, data.example(), event=Event("bench", {}, {}))
    return model
