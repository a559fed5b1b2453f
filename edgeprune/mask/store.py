# SPDX-License-Identifier: Apache-2.0
"""A ticket as one safetensors file with a JSON header: portable, and nothing in it is code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.mask.mask import About, Mask, Structure
from edgeprune.writing import save as save_file

__all__ = ["Ticket", "read_ticket", "write_ticket"]

_VERSION = 1
_HEADER = "edgeprune.ticket"
_KEEP, _START = "keep/", "start/"
_ABOUT = {"method": str, "seed": int, "model": str, "structure": str, "facts": dict}


@dataclass(frozen=True, eq=False)
class Ticket:
    """A mask and, where its method rewinds, the weights to start from."""

    mask: Mask
    start: Mapping[str, Tensor] | None = None
    """Parameters and buffers of the whole network by name (``finetune.read_state``), not masked."""


def write_ticket(path: Path, ticket: Ticket) -> None:
    """Write a ticket so that the file is whole or absent; equal tickets give equal bytes.

    Raises:
        OutputError: It can't be written.
    """
    from safetensors.torch import save

    about = {**asdict(ticket.mask.about), "facts": dict(ticket.mask.about.facts)}
    # Clones, since one tensor may be the mask of several layers, which the format doesn't know.
    tensors = {
        _KEEP + name: kept.clone(memory_format=torch.contiguous_format)
        for name, kept in ticket.mask.keep.items()
    }
    start = (ticket.start or {}).items()
    tensors |= {
        _START + n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in start
    }
    # In the file they are sorted by name; what pairs them by place needs their own order
    order = {"schema_version": _VERSION, "order": list(tensors), "sha256": _digest(tensors)}
    header = {**order, "density": ticket.mask.density, **about}
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    save_file(path, [save(tensors, {_HEADER: text})])


def read_ticket(path: Path) -> Ticket:
    """Read what ``write_ticket`` wrote.

    Raises:
        InputError: It isn't there, damaged, or no ticket.
    """
    from safetensors import SafetensorError, safe_open

    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path}: is no file; name the ticket that `edgeprune ticket find` wrote")
    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get(_HEADER)
            names = [] if about is None else list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: no ticket, or damaged: {error}") from None
    if about is None:
        raise InputError(
            f"{path}: a safetensors file, but no ticket (`edgeprune ticket find` writes one)"
        )
    header = _header(path, about, set(names))
    if header["sha256"] != _digest(tensors):
        raise InputError(f"{path}: damaged: its tensors aren't those that were written")
    keep = {n.removeprefix(_KEEP): tensors[n] for n in header["order"] if n.startswith(_KEEP)}
    start = {n.removeprefix(_START): tensors[n] for n in header["order"] if n.startswith(_START)}
    if not keep or any(kept.dtype != torch.bool for kept in keep.values()):
        raise InputError(f"{path}: damaged: it has no masks of type bool")
    for name, value in start.items():
        if value.is_floating_point() and bool(value.isnan().any()):
            raise InputError(f"{path}: the weights that it starts from hold NaN, in '{name}'")
    return Ticket(Mask(keep, About(**{name: header[name] for name in _ABOUT})), start or None)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over all bytes, in the order of names."""
    digest = sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _header(path: Path, text: str, names: set[str]) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(text)
        version = table["schema_version"]
        if version == _VERSION:
            kinds = {**_ABOUT, "sha256": str}
            wrong = [n for n, kind in kinds.items() if not isinstance(table[n], kind)]
            if wrong or table["structure"] not in get_args(Structure):
                raise ValueError(f"{wrong[0] if wrong else 'structure'} can't be that")
            if not isinstance(table["facts"].get("options", {}), dict):
                raise ValueError("options can't be that")
            if set(table["order"]) != names:
                raise ValueError("it has other tensors")
            return table
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged: its header: {error}") from None
    raise InputError(
        f"{path}: a ticket of schema version {version}, this edgeprune reads {_VERSION}; use the "
        "edgeprune that wrote it"
    )
