# SPDX-License-Identifier: Apache-2.0
"""A ticket as one safetensors file with a JSON header: portable, and nothing in it is code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    header = {"schema_version": _VERSION, "density": ticket.mask.density, **about}
    tensors = {_KEEP + name: kept.contiguous() for name, kept in ticket.mask.keep.items()}
    tensors |= {_START + n: t.detach().clone() for n, t in (ticket.start or {}).items()}
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    save_file(path, [save(tensors, {_HEADER: text})])


def read_ticket(path: Path) -> Ticket:
    """Read what ``write_ticket`` wrote.

    Raises:
        InputError: It isn't there, damaged, or no ticket.
    """
    from safetensors import SafetensorError, safe_open

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
    keep = {n.removeprefix(_KEEP): t for n, t in tensors.items() if n.startswith(_KEEP)}
    start = {n.removeprefix(_START): t for n, t in tensors.items() if n.startswith(_START)}
    if not keep or any(kept.dtype != torch.bool for kept in keep.values()):
        raise InputError(f"{path}: damaged: it has no masks of type bool")
    return Ticket(Mask(keep, _about(path, about)), start or None)


def _about(path: Path, text: str) -> About:
    try:
        table: dict[str, Any] = json.loads(text)
        if table["schema_version"] != _VERSION:
            raise InputError(
                f"{path}: a ticket of schema version {table['schema_version']}, this edgeprune "
                f"reads {_VERSION}; use the edgeprune that wrote it"
            )
        if table["structure"] not in get_args(Structure):
            raise ValueError(f"structure '{table['structure']}'")
        names = ("method", "seed", "model", "structure", "facts")
        return About(**{name: table[name] for name in names})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged: its header says {error}") from None
