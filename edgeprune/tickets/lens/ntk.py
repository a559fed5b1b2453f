# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel as a lens: what a mask leaves of the dense network's training dynamics.

Under gradient flow on a wide network the outputs move along the kernel's eigenvectors, each at the
rate of its eigenvalue (Jacot et al. 2018; Lee et al. 2019). So its spectrum tells how fast and how
evenly a network learns, and its alignment with the labels whether it learns the right thing first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprune.data import Data
from edgeprune.errors import DataError, InputError
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.progress import Progress
from edgeprune.tickets.lens.jacobian import Kernel, Outputs, estimate_ntk, jacobian_ntk

__all__ = [
    "DENSE",
    "ROUNDING",
    "Lens",
    "Row",
    "Sampling",
    "alignment",
    "compare",
    "difference",
    "effective_rank",
    "lens",
]

DENSE = "dense"
"""The name of the first row."""
ROUNDING = 1e-12
"""Eigenvalues below this share of the largest are rounding: they are squares of singular values of
a Jacobian in single precision, good to about a millionth of the largest."""
_SEEDS = 4
_BATCH = 64
"""Samples read at once."""


@dataclass(frozen=True)
class Lens:
    """What a kernel says. What it can't say is ``None``."""

    spectrum: tuple[float, ...]
    """Eigenvalues, the largest first."""
    trace: float
    """Their sum."""
    condition: float | None
    """Largest by smallest eigenvalue; ``None`` where the smallest is zero up to rounding, or the
    kernel is an estimate from fewer directions than it has rows."""
    effective_rank: float
    """exp of the entropy of the eigenvalues as shares of their sum (Roy and Vetterli 2007): from 1
    to the number of rows; 0 of a kernel of zeros."""
    alignment: float | None
    """Centred alignment of the kernel by samples with the labels' own, y y^T of one-hot y (Cortes
    et al. 2012): 1 at best; ``None`` without labels or with one class."""
    distance: float | None
    """||K - K_dense|| / ||K_dense|| in the Frobenius norm; ``None`` for the dense kernel."""
    dissimilarity: float | None
    """1 - the cosine of the angle between K and K_dense: 0 where they differ by a factor."""
    parameters: int
    """That the kernel is taken over."""
    samples: int
    outputs: Outputs
    """``all``: a row an output of a sample; ``sum``: a row a sample, outputs summed."""
    how: str
    spread: float | None
    """Of an estimate: see ``Kernel.spread``."""


@dataclass(frozen=True)
class Row:
    """One network in the comparison."""

    name: str
    density: float
    lens: Lens


@dataclass(frozen=True)
class Sampling:
    """On what the kernels are computed, and how."""

    samples: int = 64
    """Training samples, evenly over the classes."""
    seed: int = 0
    """Of their choice, and the first of an estimate's four."""
    outputs: Outputs = "sum"
    """See ``Kernel.values``."""
    probes: int | None = None
    """Estimate the kernels with so many directions a seed; ``None``: compute them exactly."""
    memory: int = 2**30
    """Bytes for a piece of an exact kernel's Jacobian."""


def compare(
    model: Model,
    masks: Mapping[str, Mask],
    data: Data,
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> tuple[Row, ...]:
    """The kernels of the dense network and of each mask, all at the weights of ``model``.

    Args:
        model: Its weights are those at which the kernels are taken; for a ticket with weights of
            its own give the model with those (``finetune.with_state``).
        masks: By name.
        data: Where the samples come from.
        sampling: Which, how many and how.
        progress: Where to show it.

    Returns:
        The dense network first, then the masks in their order.

    Raises:
        InputError: A mask is for another network or called ``dense``, the model is quantized or
            has no float output, the exact kernel takes more than ``memory``, or a kernel holds
            NaN or infinity.
        DataError: The data doesn't fit the model.
    """
    sampling = sampling or Sampling()
    if DENSE in masks:
        raise InputError(f"a mask can't be called '{DENSE}': that is the network without one")
    if model.numerics != "fp32":
        raise InputError(f"the tangent kernel takes a float model; this one is {model.numerics}")
    for mask in masks.values():
        mask.check(model)
    inputs, labels = _sampled(model, data, sampling)
    dense = _kernel(model, None, inputs, sampling, progress)
    _check_finite(dense, DENSE)
    rows = [Row(DENSE, 1.0, lens(dense, labels))]
    for name, mask in masks.items():
        kernel = _kernel(model, mask, inputs, sampling, progress)
        _check_finite(kernel, name)
        rows.append(Row(name, mask.density, lens(kernel, labels, dense)))
    return tuple(rows)


def lens(kernel: Kernel, labels: Tensor | None = None, dense: Kernel | None = None) -> Lens:
    """Read a kernel.

    Args:
        kernel: Of N samples.
        labels: Classes ``[N]``, where there are any.
        dense: The kernel to compare with: of the same samples and the same form.
    """
    values = torch.linalg.eigvalsh(kernel.values).flip(0)
    apart = (None, None) if dense is None else difference(kernel.values, dense.values)
    return Lens(
        spectrum=tuple(values.tolist()),
        trace=float(kernel.values.trace()),
        condition=_condition(values, kernel.directions),
        effective_rank=effective_rank(values),
        alignment=None if labels is None else alignment(kernel.by_sample(), labels),
        distance=apart[0],
        dissimilarity=apart[1],
        parameters=kernel.parameters,
        samples=kernel.samples,
        outputs=kernel.outputs,
        how=kernel.how,
        spread=kernel.spread,
    )


def effective_rank(eigenvalues: Tensor) -> float:
    """Take exp of the entropy of the eigenvalues' shares (Roy and Vetterli 2007)."""
    positive = eigenvalues.clamp(min=0)
    total = positive.sum()
    if total <= 0:
        return 0.0
    shares = positive / total
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def alignment(kernel: Tensor, labels: Tensor) -> float | None:
    """Centred alignment with the labels: <HKH, HLH> / (||HKH|| ||HLH||), L = y y^T of one-hot y,
    H = I - 1/N (Cortes et al. 2012).

    Args:
        kernel: ``[N, N]``.
        labels: Classes ``[N]``; with more axes, or of a float type, they are none.
    """
    if labels.ndim != 1 or labels.is_floating_point():
        return None
    same = (labels[:, None] == labels[None]).to(kernel.dtype)
    mine, theirs = _centred(kernel), _centred(same)
    scale = float(mine.norm() * theirs.norm())
    small = torch.finfo(kernel.dtype).eps * float(kernel.norm() * same.norm())
    return float((mine * theirs).sum()) / scale if scale > small else None


def difference(kernel: Tensor, dense: Tensor) -> tuple[float | None, float | None]:
    """Relative distance in the Frobenius norm, and 1 - cosine; ``None`` where a norm is zero."""
    mine, theirs = float(kernel.norm()), float(dense.norm())
    if theirs == 0:
        return None, None
    distance = float((kernel - dense).norm()) / theirs
    if mine == 0:
        return distance, None
    return distance, max(0.0, 1 - float((kernel * dense).sum()) / (mine * theirs))


def _centred(kernel: Tensor) -> Tensor:
    return kernel - kernel.mean(0, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean()


def _condition(values: Tensor, directions: int | None) -> float | None:
    if directions is not None and directions < len(values):
        return None
    largest, smallest = float(values[0]), float(values[-1])
    return largest / smallest if smallest > ROUNDING * largest else None


def _check_finite(kernel: Kernel, name: str) -> None:
    if not bool(kernel.values.isfinite().all()):
        raise InputError(
            f"the tangent kernel of '{name}' holds NaN or infinity: an output or a derivative "
            "overflows on these samples; take smaller weights"
        )


def _kernel(
    model: Model,
    mask: Mask | None,
    inputs: tuple[Tensor, ...],
    how: Sampling,
    progress: Progress | None,
) -> Kernel:
    if how.probes is None:
        return jacobian_ntk(
            model, mask, inputs, outputs=how.outputs, memory=how.memory, progress=progress
        )
    return estimate_ntk(
        model,
        mask,
        inputs,
        probes=how.probes,
        seeds=range(how.seed, how.seed + _SEEDS),
        outputs=how.outputs,
        progress=progress,
    )


def _sampled(model: Model, data: Data, how: Sampling) -> tuple[tuple[Tensor, ...], Tensor | None]:
    batches = list(data.sample_train(_BATCH, how.samples, how.seed))
    inputs = tuple(torch.cat(column) for column in zip(*(b.inputs for b in batches), strict=True))
    wanted = [(i.dtype, i.shape[1:]) for i in model.inputs]
    if [(i.dtype, tuple(i.shape[1:])) for i in inputs] != wanted:
        given = ", ".join(f"{i.dtype} {tuple(i.shape[1:])}" for i in inputs)
        needed = ", ".join(f"{dtype} {tuple(shape)}" for dtype, shape in wanted)
        raise DataError(f"the model takes samples of {needed}; the data gives {given}")
    labels = [b.labels for b in batches if b.labels is not None]
    return inputs, torch.cat(labels) if len(labels) == len(batches) else None
