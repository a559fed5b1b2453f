# SPDX-License-Identifier: Apache-2.0
"""State dicts: finding one in a file, building its module with the user's own factory."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import MissingExtra, ModelError, calling, nearest
from edgeprune.model.checkpoint import fill
from edgeprune.model.kinds import Kind
from edgeprune.model.pickles import Pickle, Untrusted, read_tensors
from edgeprune.model.program import quietly, reason

__all__ = ["build", "importable", "read_pickled", "read_safetensors"]


@contextmanager
def importable() -> Iterator[None]:
    """Make the current folder importable for a while; ``sys.path`` is as before afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: It is damaged.
        MissingExtra: The package isn't installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise MissingExtra("safetensors", "compress") from None
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or cut short: {reason(error)}") from None


def read_pickled(path: Path, *, trusted: bool) -> Any:
    """What ``torch.save`` wrote: a checkpoint or, where ``trusted``, a whole module.

    Only tensors are unpickled unless ``trusted``.

    Raises:
        ModelError: It is damaged, or would run code.
    """
    try:
        with quietly(), importable(), path.open("rb") as file:
            if trusted:
                return torch.load(file, map_location="cpu", weights_only=False)
            return read_tensors(file)
    except Untrusted as error:
        raise ModelError(_untrusted(path, error.found)) from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file, or the user's own classes, raise anything
        hint = ""
        if isinstance(error, ImportError | AttributeError):
            hint = "; its classes must be importable from the current folder"
        raise ModelError(f"{path}: can't be loaded: {reason(error)}{hint}") from error


def _untrusted(path: Path, found: Pickle) -> str:
    """Why a file that only unpickling could read is refused, and the ways out."""
    outer = found.outer if found.outer in found.foreign else None
    if found.module:
        what = f"a pickled module ({outer})" if outer else "a pickled module"
        return (
            f"{path}: {what}; loading it runs code from the file: save its state_dict() and give "
            "--arch package.module:factory, or give --trust-pickle if you trust where it comes from"
        )
    names = ", ".join(found.foreign[:3])
    return (
        f"{path}: besides tensors it holds pickled objects ({names}), which would run code: save "
        "the state_dict() alone, or give --trust-pickle if you trust where it comes from"
    )


def build(
    state: dict[str, Tensor],
    arch: str | None,
    path: Path,
    kind: Kind,
    *,
    allow_surplus: bool = False,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that ``arch`` makes, with ``state`` in it, and notes.

    Raises:
        ModelError: ``arch`` is missing or makes no module, or names or shapes differ.
    """
    if arch is None:
        raise ModelError(
            f"{path}: a state dict ({kind.value}), which has weights but no network: give "
            "--arch package.module:factory"
        )
    module = _make(arch)
    return module, fill(module, state, arch, path, allow_surplus=allow_surplus)


def _make(arch: str) -> nn.Module:
    """Call the user's factory.

    Raises:
        ModelError: It can't be found or called, or gives no module.
    """
    where, colon, name = arch.partition(":")
    if not (where and colon and name):
        raise ModelError(f"--arch {arch}: write it as package.module:factory")
    with quietly(), importable():
        factory: Any = _import(where, arch)
        for part in name.split("."):
            if not hasattr(factory, part):
                public = [n for n in dir(factory) if not n.startswith("_")]
                raise ModelError(f"--arch {arch}: {where} has no '{part}'{nearest(part, public)}")
            factory = getattr(factory, part)
        return _call(factory, arch)


def _import(where: str, arch: str) -> Any:
    # the user's module runs on import
    with calling(f"--arch {arch}: can't import {where} from the current folder", ModelError):
        return importlib.import_module(where)


def _call(factory: Callable[[], Any], arch: str) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelError(f"--arch {arch}: a {type(factory).__name__}, not a function or class")
    with calling(f"--arch {arch}: calling it without arguments", ModelError):
        module = factory()
    if not isinstance(module, nn.Module):
        raise ModelError(f"--arch {arch}: gives a {type(module).__name__}, not a torch.nn.Module")
    return module
