# SPDX-License-Identifier: Apache-2.0
"""What finding a ticket will do and cost, decided from shapes before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeprune.channels import analyse
from edgeprune.context import Context
from edgeprune.finetune.plan import make_plan
from edgeprune.mask import Network, look
from edgeprune.model import Model
from edgeprune.progress import Progress
from edgeprune.tickets.allocate import allocate
from edgeprune.tickets.at_init import ntk_sap, synflow
from edgeprune.tickets.catalogue import used_options
from edgeprune.tickets.dynamic import check_dynamic
from edgeprune.tickets.early_bird import judged_groups
from edgeprune.tickets.files import begin
from edgeprune.tickets.gradual import check_gradual, check_one_shot, count_changes, window
from edgeprune.tickets.imp import levels
from edgeprune.tickets.options import DATA_DRIVEN, Method, TicketOptions
from edgeprune.tickets.runner import FindTask, find_places
from edgeprune.tickets.select import Ranking, goal
from edgeprune.tickets.training import default_rate

__all__ = ["FindPlan", "Phase", "plan"]


@dataclass(frozen=True)
class Phase:
    """A part of the work."""

    text: str
    steps: int
    """Updates of the weights."""
    cost: float | None
    """In dense trainings, zeros counted; ``None`` where it can't be told beforehand."""


@dataclass(frozen=True)
class FindPlan:
    """What ``find`` will do."""

    task: FindTask
    network: Network
    densities: Mapping[str, float] | None
    """By layer; ``None``: a ranking over all layers decides."""
    samples: Mapping[str, int] | None
    """Of the data, by part."""
    phases: tuple[Phase, ...]

    @property
    def cost(self) -> float | None:
        """Of all phases, in dense trainings."""
        costs = [phase.cost for phase in self.phases]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def as_data(self) -> dict[str, Any]:
        """As JSON."""
        densities = self.densities or {}
        return {
            "model": self.task.source.path.name,
            "method": self.task.options.method,
            "output": str(self.task.output),
            "options": used_options(self.task.options),
            "samples": None if self.samples is None else dict(self.samples),
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "shape": list(layer.shape),
                    "macs": layer.macs,
                    "density": densities.get(layer.name),
                }
                for layer in self.network.layers
            ],
            "phases": [vars(phase) for phase in self.phases],
            "cost": self.cost,
        }


@dataclass(frozen=True)
class _Budget:
    options: TicketOptions
    network: Network
    steps: int
    """Of one training; 0 where nothing is trained."""
    samples: int
    """That one training sees; 0 where nothing says so."""
    train: int
    """Samples of the training part; 0 without data."""
    fixed: int | None
    """The batch size that the model insists on."""


def plan(task: FindTask, progress: Progress) -> FindPlan:
    """Decide all that can be told before the work.

    Raises:
        InputError: The model, the data, an option or an output can't be used.
    """
    find_places(replace(task, overwrite=True))  # a plan replaces nothing
    begun = begin(task, task.options, progress)
    options, data = task.options, begun.context.data
    network = look(begun.given, options.exclude)
    _check(options, network, begun.given, begun.context)
    budget = _budget(options, network, begun.given, begun.context)
    return FindPlan(
        task,
        network,
        _densities(options, network),
        None if data is None else data.sizes,
        _PHASES[options.method](budget),
    )


def _check(options: TicketOptions, network: Network, model: Model, context: Context) -> None:
    """Refuse what the methods refuse, by their own checks."""
    if options.method == "early-bird":
        judged_groups(model, look(model), analyse(model), options)
        return
    if options.method in _CHECKS:
        _CHECKS[options.method](options, context)
    goal(network, options.density, Ranking.of(options, context.seed))


def _budget(options: TicketOptions, network: Network, model: Model, context: Context) -> _Budget:
    fixed = model.fixed_batch
    if context.data is None:
        return _Budget(options, network, 0, 0, 0, fixed)
    found = make_plan(model, default_rate(options.train), context, context.data)
    train, epochs = context.data.sizes["train"], options.train.epochs
    seen = epochs * min(found.steps * found.batch_size, train)
    return _Budget(options, network, epochs * found.steps, seen, train, fixed)


def _densities(options: TicketOptions, network: Network) -> dict[str, float] | None:
    if options.method == "early-bird" or options.pattern is not None:
        return None
    return allocate(network, options.density, options.allocation, options.densities)


def _imp(budget: _Budget) -> tuple[Phase, ...]:
    densities = (1.0, *levels(budget.options.density, budget.options.imp.rate))
    first = round(budget.options.imp.rewind * budget.steps)
    share = 1 - first / budget.steps if budget.steps else None
    back = f", from step {first}" if first else ""
    head = (Phase("train to where it goes back to", first, 1 - (share or 0)),) if first else ()
    trainings = (
        Phase(f"level {number}: train at density {density:.4g}{back}", budget.steps - first, share)
        for number, density in enumerate(densities)
    )
    return (*head, *trainings)


def _one_shot(budget: _Budget) -> tuple[Phase, ...]:
    scoring = _criterion(budget, 1)
    if not budget.steps:
        return (*scoring, Phase("prune the model as it is", 0, 0.0))
    return (
        Phase("train dense", budget.steps, 1.0),
        *scoring,
        Phase(f"train at density {budget.options.density:.4g}", budget.steps, 1.0),
    )


def _gradual(budget: _Budget) -> tuple[Phase, ...]:
    table = budget.options.gradual
    first, last = window(table, budget.steps)
    text = f"train; {table.schedule} pruning from step {first} to {last}"
    scoring = _criterion(budget, count_changes(table, budget.steps))
    return (Phase(text, budget.steps, 1.0), *scoring)


def _criterion(budget: _Budget, times: int) -> tuple[Phase, ...]:
    """The gradients that a criterion takes: as dear as those of a training on its samples."""
    if budget.options.criterion not in DATA_DRIVEN:
        return ()
    samples = min(budget.options.at_init.samples, budget.train)
    how_often = "once" if times == 1 else f"{times} times"
    text = f"score the weights on {samples} training samples {how_often}"
    return (Phase(text, 0, samples * times / budget.samples if budget.samples else None),)


def _dynamic(budget: _Budget) -> tuple[Phase, ...]:
    every = budget.options.dynamic.every
    end = round(budget.options.dynamic.end * budget.steps)
    text = f"train; the mask changes each {every} steps to step {end}"
    if every >= end:
        text += ": never; set a smaller dynamic.every in --recipe"
    return (Phase(text, budget.steps, 1.0),)


def _early_bird(budget: _Budget) -> tuple[Phase, ...]:
    table = budget.options.early_bird
    text = (
        f"train dense until {table.window} masks differ by less than {table.threshold:g}, cut, "
        "train on"
    )
    return (Phase(text, budget.steps, None),)


_PASSES: Mapping[Method, int] = {"snip": 3, "grasp": 9, "synflow": 3, "ntk-sap": 7}
"""Forward passes of the whole network that the score of one sample costs, a gradient being three:
as the methods' own ledgers count them."""
_STEPS: Mapping[Method, int] = {"synflow": synflow.ITERATIONS, "ntk-sap": ntk_sap.ITERATIONS}


def _scored(budget: _Budget) -> tuple[Phase, ...]:
    """Pruning at initialisation."""
    table, method = budget.options.at_init, budget.options.method
    if method == "random":
        return (Phase("draw the mask", 0, 0.0),)
    count = table.iterations or _STEPS.get(method, 1)
    count = 1 if budget.options.pattern else count
    times = "once" if count == 1 else f"{count} times"
    samples, text = _looked_at(budget)
    # A training on S samples is 3 S passes.
    cost = _PASSES[method] * samples * count / (3 * budget.samples) if budget.samples else None
    return (Phase(f"score the weights{text} {times}", 0, cost),)


def _looked_at(budget: _Budget) -> tuple[int, str]:
    """How many samples a score sees, and in words what they are."""
    wanted = budget.options.at_init.samples
    if budget.options.method == "synflow":
        return budget.fixed or 1, " on an input of ones"
    if budget.options.method == "ntk-sap":
        size = budget.fixed or 1
        wanted = -(-wanted // size) * size
        return wanted, f" on {wanted} random inputs"
    return min(wanted, budget.train), f" on {min(wanted, budget.train)} training samples"


_PHASES: Mapping[Method, Callable[[_Budget], tuple[Phase, ...]]] = {
    "imp": _imp,
    "gradual": _gradual,
    "one-shot": _one_shot,
    "snip": _scored,
    "grasp": _scored,
    "synflow": _scored,
    "ntk-sap": _scored,
    "random": _scored,
    "early-bird": _early_bird,
    "set": _dynamic,
    "rigl": _dynamic,
}
_CHECKS: Mapping[Method, Callable[[TicketOptions, Context], None]] = {
    "gradual": check_gradual,
    "one-shot": check_one_shot,
    "set": check_dynamic,
    "rigl": check_dynamic,
}
