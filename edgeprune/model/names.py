# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs are called: by the keys and fields of what the network returns."""

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Any

from torch.utils import _pytree as pytree

__all__ = ["Place", "leaf_places", "output_names"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")

Place = tuple[str | int, ...]
"""The way to one value of a nested result: keys, fields and places in sequences."""


def leaf_places(spec: pytree.TreeSpec | None) -> list[Place]:
    """The way to each leaf of a tree, in order; what kind of container it is in needs no class."""
    return [()] if spec is None else list(_places(spec, ()))


def _places(spec: pytree.TreeSpec, above: Place) -> Iterator[Place]:
    if spec.is_leaf():
        yield above
        return
    children = spec.children()
    for key, child in zip(_keys(spec, len(children)), children, strict=True):
        yield from _places(child, (*above, key))


def _keys(spec: pytree.TreeSpec, length: int) -> Sequence[str | int]:
    """Keys of a mapping, fields of a named tuple or data class, or places."""
    context: Any = spec.context
    if isinstance(context, type) and hasattr(context, "_fields"):
        context = context._fields
    elif isinstance(context, list | tuple) and len(context) == 2 and isinstance(context[0], list):
        # data classes: names of the fields that are there, and of those that are None
        # defaultdict: its factory comes first
        context = context[0]
    elif isinstance(context, list | tuple) and len(context) == 2 and isinstance(context[1], list):
        context = context[1]
    if isinstance(context, list | tuple) and len(context) == length:
        return [key if isinstance(key, str) else str(key) for key in context]
    return range(length)


def output_names(places: Sequence[Place], taken: Collection[str]) -> tuple[str, ...]:
    """A name for each output: safe in every format, and unlike the others and ``taken``.

    What a key leads to is called by it, in nested containers by all keys joined with ``_``; a plain
    sequence gives ``output_0``, ``output_1`` and so on, a single tensor ``output``.
    """
    used = set(taken)
    found = []
    for number, place in enumerate(places):
        plain = "output" if len(places) == 1 else f"output_{number}"
        name = next(n for n in _candidates(place, plain) if n not in used)
        used.add(name)
        found.append(name)
    return tuple(found)


def _candidates(place: Place, plain: str) -> Iterator[str]:
    """Names for an output, best first."""
    first = next((i for i, part in enumerate(place) if isinstance(part, str)), None)
    if first is None:
        full = plain
    else:
        short, full = _joined(place[first:]), _joined(("output", *place))
        if short[0].isalpha() or short[0] == "_":
            yield short
    yield full
    yield from (f"{full}_{number}" for number in count(1))


def _joined(parts: Place) -> str:
    return _UNSAFE.sub("_", "_".join(str(part) for part in parts)) or "_"
