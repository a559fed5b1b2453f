# SPDX-License-Identifier: Apache-2.0
"""State dicts: finding one in a file, building its module with the user's own factory."""

import importlib
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.errors import MissingExtra, ModelError, nearest
from edgeprune.model.kinds import Kind, Pickle, inspect_pickle
from edgeprune.model.program import identity, quietly, reason

__all__ = ["build", "importable", "read_pickled", "read_safetensors"]

_NESTS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights."""
_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
_PLAIN = frozenset({"collections.OrderedDict", "builtins.dict"})


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


def read_pickled(path: Path, *, trusted: bool) -> nn.Module | dict[str, Tensor]:
    """A state dict or, where ``trusted``, a whole module that ``torch.save`` wrote.

    Only tensors are unpickled unless ``trusted``.

    Raises:
        ModelError: It is damaged, would run code, or holds no weights.
    """
    found = inspect_pickle(path)
    try:
        with quietly(), importable():
            value = torch.load(path, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError as error:
        if not trusted:
            raise ModelError(_untrusted(path, found)) from None
        raise ModelError(f"{path}: damaged: {reason(error)}") from None
    except Exception as error:  # a damaged file, or the user's own classes, raise anything
        hint = ""
        if isinstance(error, ImportError | AttributeError):
            hint = "; its classes must be importable from the current folder"
        raise ModelError(f"{path}: can't be loaded: {reason(error)}{hint}") from error
    return _weights(value, path)


def _untrusted(path: Path, found: Pickle) -> str:
    """Why a file that only unpickling could read is refused, and the ways out."""
    outer = found.outer if found.outer not in _PLAIN else None
    if found.module:
        what = f"a pickled module ({outer})" if outer else "a pickled module"
        return (
            f"{path}: {what}; loading it runs code from the file: save its state_dict() and give "
            "--arch package.module:factory, or give --trust-pickle if you trust where it comes from"
        )
    foreign = [c for c in found.classes if c not in _PLAIN and not c.startswith("torch.")]
    names = ", ".join((foreign or found.classes)[:3])
    return (
        f"{path}: besides tensors it holds pickled objects ({names}), which would run code: save "
        "the state_dict() alone, or give --trust-pickle if you trust where it comes from"
    )


def _weights(value: Any, path: Path) -> nn.Module | dict[str, Tensor]:
    """The module or the state dict in what a file held.

    Raises:
        ModelError: There is neither.
    """
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, Mapping):
        if value and all(isinstance(k, str) for k in value):
            if all(isinstance(v, Tensor) for v in value.values()):
                return dict(value)
            for key in _NESTS:
                if isinstance(value.get(key), Mapping | nn.Module):
                    return _weights(value[key], path)
        keys = ", ".join(str(k) for k in list(value)[:5]) or "nothing"
        raise ModelError(
            f"{path}: no state dict in it (it holds {keys}); weights are looked for at the top "
            f"and under {', '.join(_NESTS)}"
        )
    raise ModelError(f"{path}: holds a {type(value).__name__}, not a state dict")


def build(state: dict[str, Tensor], arch: str | None, path: Path, kind: Kind) -> nn.Module:
    """The module that ``arch`` makes, with ``state`` in it.

    Raises:
        ModelError: ``arch`` is missing or makes no module, or names or shapes differ.
    """
    if arch is None:
        raise ModelError(
            f"{path}: a state dict ({kind.value}), which has weights but no network: give "
            "--arch package.module:factory"
        )
    module = _make(arch)
    state = _stripped(state)
    _check(module, state, arch, path)
    module.load_state_dict(state, strict=False)
    return module


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
    try:
        return importlib.import_module(where)
    except Exception as error:  # the user's module runs on import
        raise ModelError(
            f"--arch {arch}: can't import {where} from the current folder: {reason(error)}"
        ) from error


def _call(factory: Callable[[], Any], arch: str) -> nn.Module:
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise ModelError(f"--arch {arch}: a {type(factory).__name__}, not a function or class")
    try:
        module = factory()
    except Exception as error:  # the user's code
        raise ModelError(f"--arch {arch}: calling it without arguments: {reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"--arch {arch}: gives a {type(module).__name__}, not a torch.nn.Module")
    return module


def _stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if state and all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check(module: nn.Module, state: dict[str, Tensor], arch: str, path: Path) -> None:
    """Compare names and shapes.

    Raises:
        ModelError: They differ; the message names the first few.
    """
    own = module.state_dict()
    counters = {n for n in own if n.endswith("num_batches_tracked")}  # old files lack them
    given = {identity(own[n]) for n in own if n in state}  # of tied ones, files may hold just one
    missing = [n for n in own if n not in state and n not in counters]
    shapes = [
        f"{n} ({_size(state[n])} in the file, {_size(own[n])} in the network)"
        for n in own
        if n in state and isinstance(own[n], Tensor) and state[n].shape != own[n].shape
    ]
    faults = [
        ("missing in the file", [n for n in missing if identity(own[n]) not in given]),
        ("unknown to the network", [n for n in state if n not in own]),
        ("of another shape", shapes),
    ]
    told = [f"{what}: {_few(names)}" for what, names in faults if names]
    if told:
        raise ModelError(f"{path}: doesn't fit --arch {arch}; {'; '.join(told)}")


def _few(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _size(tensor: Tensor) -> str:
    return "x".join(str(s) for s in tensor.shape) or "a single number"
