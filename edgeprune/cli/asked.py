# SPDX-License-Identifier: Apache-2.0
"""From the values of options to what was asked for: a recipe, a target, a model, data."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.gate import merge
from edgeprune.job import DataSource, Source
from edgeprune.recipe import Recipe, load_recipe
from edgeprune.target import Budgets, Target
from edgeprune.toml import parse

__all__ = [
    "batch",
    "data_source",
    "finetune_changes",
    "numerics",
    "only_ticket",
    "prune_changes",
    "recipe",
    "source",
    "use_threads",
    "with_budgets",
]


def recipe(file: Path | None, changes: Mapping[str, Any]) -> Recipe:
    """The recipe of ``file``, or the default one, with ``changes`` over it.

    A key of ``changes`` is ``seed`` or ``stage.option``; a value of ``None`` changes nothing.

    Raises:
        ConfigError: The file, or a value, is wrong.
    """
    base = load_recipe(file) if file is not None else Recipe()
    table = base.model_dump()
    for key, value in changes.items():
        if value is None:
            continue
        stage, _, option = key.rpartition(".")
        (table[stage] if stage else table)[option] = value
    return parse(table, Recipe, "command line")


def with_budgets(target: Target, **budgets: float | None) -> Target:
    """``target`` with the budgets that are given here over its own.

    Raises:
        ConfigError: A limit can't be one.
    """
    given = {name: value for name, value in budgets.items() if value is not None}
    merged = merge(target.budgets, parse(given, Budgets, "command line"))
    return target.model_copy(update={"budgets": merged})


def numerics(value: str | None) -> str | None:
    """The recipe's word for ``--numerics``."""
    return "fp32" if value == "none" else value


def batch(value: str | None) -> int | str | None:
    """The recipe's value for ``--batch``.

    Raises:
        InputError: Neither a number from 1 on nor ``dynamic``.
    """
    if value is None or value == "dynamic":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"--batch: '{value}' is neither a number from 1 on nor 'dynamic'")
    return int(value)


def source(
    path: Path,
    arch: str | None,
    state_key: str | None,
    allow_surplus: bool,
    input_shape: list[str] | None,
    trust_pickle: bool,
) -> Source:
    """The model to start from."""
    shapes = tuple(input_shape) if input_shape else None
    return Source(path, arch, shapes, trust_pickle, state_key, allow_surplus)


def data_source(name: str | None, limit: int | None) -> DataSource | None:
    """What ``--data`` and ``--limit`` name.

    Raises:
        InputError: A limit without data.
    """
    if name is None:
        if limit is not None:
            raise InputError("--limit is about the data, and no --data is given")
        return None
    return DataSource(name, limit)


def prune_changes(
    ratio: float | None,
    macs: float | None,
    params: float | None,
    importance: str | None,
    scope: str | None,
    multiple: int | None,
    exclude: list[str] | None,
    attention: str | None,
    grouped: str | None,
    allow_depth: bool,
    no_recover: bool,
) -> dict[str, Any]:
    """The pruning options as changes of a recipe.

    Raises:
        InputError: Two goals.
    """
    goals = {"--ratio": ratio, "--macs": macs, "--params": params}
    given = [flag for flag, value in goals.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} are two goals; give one of {', '.join(goals)}")
    return {
        "prune.ratio": ratio,
        "prune.macs": macs,
        "prune.params": params,
        "prune.importance": importance,
        "prune.scope": scope,
        "prune.multiple": multiple,
        "prune.exclude": exclude or None,
        "prune.attention": attention,
        "prune.grouped": grouped,
        "prune.allow_depth": allow_depth or None,
        "prune.recover": False if no_recover else None,
    }


def only_ticket(ticket: Path | None, changes: Mapping[str, Any]) -> Path | None:
    """``ticket``, where no option of pruning stands beside it; how attention and grouped
    convolutions are cut goes with one by channels, and only with such.

    Raises:
        InputError: One does, or the ticket can't be read.
    """
    if ticket is None:
        return None
    for key, value in changes.items():
        stage, _, option = key.rpartition(".")
        if stage != "prune" or value is None:
            continue
        flag = f"--{option.replace('_', '-')}"
        if option not in ("attention", "grouped"):
            raise InputError(f"{flag} doesn't go with --ticket, which says itself what is pruned")
        _by_channels(ticket, flag)
    return ticket


def _by_channels(ticket: Path, flag: str) -> None:
    from edgeprune.mask import read_ticket

    structure = read_ticket(ticket).mask.about.structure
    if structure != "channels":
        raise InputError(
            f"{flag} doesn't go with {ticket}, which is {structure}: it cuts no channels"
        )


def finetune_changes(
    epochs: int | None,
    lr: float | None,
    optimizer: str | None,
    batch_size: int | None,
    distill: float | None,
    patience: int | None,
) -> dict[str, Any]:
    """The fine-tuning options as changes of a recipe."""
    return {
        "finetune.epochs": epochs,
        "finetune.learning_rate": lr,
        "finetune.optimizer": optimizer,
        "finetune.batch_size": batch_size,
        "finetune.distill": distill,
        "finetune.patience": patience,
    }


def use_threads(wanted: int | None) -> int:
    """Tell the libraries, before they are imported, how many threads to use; the number."""
    threads = wanted or len(os.sched_getaffinity(0))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or it files an identity of this machine
    return threads
