# SPDX-License-Identifier: Apache-2.0
"""A model as one file, and back."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from edgeprune import writing
from edgeprune.errors import ModelError
from edgeprune.model.archive import MARK, open_archive
from edgeprune.model.carrier import Event, Input, Model, Output
from edgeprune.model.names import output_names
from edgeprune.model.program import copied, own, quietly, reason, swept
from edgeprune.model.shapes import Wanted
from edgeprune.recipe import NUMERICS

__all__ = ["described_inputs", "from_archive", "read", "save"]

_VERSION = 2
"""2 has the batch axes and the outputs' names; 1 is still read."""


def save(model: Model, path: Path) -> None:
    """Write ``model`` to ``path`` as a ``torch.export`` archive with its history inside.

    The file appears at once or not at all, and the same model gives the same bytes in every
    process. It holds no path, no stack trace and no example data of this machine.

    Raises:
        OutputError: The file can't be written.
    """
    about = {
        "schema_version": _VERSION,
        "numerics": model.numerics,
        "inputs": [asdict(i) | {"dtype": _dtype_name(i.dtype)} for i in model.inputs],
        "outputs": [asdict(output) for output in model.outputs],
        "history": [asdict(event) for event in model.history],
    }
    extra = {MARK: json.dumps(about, indent=1, sort_keys=True)}
    # To memory first: torch names the archive's folder after the file, which would be in the bytes.
    buffer = io.BytesIO()
    with quietly():
        torch.export.save(_clean(model.program), buffer, extra_files=extra)
    writing.save(path, [buffer.getbuffer()])


def read(path: Path) -> Model:
    """Read what ``save`` wrote, bit-equal; needs no class of the user and runs no code of the file.

    Raises:
        ModelError: It isn't there, damaged, or not written by ``save``.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file")
    program, about = open_archive(path)
    if not about:
        raise ModelError(f"{path}: not written by edgeprune (it has no {MARK})")
    return from_archive(program, about, path)


def from_archive(program: ExportedProgram, about: str, path: Path) -> Model:
    """The model of a program and of the text that ``save`` stored beside it.

    Raises:
        ModelError: The text is damaged or of a later version.
    """
    try:
        table: dict[str, Any] = json.loads(about)
        if table["schema_version"] not in (1, _VERSION):
            raise ModelError(
                f"{path}: {MARK} has schema version {table['schema_version']}, this edgeprune "
                f"reads 1 and {_VERSION}; use the edgeprune that wrote it"
            )
        if table["numerics"] not in NUMERICS:
            raise ValueError(f"numerics '{table['numerics']}'")
        inputs = tuple(_input(entry) for entry in table["inputs"])
        outputs = _outputs(table.get("outputs"), len(program.graph_signature.user_outputs))
        history = tuple(Event(**entry) for entry in table["history"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: {MARK} inside is damaged: {reason(error)}") from None
    return Model(swept(own(program)), inputs, outputs, history, table["numerics"])


def described_inputs(about: str, path: Path) -> tuple[Wanted, ...]:
    """What a model takes, of the text that ``save`` stored beside it.

    Raises:
        ModelError: The text is damaged.
    """
    try:
        inputs = tuple(_input(entry) for entry in json.loads(about)["inputs"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: {MARK} inside is damaged: {error}") from None
    dynamic = any(i.dynamic_batch for i in inputs)
    return tuple(
        Wanted(
            i.name,
            tuple(
                None if i.dynamic_batch and place == i.batch_axis else size
                for place, size in enumerate(i.shape)
            ),
            i.dtype,
            i.batch_axis,
            fixed=not dynamic,
        )
        for i in inputs
    )


def _input(entry: dict[str, Any]) -> Input:
    dtype = getattr(torch, entry["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype '{entry['dtype']}'")
    axis = entry.get("batch_axis", 0 if entry["shape"] else None)
    if axis is not None and axis not in range(len(entry["shape"])):
        raise ValueError(f"batch_axis {axis}")
    return Input(entry["name"], tuple(entry["shape"]), dtype, entry["dynamic_batch"], axis)


def _outputs(entries: list[dict[str, Any]] | None, count: int) -> tuple[Output, ...]:
    if entries is None:  # the first version of the schema
        return tuple(Output(name) for name in output_names([(n,) for n in range(count)], ()))
    if len(entries) != count:
        raise ValueError(f"{len(entries)} outputs where the program gives {count}")
    return tuple(Output(**entry) for entry in entries)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _clean(program: ExportedProgram) -> ExportedProgram:
    """A copy without anything of this machine, its tensors each alone in their memory."""
    shadow = ExportedProgram(
        root=program.graph_module,
        graph=copied(program),
        graph_signature=program.graph_signature,
        state_dict=dict(program.state_dict),
        range_constraints=dict(program.range_constraints),
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=dict(program.constants),
        verifiers=program.verifiers,
    )
    return own(shadow)
