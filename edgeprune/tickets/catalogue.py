# SPDX-License-Identifier: Apache-2.0
"""The methods in words: what each does, by which paper, and which options it uses; torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from edgeprune.errors import InputError
from edgeprune.tickets.options import DATA_DRIVEN, Method, TicketOptions

__all__ = ["CATALOGUE", "TRAIN_KEYS", "Entry", "check_keys", "given_keys", "used_options"]

TRAIN_KEYS = frozenset(
    f"train.{key}"
    for key in (
        "epochs",
        "optimizer",
        "learning_rate",
        "momentum",
        "weight_decay",
        "batch_size",
        "warmup",
        "augment",
        "precision",
    )
)
"""What the training of tickets uses of its table: there is no teacher, and no early stop."""
_ALL = frozenset({"method", "density", "exclude", "fresh"})
_SHARED = frozenset({"alloc", "densities"})
_RANKED = _SHARED | {"pattern"}


@dataclass(frozen=True)
class Entry:
    """A method."""

    about: str
    paper: str
    keys: frozenset[str]
    """Of ``TicketOptions``, besides those that every method uses; ``table`` stands for all keys of
    a table, ``table.key`` for one."""
    data: bool = True
    """Whether it needs data."""
    trains: bool = False
    """Whether it ends with a trained network."""


CATALOGUE: Mapping[Method, Entry] = {
    "imp": Entry(
        "lottery tickets: train, prune by magnitude, rewind, again and again",
        "Frankle and Carbin 2019; Frankle et al. 2020; Renda et al. 2020",
        _RANKED | TRAIN_KEYS | {"imp"},
        trains=True,
    ),
    "gradual": Entry(
        "prune step by step while training",
        "Zhu and Gupta 2017",
        _RANKED | TRAIN_KEYS | {"criterion", "gradual", "at_init.samples"},
        trains=True,
    ),
    "one-shot": Entry(
        "prune once, train again with the zeros held",
        "Han et al. 2015",
        _RANKED | TRAIN_KEYS | {"criterion", "at_init.samples"},
        data=False,
        trains=True,
    ),
    "snip": Entry(
        "before training, by how much the loss depends on each weight",
        "Lee et al. 2019",
        _RANKED | {"at_init.samples", "at_init.iterations"},
    ),
    "grasp": Entry(
        "before training, so that the gradient keeps its strength",
        "Wang et al. 2020",
        _RANKED | {"at_init"},
    ),
    "synflow": Entry(
        "before training and without data, by the flow through all layers",
        "Tanaka et al. 2020",
        _RANKED | {"at_init.iterations"},
        data=False,
    ),
    "ntk-sap": Entry(
        "before training and without data, so that the tangent kernel's spectrum stays",
        "Wang et al. 2023",
        _RANKED | {"at_init.samples", "at_init.iterations"},
        data=False,
    ),
    "random": Entry(
        "at random, with ERK's layer densities",
        "Liu et al. 2022; Evci et al. 2020",
        _RANKED,
        data=False,
    ),
    "early-bird": Entry(
        "channels that stop changing early in training; cut for real, then trained on",
        "You et al. 2020; Chen et al. 2021",
        TRAIN_KEYS | {"alloc", "early_bird"},
        trains=True,
    ),
    "set": Entry(
        "sparse from the start: the smallest weights give way to random ones",
        "Mocanu et al. 2018",
        _SHARED | TRAIN_KEYS | {"dynamic"},
        trains=True,
    ),
    "rigl": Entry(
        "sparse from the start: the smallest weights give way to the largest gradients",
        "Evci et al. 2020",
        _SHARED | TRAIN_KEYS | {"dynamic"},
        trains=True,
    ),
}


def check_keys(options: TicketOptions, given: Mapping[str, str], *, data: bool = True) -> None:
    """Refuse options that the method doesn't use, or not with the others.

    Args:
        options: All of them.
        given: How the user wrote each option (``--rewind``, ``t.toml: key 'imp.rewind'``), by its
            key of ``TicketOptions``.
        data: Whether there is data.

    Raises:
        InputError: One of them would do nothing.
    """
    method = options.method
    for key, written in given.items():
        if _uses(CATALOGUE[method], key):
            why = _idle(options, key, data=data)
            if why is not None:
                raise InputError(f"{written}: isn't used by {method} {why}; leave it out")
            continue
        users = [name for name, entry in CATALOGUE.items() if _uses(entry, key)]
        told = f"only by {', '.join(users)}" if users else "nor by any other method of tickets"
        raise InputError(f"{written}: isn't used by {method}, {told}; leave it out")


def given_keys(options: TicketOptions) -> Iterator[str]:
    """The keys that were set in ``options``, ``table.key`` where they are in a table."""
    for name in sorted(options.model_fields_set):
        value = getattr(options, name)
        if isinstance(value, BaseModel):
            yield from (f"{name}.{key}" for key in sorted(value.model_fields_set))
        else:
            yield name


def used_options(options: TicketOptions) -> dict[str, object]:
    """All that decides the result of the chosen method, by key, as JSON."""
    entry, found = CATALOGUE[options.method], options.model_dump(mode="json")
    flat: dict[str, object] = {}
    for name, value in found.items():
        if name != "densities" and isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    used = (key for key in flat if _uses(entry, key) and _idle(options, key, data=True) is None)
    return {key: flat[key] for key in used}


def _idle(options: TicketOptions, key: str, *, data: bool) -> str | None:
    """Why an option that the method may use does nothing beside the others; ``None``: it does."""
    ranks = "criterion" in CATALOGUE[options.method].keys
    if key == "at_init.samples" and ranks and options.criterion not in DATA_DRIVEN:
        return f"with criterion {options.criterion}, only with {' or '.join(sorted(DATA_DRIVEN))}"
    table = options.at_init
    if key == "at_init.iterations" and options.pattern is not None and table.iterations != 1:
        return f"with pattern {options.pattern}, which takes one step"
    trains = data or CATALOGUE[options.method].data  # without, its data is asked for
    if key in TRAIN_KEYS and not trains and (key, options.train.epochs) != ("train.epochs", 0):
        return "without --data, as nothing is trained then"
    return None


def _uses(entry: Entry, key: str) -> bool:
    return not {key, key.partition(".")[0]}.isdisjoint(entry.keys | _ALL)
