# SPDX-License-Identifier: Apache-2.0
"""What finding or training a ticket says of itself, as data: the JSON beside the file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeprune.evaluate import wilson_interval
from edgeprune.figure import Figure, counted, measured
from edgeprune.finetune.loop import Totals
from edgeprune.mask import Mask, Network
from edgeprune.model import Model
from edgeprune.profiler.machine import describe
from edgeprune.tickets.ledger import Ledger

__all__ = [
    "LayerReport",
    "TicketReport",
    "cost_figures",
    "held_out_figures",
    "layer_reports",
    "mask_figures",
    "now",
    "read_report",
    "uncovered",
]

_FLOPS = "an addition or a multiplication each; a gradient is two forward passes more"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LayerReport(_Frozen):
    """A weight and what of it lives."""

    name: str
    op: str
    shape: tuple[int, ...]
    size: int
    kept: int
    density: float
    macs: int
    """Multiply-accumulates of one sample with all weights."""


class TicketReport(_Frozen):
    """A whole run of ``ticket find`` or ``ticket train``."""

    schema_version: Literal[1] = 1
    run: str
    """Names it: the hash of all that went into it."""
    command: Literal["find", "train"]
    method: str
    model: str
    """File name of the model that was given."""
    fingerprint: str
    """Of that model."""
    data: str | None
    seed: int
    threads: int
    options: dict[str, Any]
    """All that the method uses, by key."""
    figures: dict[str, Figure]
    layers: tuple[LayerReport, ...]
    details: dict[str, Any]
    """The method's own: levels, epochs, distances."""
    notes: tuple[str, ...]
    files: dict[str, str]
    """Paths of what was written, from the report on, by ``ticket``, ``trained`` and ``report``."""
    machine: str
    versions: dict[str, str]
    when: str


def read_report(path: Path) -> TicketReport | None:
    """The report in a file; ``None`` where there is none."""
    try:
        return TicketReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def layer_reports(network: Network, mask: Mask) -> tuple[LayerReport, ...]:
    """The layers of a network with their share of a mask, in the order of the graph."""
    return tuple(
        LayerReport(
            name=layer.name,
            op=layer.op,
            shape=layer.shape,
            size=layer.size,
            kept=int(mask.keep[layer.name].sum()),
            density=mask.densities[layer.name],
            macs=layer.macs,
        )
        for layer in network.layers
        if layer.name in mask.keep
    )


def mask_figures(mask: Mask) -> dict[str, Figure]:
    """How much lives."""
    return {
        "density": counted(100 * mask.density, "%", "weights that live, of those that it covers"),
        "kept": counted(mask.kept, "weights", "that live"),
    }


def uncovered(model: Model, mask: Mask, exclude: Sequence[str]) -> tuple[str, ...]:
    """A note on the weights, of two dimensions or more, that can't have a mask and so stay dense;
    those that ``exclude`` names aren't told again."""
    if mask.about.structure == "channels":
        return ()
    state, names = model.program.state_dict, model.program.graph_signature.parameters
    covered = {state[name].data_ptr() for name in mask.keep}  # a tied weight has two names
    left = {
        name: state[name].numel()
        for name in names
        if state[name].ndim > 1 and state[name].data_ptr() not in covered
        if not any(fnmatchcase(name, pattern) for pattern in exclude)
    }
    if not left:
        return ()
    shown = ", ".join(list(left)[:3]) + (", ..." if len(left) > 3 else "")
    return (
        f"{sum(left.values()):,} weights are covered by no mask and stay dense ({shown}): tables, "
        f"or what the model computes its weights from; the density is of the other {mask.size:,}",
    )


def cost_figures(ledger: Ledger, samples: int | None, budget: str) -> dict[str, Figure]:
    """What a ledger counted.

    Args:
        ledger: Of the run.
        samples: That one dense training sees; ``None``: there is no data to say so.
        budget: That training in words.
    """
    figures = {
        "flops": counted(ledger.dense, "FLOPs", f"as done here, zeros included: {_FLOPS}"),
        "flops_sparse": counted(
            ledger.sparse, "FLOPs", "as hardware would do them that skips zeros"
        ),
    }
    if samples:
        dense, sparse = ledger.relative(samples)
        figures["cost"] = counted(dense, "x", f"FLOPs as done here, of {budget}")
        figures["cost_sparse"] = counted(sparse, "x", f"FLOPs without zeros, of {budget}")
    figures["steps"] = counted(ledger.steps, "steps", "updates of the weights")
    if ledger.seconds:
        figures["seconds"] = _once(ledger.seconds, "s", "wall time of the method")
    if ledger.peak_bytes is not None:
        how = "the most that the process held meanwhile, data and libraries included"
        figures["memory"] = _once(ledger.peak_bytes, "B", how)
    return figures


def held_out_figures(totals: Totals, metric: str | None) -> dict[str, Figure]:
    """Loss and score on the held-out part of the training data."""
    where, when, runs = describe(), now(), totals.samples
    part = "on the held-out part of the training data"
    loss = measured(totals.mean_loss, "loss", f"mean {part}", where=where, when=when, runs=runs)
    figures = {"holdout_loss": loss}
    if totals.percent is not None:
        low, high = wilson_interval(totals.percent / 100, totals.samples)
        figures["holdout_score"] = measured(
            totals.percent,
            "%",
            f"{metric} {part}",
            where=where,
            when=when,
            runs=runs,
            low=100 * low,
            high=100 * high,
        )
    return figures


def _once(value: float, unit: str, how: str) -> Figure:
    return measured(value, unit, how, where=describe(), when=now(), runs=1)


def now() -> str:
    """The date and time of a report."""
    return datetime.now(UTC).isoformat(timespec="seconds")
