# SPDX-License-Identifier: Apache-2.0
"""What a healthy artifact answers: one batch, the outputs expected for it, how near is near enough.

Two computers that both are right differ in the last bits of a float, and in int8 where a value
lies between two steps. So every output has a tolerance, set where the outputs were recorded
(``edgeprune.health``), with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from edgeprune.errors import CheckFailed

if TYPE_CHECKING:  # manifests are read without it
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Batch", "Difference", "Expected", "ExpectedOutput", "Health", "compare", "read_batch"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ExpectedOutput(_Frozen):
    """One output of an artifact."""

    name: str
    tolerance: float | None = Field(ge=0)
    """Largest absolute difference, in the output's own unit; ``None``: its values aren't compared,
    only its shape and type."""
    why: str


class Expected(_Frozen):
    """What one artifact gave where it was made."""

    runtime: str
    inputs: tuple[str, ...]
    outputs: tuple[ExpectedOutput, ...]


class Health(_Frozen):
    """The health part of a manifest; the arrays themselves are in ``file`` beside it.

    There, ``FILE:input:K`` and ``FILE:output:K`` are input and output K of artifact ``FILE``.
    """

    file: str
    inputs: str
    """Where the batch comes from: the evaluation data, or random numbers."""
    artifacts: dict[str, Expected]
    """By file name."""


@dataclass(frozen=True)
class Batch:
    """The arrays of one artifact, in the order of its inputs and outputs."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class Difference:
    """How far an output is from the expected one."""

    output: str
    largest: float
    tolerance: float | None


def read_batch(path: Path, artifact: str, expected: Expected) -> Batch:
    """The arrays of ``artifact`` in ``path``.

    Raises:
        InputError: They aren't there.
    """
    from edgeprune.profiler.npz import opened

    with opened(path) as file:
        return Batch(
            tuple(file.read(f"{artifact}:input:{k}") for k in range(len(expected.inputs))),
            tuple(file.read(f"{artifact}:output:{k}") for k in range(len(expected.outputs))),
        )


def compare(
    artifact: str, expected: Expected, wanted: Sequence[Array], got: Mapping[str, Array]
) -> tuple[Difference, ...]:
    """Hold the outputs ``got`` on a device, by name, against those that are ``wanted``.

    Raises:
        CheckFailed: One is missing, has another shape or type, isn't finite where it should be, or
            differs by more than its tolerance; the message has the figures.
    """
    return tuple(
        _compare(f"{artifact}, output {output.name}", output, array, got.get(output.name))
        for output, array in zip(expected.outputs, wanted, strict=True)
    )


def _compare(label: str, output: ExpectedOutput, wanted: Array, got: Array | None) -> Difference:
    import numpy as np

    if got is None:
        raise CheckFailed(f"{label}: the device gives no such output")
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise CheckFailed(
            f"{label}: the device gives {got.dtype} {got.shape}, {wanted.dtype} {wanted.shape} "
            "was expected"
        )
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    odd = ~np.isfinite(a)
    if not np.array_equal(odd, ~np.isfinite(b)) or not np.array_equal(a[odd], b[odd], True):
        count = int((np.isfinite(a) & ~np.isfinite(b)).sum())
        raise CheckFailed(
            f"{label}: {count} values are NaN or infinite on the device"
            if count
            else f"{label}: values that are NaN or infinite elsewhere are others on the device"
        )
    largest = float(np.abs(a[~odd] - b[~odd]).max(initial=0.0))
    if output.tolerance is not None and largest > output.tolerance:
        raise CheckFailed(
            f"{label}: off by up to {largest:.3g}; {output.tolerance:.3g} is allowed ({output.why})"
        )
    return Difference(output.name, largest, output.tolerance)
