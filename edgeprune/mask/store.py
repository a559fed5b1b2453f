# SPDX-License-Identifier: Apache-2.0
"""A ticket as one safetensors file with a JSON header: portable, and nothing in it is code."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.mask.mask import About, Mask, Structure
from edgeprune.model.program import reason
from edgeprune.writing import save as save_file

__all__ = ["Ticket", "read_ticket", "write_ticket"]

_VERSION = 2
"""Since 2 the checksum is of the header too."""
_HEADER = "edgeprune.ticket"
_KEEP, _START = "keep/", "start/"
_ABOUT = {"method": str, "seed": int, "model": str, "structure": str, "facts": dict}
_DEEPEST = 32
"""Levels of tables and lists in a header."""


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

    about = {name: getattr(ticket.mask.about, name) for name in _ABOUT}
    about["facts"] = dict(about["facts"])
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
    order = {"schema_version": _VERSION, "order": list(tensors)}
    header = {**order, "density": ticket.mask.density, **about}
    text = _as_json({**header, "sha256": _digest(header, tensors)})
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
        raise InputError(f"{path}: no ticket, or damaged: {reason(error)}") from None
    if about is None:
        raise InputError(
            f"{path}: a safetensors file, but no ticket (`edgeprune ticket find` writes one)"
        )
    header = _header(path, about, set(names))
    if header["sha256"] != _digest(header, tensors):
        raise InputError(f"{path}: damaged: header or tensors aren't those that were written")
    keep = {n.removeprefix(_KEEP): tensors[n] for n in header["order"] if n.startswith(_KEEP)}
    start = {n.removeprefix(_START): tensors[n] for n in header["order"] if n.startswith(_START)}
    if not keep or any(kept.dtype != torch.bool for kept in keep.values()):
        raise InputError(f"{path}: damaged: it has no masks of type bool")
    for name, value in start.items():
        _check_numbers(path, name, value, masked=name in keep)
    return Ticket(Mask(keep, About(**{name: header[name] for name in _ABOUT})), start or None)


def _check_numbers(path: Path, name: str, value: Tensor, *, masked: bool) -> None:
    """Refuse weights to start from that are no finite numbers. What no mask covers may be infinite:
    it may be a buffer, as attention's masks and the bounds of a range are."""
    if not value.is_floating_point():
        return
    numbers = value.float() if value.itemsize == 1 else value  # of float8 torch can't tell
    if bool(numbers.isnan().any()) or (masked and bool(numbers.isinf().any())):
        what = "NaN or infinity" if masked else "NaN"
        raise InputError(
            f"{path}: the weights that it starts from hold {what}, in '{name}'; find the ticket "
            "again, from a model of finite numbers"
        )


def _as_json(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, allow_nan=False)


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the header but for itself, and over the bytes of all tensors by name."""
    rest = {name: value for name, value in header.items() if name != "sha256"}
    digest = sha256(f"{_as_json(rest)}\n".encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _header(path: Path, text: str, names: set[str]) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(text, parse_constant=_number, parse_float=_number)
        version = table["schema_version"]
        if version == _VERSION:
            _check_header(table, names)
            return table
        if not isinstance(version, int):
            raise ValueError("schema_version can't be that")
    except RecursionError:
        raise InputError(f"{path}: damaged: its header is nested too deeply") from None
    except KeyError as error:
        raise InputError(f"{path}: damaged: its header lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged: its header: {reason(error)}") from None
    raise InputError(
        f"{path}: a ticket of schema version {version}, this edgeprune reads {_VERSION}; use the "
        "edgeprune that wrote it"
    )


def _check_header(table: Mapping[str, Any], names: set[str]) -> None:
    """Refuse a header of other contents, with ``KeyError``, ``TypeError`` or ``ValueError``."""
    kinds = {**_ABOUT, "sha256": str}
    wrong = [n for n, kind in kinds.items() if not isinstance(table[n], kind)]
    if wrong or table["structure"] not in get_args(Structure):
        raise ValueError(f"{wrong[0] if wrong else 'structure'} can't be that")
    options = table["facts"].get("options", {})
    if not isinstance(options, dict):
        raise ValueError("options can't be that")
    if not isinstance(options.get("pattern"), str | None):
        raise ValueError("options.pattern can't be that")
    if set(table["order"]) != names:
        raise ValueError("it has other tensors")
    _check_depth(table, _DEEPEST)


def _check_depth(value: Any, deepest: int) -> None:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if inner and deepest == 0:
        raise RecursionError
    for one in inner:
        _check_depth(one, deepest - 1)


def _number(text: str) -> float:
    """Of JSON, which has no NaN and no infinity; Python's reader takes both."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
