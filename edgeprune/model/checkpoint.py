# SPDX-License-Identifier: Apache-2.0
"""Which weights of a checkpoint are meant, and how they fit a network."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgeprune.errors import ModelError, nearest
from edgeprune.model.program import identity

__all__ = ["Chosen", "choose", "fill"]

_NESTS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
)
"""Keys under which training scripts keep the weights, the likeliest first."""
_WRAPPERS = re.compile(r"(?:module\.|_orig_mod\.)*")
"""What DataParallel and torch.compile put before every name: not worth a note."""
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?)(?=$|[._])|ema$", re.IGNORECASE)
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|hyper|rng|callback|loops", re.IGNORECASE)
_DEPTH = 3
_COUNTER = "num_batches_tracked"
"""Batch norm's; old files lack it."""


@dataclass(frozen=True)
class Chosen:
    """A state dict or module found in a checkpoint."""

    value: nn.Module | dict[str, Tensor]
    notes: tuple[str, ...] = ()


def choose(value: Any, path: Path, key: str | None) -> Chosen:
    """The weights in what a file held: those under ``key``, or the only ones that can be meant.

    Args:
        value: A module, a state dict, or a checkpoint with some inside.
        path: The file, for messages.
        key: A key, dotted where nested, or what the names of the wanted weights begin with.

    Raises:
        ModelError: There are none, none under ``key``, or several and no way to tell.
    """
    if isinstance(value, nn.Module):
        if key is not None:
            raise ModelError(f"{path}: --state-key {key}: the file holds a whole module")
        return Chosen(value)
    if not isinstance(value, Mapping):
        raise ModelError(f"{path}: holds a {type(value).__name__}, not a state dict")
    places = dict(_places(value, "", 0))
    if key is not None:
        return _under(key, places, path)
    if not places:
        keys = ", ".join(str(k) for k in list(value)[:5]) or "nothing"
        raise ModelError(
            f"{path}: no state dict in it (it holds {keys}); weights are looked for at the top "
            f"and under {', '.join(_NESTS)} and other keys"
        )
    name = _likeliest(places, path)
    found = places[name]
    others = [other for other in places if other != name]
    averaged = [other for other in others if _AVERAGED.search(other)]
    rest = [other for other in others if other not in averaged]
    notes = []
    if averaged:
        notes.append(
            f"the weights {_at(name)} are used; averaged ones (EMA) are there too: "
            f"--state-key {averaged[0]} takes those"
        )
    if rest:
        notes.append(f"the weights {_at(name)} are used, not those under {', '.join(rest)}")
    if not others and _AVERAGED.search(name):
        notes.append(f"the file holds averaged weights (EMA) alone, {_at(name)}")
    return Chosen(found, tuple(notes))


def _at(name: str) -> str:
    return f"under '{name}'" if name else "at the top"


def _places(value: Any, above: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every module and state dict inside, by its dotted key."""
    if isinstance(value, nn.Module):
        yield above, value
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        return
    tensors = {name: v for name, v in value.items() if isinstance(v, Tensor)}
    if any(v.ndim for v in tensors.values()) or (tensors and len(tensors) == len(value)):
        yield above, tensors
    elif depth < _DEPTH:
        for name, inner in value.items():
            if not _NO_WEIGHTS.search(name):
                yield from _places(inner, f"{above}.{name}" if above else name, depth + 1)


def _likeliest(places: Mapping[str, Any], path: Path) -> str:
    plain = [name for name in places if not _AVERAGED.search(name)] or list(places)
    if len(plain) == 1:
        return plain[0]
    for nest in _NESTS:
        known = [name for name in plain if name.rpartition(".")[2] == nest or name == nest]
        if len(known) == 1:
            return known[0]
    raise ModelError(
        f"{path}: holds several state dicts ({', '.join(places)}); choose one with --state-key"
    )


def _under(key: str, places: Mapping[str, Any], path: Path) -> Chosen:
    if key in places:
        return Chosen(places[key])
    for name, found in places.items():
        start = f"{key.removeprefix(f'{name}.')}."
        if isinstance(found, dict) and any(n.startswith(start) for n in found):
            part = {n.removeprefix(start): v for n, v in found.items() if n.startswith(start)}
            return Chosen(part)
    inner = [name for name in places if name.startswith(f"{key}.")]
    if len(inner) == 1:
        return Chosen(places[inner[0]])
    flat = places.get("")
    there = [name for name in places if name] + sorted(
        {name.partition(".")[0] for name in (flat if isinstance(flat, dict) else ())}
    )
    raise ModelError(
        f"{path}: --state-key {key}: no weights there{nearest(key, there)}; "
        f"there are {', '.join(there[:8]) or 'some at the top'}"
    )


def fill(
    module: nn.Module,
    state: dict[str, Tensor],
    arch: str,
    path: Path,
    *,
    allow_surplus: bool = False,
) -> tuple[str, ...]:
    """Put ``state`` into ``module``; what all its names begin with is left out.

    Returns:
        Notes: the beginning that was left out, and the surplus.

    Raises:
        ModelError: Weights are missing or of another shape, or there are more than the network
            has and ``allow_surplus`` doesn't say to leave them out.
    """
    own = module.state_dict()
    prefix = _prefix(own, state, arch, path)
    named = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    surplus = [n for n in named if n not in own]
    surplus += [n for n in state if not n.startswith(prefix) and n != "n_averaged"]
    _check(own, named, () if allow_surplus else surplus, arch, path)
    module.load_state_dict({n: v for n, v in named.items() if n in own}, strict=False)
    notes = []
    if not _WRAPPERS.fullmatch(prefix):
        notes.append(f"the weights' names begin with '{prefix}', which was left out")
    if surplus:
        notes.append(f"left out, since the network has no such weights: {_few(surplus, 8)}")
    return tuple(notes)


def _prefix(own: Mapping[str, Any], state: Mapping[str, Tensor], arch: str, path: Path) -> str:
    """What stands before the network's own names in the file.

    Raises:
        ModelError: Several whole sets of weights could be meant.
    """
    hits: dict[str, int] = {"": 0}
    for name in state:
        parts = name.split(".")
        for place in range(len(parts)):
            if ".".join(parts[place:]) in own:
                start = ".".join(parts[:place])
                start = f"{start}." if start else ""
                hits[start] = hits.get(start, 0) + 1
    whole = [
        start
        for start in hits
        if not _missing(own, {f"{start}{n}" for n in own} & set(state), start)
    ]
    whole = [start for start in whole if hits[start]]
    if "" in whole:
        return ""
    plain = [start for start in whole if not _AVERAGED.search(start.rstrip("."))] or whole
    if len(plain) > 1:
        raise ModelError(
            f"{path}: holds the weights of --arch {arch} several times, under "
            f"{', '.join(whole)}; choose with --state-key {plain[0].rstrip('.')}"
        )
    return plain[0] if plain else max(hits, key=lambda start: (hits[start], -len(start)))


def _missing(own: Mapping[str, Any], there: Iterable[str], prefix: str = "") -> list[str]:
    """The network's names that are missing; of tied ones, files may hold just one."""
    known = {name.removeprefix(prefix) for name in there}
    given = {identity(own[n]) for n in own if n in known}
    return [
        n
        for n in own
        if n not in known and not n.endswith(_COUNTER) and identity(own[n]) not in given
    ]


def _check(
    own: Mapping[str, Any],
    named: Mapping[str, Tensor],
    surplus: Iterable[str],
    arch: str,
    path: Path,
) -> None:
    """Compare names and shapes.

    Raises:
        ModelError: They differ; the message names the first few.
    """
    shapes = [
        f"{n} ({_size(named[n])} in the file, {_size(own[n])} in the network)"
        for n in own
        if n in named and isinstance(own[n], Tensor) and named[n].shape != own[n].shape
    ]
    missing, more = _missing(own, named), list(surplus)
    faults = [
        ("missing in the file", missing),
        ("unknown to the network", more),
        ("of another shape", shapes),
    ]
    told = [f"{what}: {_few(names)}" for what, names in faults if names]
    if not told:
        return
    hint = ""
    if more and not missing and not shapes:
        averaged = sorted(
            {
                n.rpartition(".")[0].partition(".")[0]
                for n in more
                if _AVERAGED.search(n.partition(".")[0])
            }
        )
        hint = "; give --allow-surplus to leave them out"
        if averaged:
            hint += f", or --state-key {averaged[0]} for the averaged weights (EMA)"
    raise ModelError(f"{path}: doesn't fit --arch {arch}; {'; '.join(told)}{hint}")


def _few(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _size(tensor: Tensor) -> str:
    return "x".join(str(s) for s in tensor.shape) or "a single number"
