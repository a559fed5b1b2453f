# SPDX-License-Identifier: Apache-2.0
"""From a model file of any kind to a ``Model``."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model.archive import Opened, open_archive
from edgeprune.model.capture import as_model, capture
from edgeprune.model.carrier import Event, Model
from edgeprune.model.checkpoint import choose
from edgeprune.model.finite import require_finite
from edgeprune.model.foreign import adopt
from edgeprune.model.kinds import Kind, recognise
from edgeprune.model.program import reason
from edgeprune.model.shapes import Axes, Shapes, examples, fit, said_axes, zeros
from edgeprune.model.store import from_archive
from edgeprune.model.torchscript import convert, open_torchscript
from edgeprune.model.weights import build, read_pickled, read_safetensors
from edgeprune.model.widen import WIDENED, is_half, widen

__all__ = ["Loaded", "load"]


@dataclass(frozen=True)
class Loaded:
    """A model, and what the user should know of how it was loaded."""

    model: Model
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Given:
    """What the user said besides the file."""

    path: Path
    arch: str | None
    shapes: Shapes | None
    example: tuple[Tensor, ...] | None
    example_axes: Axes | None
    state_key: str | None = None
    allow_surplus: bool = False
    opened: Opened | None = None

    def source(self) -> str:
        return "the data" if self.example is not None else "--input-shape"

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Example inputs.

        Raises:
            ModelError: Neither shapes nor data are given.
        """
        found = examples(self.example, self.shapes, (dtype,), self.example_axes)
        if not found:
            raise ModelError(
                f"{self.path}: the file doesn't tell the shape of the inputs: give --input-shape, "
                "such as 1x3x224x224, or --data"
            )
        return found

    def axes(self, inputs: tuple[Tensor, ...]) -> Axes | None:
        """Where the samples are in ``inputs``; ``None``: nobody said it."""
        if self.example is not None:
            return self.example_axes
        return None if self.shapes is None else said_axes(self.shapes, inputs)


def load(  # noqa: PLR0913 - what a file may not tell
    path: Path,
    *,
    arch: str | None = None,
    input_shapes: Shapes | None = None,
    example: tuple[Tensor, ...] | None = None,
    axes: Axes | None = None,
    trust_pickle: bool = False,
    state_key: str | None = None,
    allow_surplus: bool = False,
    opened: Opened | None = None,
) -> Loaded:
    """Load and capture a model file, recognised by its content.

    Args:
        path: A ``torch.export`` program (``.pt2``), a state dict or, where ``trust_pickle``,
            TorchScript or a pickled module.
        arch: ``package.module:factory`` for a state dict, imported with the current folder on the
            path; called without arguments, it gives an ``nn.Module``.
        input_shapes: One for each input, batch first: sizes, ``InputShape`` or text such as
            ``1x16:int64``. Without a type an input takes the type of the model's parameters.
        example: One batch of real inputs, which goes before ``input_shapes``; only shapes and
            types count. A program that edgeprune or torch.export saved needs neither.
        axes: The axis of the samples of each of ``example``, ``None`` for one that serves all
            samples. Not given: the first axis, where its size is that of the first input's.
        trust_pickle: Unpickle a file that may run code.
        state_key: Which weights of a checkpoint that holds several: a key, dotted where nested.
        allow_surplus: Leave out weights that the network doesn't have.
        opened: What ``open_archive`` gave of the file, which isn't read again then. It is used up.

    Returns:
        The captured model and notes: a static batch with its reason, what was ignored or changed.

    Raises:
        ModelError: The file isn't there, damaged, no model, would run code, doesn't fit ``arch``
            or the inputs, can't be captured, or holds weights that aren't finite; always one line.
        MissingExtra: A safetensors file without that package.
    """
    loaded = _load(
        _Given(path, arch, input_shapes, example, axes, state_key, allow_surplus, opened),
        trust_pickle,
    )
    require_finite(loaded.model, path)
    return loaded


def _load(given: _Given, trust_pickle: bool) -> Loaded:
    kind, arch = recognise(given.path), given.arch
    if kind is Kind.PROGRAM:
        loaded = _program(given, trust_pickle)
    elif kind is Kind.TORCHSCRIPT:
        loaded = _torchscript(given, trust_pickle)
    else:
        return _module(given, kind, trust_pickle)
    if given.state_key is not None or given.allow_surplus:
        option = "--allow-surplus" if given.state_key is None else "--state-key"
        raise ModelError(f"{given.path}: {option} is for state dicts; the file holds the network")
    if arch is not None:
        note = f"--arch {arch} isn't needed: the file holds the network"
        return Loaded(loaded.model, (*loaded.notes, note))
    return loaded


def _program(given: _Given, trusted: bool) -> Loaded:
    """Read a ``.pt2`` file: bit-equal if edgeprune wrote it.

    Raises:
        ModelError: As ``load``.
    """
    program, about = given.opened or open_archive(given.path, trusted=trusted)
    try:
        return _taken(given, program, about)
    except EdgepruneError:
        raise
    except Exception as error:  # a graph that contradicts itself raises anything
        raise ModelError(
            f"{given.path}: not a program that can be used: {reason(error)}"
        ) from error


def _taken(given: _Given, program: ExportedProgram, about: str) -> Loaded:
    if about:
        model = from_archive(program, about, given.path)
        wanted = zeros((i.shape, i.dtype) for i in model.inputs)
        found = examples(given.example, given.shapes, [t.dtype for t in wanted], given.example_axes)
        fit(
            wanted,
            found,
            given.source(),
            axes=(model.batch_axes, given.example_axes or model.batch_axes),
        )
        return Loaded(model)
    fresh = adopt(program, given.path, given.example, given.shapes, given.example_axes)
    return Loaded(as_model(fresh, _event(Kind.PROGRAM)), fresh.notes)


def _torchscript(given: _Given, trusted: bool) -> Loaded:
    """Convert TorchScript, whose own code runs as it is loaded and traced.

    Raises:
        ModelError: As ``load``.
    """
    if not trusted:
        raise ModelError(
            f"{given.path}: TorchScript; loading it runs code from the file: export the module "
            "with torch.export.export and torch.export.save and give that .pt2 file, or give "
            "--trust-pickle if you trust where it comes from"
        )
    script = open_torchscript(given.path)
    inputs = given.inputs(_float_type(script))
    found = convert(script, inputs, given.path, given.axes(inputs))
    return Loaded(as_model(found, _event(Kind.TORCHSCRIPT)), found.notes)


def _module(given: _Given, kind: Kind, trusted: bool) -> Loaded:
    """Read a state dict or a pickled module, and capture it.

    Raises:
        ModelError: As ``load``.
    """
    path, arch = given.path, given.arch
    pickled = kind is Kind.PICKLED
    value = read_pickled(path, trusted=trusted) if pickled else read_safetensors(path)
    chosen = choose(value, path, given.state_key)
    notes = chosen.notes
    if isinstance(chosen.value, nn.Module):
        module, event = chosen.value, _event(kind, state_key=given.state_key)
        if arch is not None:
            notes = (*notes, f"--arch {arch} isn't needed: the file holds the network")
    else:
        module, said = build(chosen.value, arch, path, kind, allow_surplus=given.allow_surplus)
        notes, event = (*notes, *said), _event(kind, arch, given.state_key)
    if is_half(module):
        widen(module)
        notes = (*notes, WIDENED)
    try:
        inputs = given.inputs(_float_type(module))
        model, more = capture(module, inputs, event=event, axes=given.axes(inputs))
    except ModelError as error:
        raise ModelError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return Loaded(model, (*notes, *more))


def _event(kind: Kind, arch: str | None = None, state_key: str | None = None) -> Event:
    options = {"kind": kind.value, "arch": arch, "state_key": state_key}
    return Event("load", {name: value for name, value in options.items() if value})


def _float_type(module: nn.Module) -> torch.dtype:
    """The type of the model's first floating-point parameter; float32 if it has none."""
    types = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(types, torch.float32)
