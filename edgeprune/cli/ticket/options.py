# SPDX-License-Identifier: Apache-2.0
"""The options of the commands on tickets that aren't those of other commands too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeprune.cli import options as opt
from edgeprune.errors import ConfigError
from edgeprune.tickets.catalogue import TRAIN_KEYS, check_keys, given_keys
from edgeprune.tickets.options import AllocationRule, Criterion, Method, TicketOptions
from edgeprune.toml import load, parse

__all__ = [
    "AllocOption",
    "BatchSizeOption",
    "CriterionOption",
    "DensityOption",
    "DryRunOption",
    "EpochsOption",
    "ExcludeOption",
    "FreshOption",
    "IterationsOption",
    "LrOption",
    "MethodOption",
    "OptimizerOption",
    "PatternOption",
    "RateOption",
    "RecipeOption",
    "RewindOption",
    "SamplesOption",
    "TicketArgument",
    "TrainRecipeOption",
    "TrainedOption",
    "options",
    "training",
]

_TICKET, _TRAINING, _METHOD = "The ticket", "Training", "Of single methods"

FLAGS = {
    "method": "--method",
    "density": "--density",
    "alloc": "--alloc",
    "criterion": "--criterion",
    "pattern": "--pattern",
    "exclude": "--exclude",
    "fresh": "--fresh",
    "train.epochs": "--epochs",
    "train.learning_rate": "--lr",
    "train.optimizer": "--optimizer",
    "train.batch_size": "--batch-size",
    "imp.rewind": "--rewind",
    "imp.rate": "--rate",
    "at_init.samples": "--samples",
    "at_init.iterations": "--iterations",
}
"""How the command line calls a key of ``TicketOptions``."""

TicketArgument = Annotated[
    Path,
    typer.Argument(
        metavar="TICKET", show_default=False, help="What `edgeprune ticket find` wrote."
    ),
]
MethodOption = Annotated[
    Method | None,
    typer.Option(
        "--method",
        "-m",
        help="How to find it; see below.",
        show_default="imp",
        rich_help_panel=_TICKET,
    ),
]
DensityOption = Annotated[
    float | None,
    typer.Option(
        "--density",
        metavar="0.2",
        help="Share of the weights (of the channels, for early-bird) that lives: above 0, up to 1.",
        show_default="0.2; N/M with a --pattern N:M",
        rich_help_panel=_TICKET,
    ),
]
AllocOption = Annotated[
    AllocationRule | None,
    typer.Option(
        "--alloc",
        help="How the density is shared among the layers; by-hand: as the table densities of "
        "--recipe says.",
        show_default="erk for random, set and rigl; global else",
        rich_help_panel=_TICKET,
    ),
]
CriterionOption = Annotated[
    Criterion | None,
    typer.Option(
        "--criterion",
        help="What one-shot and gradual rank weights by.",
        show_default="magnitude",
        rich_help_panel=_TICKET,
    ),
]
PatternOption = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="2:4",
        help="At most 2 of every 4 weights along the input axis live; exactly 2 without --density.",
        rich_help_panel=_TICKET,
    ),
]
ExcludeOption = Annotated[list[str] | None, opt.exclude_option("Weights that stay dense", _TICKET)]
FreshOption = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Start from newly drawn weights, not from those of the model: for a MODEL that is "
        "trained already.",
        rich_help_panel=_TICKET,
    ),
]
EpochsOption = Annotated[
    int | None, opt.epochs_option("Epochs of one whole training.", "20", _TRAINING)
]
LrOption = Annotated[float | None, opt.lr_option("0.1 for sgd, 0.001 for adamw", _TRAINING)]
OptimizerOption = Annotated[Literal["sgd", "adamw"] | None, opt.optimizer_option(_TRAINING)]
BatchSizeOption = Annotated[int | None, opt.batch_size_option(_TRAINING)]
RewindOption = Annotated[
    float | None,
    typer.Option(
        "--rewind",
        metavar="SHARE",
        help="imp: to which share of all steps weights and optimizer go back.",
        show_default="0, the start",
        rich_help_panel=_METHOD,
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="SHARE",
        help="imp: share of the living weights that goes at each level.",
        show_default="0.2",
        rich_help_panel=_METHOD,
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=1,
        help="snip, grasp, and gradual and one-shot by saliency or fisher: training samples to "
        "look at; ntk-sap: random inputs.",
        show_default="512",
        rich_help_panel=_METHOD,
    ),
]
IterationsOption = Annotated[
    int | None,
    typer.Option(
        "--iterations",
        min=1,
        help="snip, grasp, synflow, ntk-sap: steps on the way to the density; one with a "
        "--pattern.",
        show_default="1, 1, 100, 20",
        rich_help_panel=_METHOD,
    ),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="All options as TOML (`ticket find --dry-run --json` lists those that a method uses, "
        "by key: train.epochs is epochs in a table train); the options here override it.",
        rich_help_panel=opt.RUN,
    ),
]
TrainRecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="A TOML file with the table train of a recipe for `ticket find`; the options here "
        "override it.",
        rich_help_panel=opt.RUN,
    ),
]
TrainedOption = Annotated[
    Path | None,
    typer.Option(
        "--trained",
        metavar="FILE.pt2",
        help="Where the trained network goes, if the method ends with one.",
        show_default="kept for early-bird only, beside the ticket",
        rich_help_panel=opt.RUN,
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print the plan and what it costs; write nothing.",
        rich_help_panel=opt.RUN,
    ),
]


def options(recipe: Path | None, changes: Mapping[str, Any], *, data: bool = True) -> TicketOptions:
    """The options of a recipe file, or the default ones, with ``changes`` over them.

    Args:
        recipe: A TOML file with the tables of ``TicketOptions``.
        changes: By key (``train.epochs``); a value of ``None`` changes nothing.
        data: Whether there is data.

    Raises:
        ConfigError: A wrong key or value.
        InputError: The chosen method doesn't use what was set.
    """
    base = TicketOptions() if recipe is None else load(recipe, TicketOptions)
    written = {key: f"{recipe}: key '{key}'" for key in given_keys(base)}
    table = base.model_dump(mode="json", exclude_unset=True)
    for key, value in changes.items():
        if value is None:
            continue
        name, _, inner = key.partition(".")
        if inner:
            table.setdefault(name, {})[inner] = value
        else:
            table[name] = value
        written[key] = FLAGS[key]
    # What a table leaves out keeps the default of tickets, which for training is another one.
    train = {**TicketOptions().train.model_dump(mode="json"), **table.get("train", {})}
    found = parse({**table, "train": train}, TicketOptions, "command line")
    check_keys(found, written, data=data)
    if found.pattern is not None and "density" not in table:
        found = found.model_copy(update={"density": _of_pattern(found.pattern, found.density)})
    if found.alloc == "by-hand" and not found.densities:
        raise ConfigError(
            "--alloc by-hand takes densities: a recipe file with a table [densities], such as "
            '"conv*" = 0.5'
        )
    return found


def _of_pattern(pattern: str, default: float) -> float:
    """The density that a pattern N:M allows; ``default`` for one that is none, refused later."""
    kept, block = map(int, pattern.split(":"))
    return kept / block if 0 < kept < block else default


def training(recipe: Path | None, changes: Mapping[str, Any]) -> TicketOptions:
    """As ``options``, of which only those of the training may be set.

    Raises:
        ConfigError: A wrong key or value, or one that isn't about the training.
    """
    base = TicketOptions() if recipe is None else load(recipe, TicketOptions)
    wrong = [key for key in given_keys(base) if key not in TRAIN_KEYS]
    if wrong:
        allowed = ", ".join(sorted(key.removeprefix("train.") for key in TRAIN_KEYS))
        raise ConfigError(
            f"{recipe}: key '{wrong[0]}': isn't used by ticket train; it takes a table [train] "
            f"with {allowed}"
        )
    return options(recipe, {"method": "one-shot", **changes})
