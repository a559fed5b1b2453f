# SPDX-License-Identifier: Apache-2.0
"""The page of the tickets bench, of the rows that are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tickets_runs import Plan, fits

__all__ = ["page"]

Row = Mapping[str, Any]


def page(plan: Plan, rows: Sequence[Row]) -> str:
    """Markdown: a table a network and density, then the comparisons of their own."""
    rows = [row for row in rows if fits(plan, row)]
    lines = [f"# Sparse training on {plan.title}", "", *_head(plan, rows), ""]
    for net in dict.fromkeys(case.net for case in plan.cases):
        for density in dict.fromkeys(case.density for case in plan.cases if case.net == net):
            lines += _section(plan, rows, net, density)
    return "\n".join([*lines, *_foot(rows), ""])


def _head(plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    trained = ", ".join(f"{net} for {count} epochs" for net, count in plan.epochs.items())
    wide = " (128 in the wide network)" if "resnet20x2" in plan.epochs else ""
    elastic = ""
    if "resnet32" in plan.epochs:
        elastic = (
            " Elastic is ResNet-20's ticket stretched to ResNet-32, with its weights or with new "
            "ones; its random mask has as many weights in each layer, at other places."
        )
    yield (
        f"Every run trains {trained} (early-bird and late-bird for {plan.bird_epochs}"
        f"{_fewer(plan)}) from newly drawn weights, the same for all kinds by seed, with SGD at "
        f"{plan.rate:g}, a cosine and batches of {plan.batch_size}, products in {plan.precision}. "
        "IMP halves the living weights at each level and rewinds to a tenth of the steps; its "
        "controls, and its ticket retrained, each get one whole training. Late-bird is "
        "early-bird's pruning after a whole training, and another whole training after it; the "
        "early bird retrained gets that from the weights that it was cut with. Scores before "
        f"training look at 512 samples{wide}.{elastic}"
    )
    yield ""
    yield (
        "Accuracy is of the evaluation data, seen once, at the end: mean and range over seeds. "
        "Costs are multiples of one dense training, finding included, but for what is only trained "
        "(controls, retrained, elastic): `done` is what this machine did, `sparse` leaves out what "
        "a zero makes needless. Effective density counts only living weights that lie on a living "
        "path from an input to an output."
    )
    left = len(plan.cases) - len(rows)
    if left:
        yield ""
        yield f"**{left} of {len(plan.cases)} runs are not done yet**; cells say how many seeds."


def _fewer(plan: Plan) -> str:
    """The data of the birds, where it isn't that of the others."""
    data, birds = (Path(name.split("=")[0]).stem for name in (plan.data, plan.bird_data))
    return "" if data == birds else f", on {birds} in place of {data}"


def _section(plan: Plan, rows: Sequence[Row], net: str, density: float) -> Iterator[str]:
    kinds = dict.fromkeys(c.kind for c in plan.cases if (c.net, c.density) == (net, density))
    cells = {kind: _cell(rows, net, kind, density) for kind in kinds}
    if not any(cells.values()):
        return
    yield f"## {net}, density {density:g}"
    yield ""
    yield (
        "| method | seeds | accuracy % | done | sparse | layer densities | effective density "
        "| dead layers |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for kind, found in cells.items():
        if found:
            yield _line(kind, found)
    yield ""
    yield from _birds(cells.get("early-bird", []))
    yield from _pairs(cells)


def _cell(rows: Iterable[Row], net: str, kind: str, density: float) -> list[Row]:
    wanted = (net, kind, density)
    return [
        r for r in rows if (r["case"]["net"], r["case"]["kind"], r["case"]["density"]) == wanted
    ]


def _line(kind: str, rows: Sequence[Row]) -> str:
    accuracy = [row["accuracy"] for row in rows]
    layers = [row["layers"] for row in rows if row["layers"]]
    dead = [len(row["collapsed"]) for row in rows]
    shown = "-"
    if layers:
        shown = f"{min(low for low, _ in layers):.3f} to {max(high for _, high in layers):.3f}"
    return (
        f"| {kind} | {len(rows)} | {_spread(accuracy)} | {_mean(rows, 'dense')}x "
        f"| {_mean(rows, 'sparse')}x | {shown} | {_effective(rows)} "
        f"| {' '.join(map(str, dead)) if any(dead) else 0} |"
    )


def _effective(rows: Sequence[Row]) -> str:
    """The share of weights that live on a path from input to output."""
    known = [row["effective"] for row in rows if row["effective"] is not None]
    return f"{mean(known):.3f}" if known else "-"


def _spread(values: Sequence[float]) -> str:
    text = f"{mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ({min(values):.2f} to {max(values):.2f})"


def _mean(rows: Sequence[Row], key: str) -> str:
    return f"{mean(row[key] for row in rows):.2f}"


def _birds(rows: Sequence[Row]) -> Iterator[str]:
    """When the early birds were found."""
    for row in rows:
        details = row["details"]
        share = details.get("share")
        if share is not None:
            yield f"- seed {row['case']['seed']}: found after {100 * share:.0f} % of the training"
    if rows:
        yield ""


_PAIRS = (
    ("imp, retrained", "imp, reinitialised"),
    ("imp, retrained", "imp, random-mask"),
    ("imp, retrained", "imp, shuffled"),
    ("rigl", "set"),
    ("early-bird", "late-bird"),
    ("early-bird, retrained", "late-bird"),
    ("elastic", "elastic, random-mask"),
    ("elastic, new weights", "elastic, new weights, random-mask"),
    ("dense", "dense, float32"),
)


def _pairs(cells: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Differences between two kinds, seed by seed: what all seeds share falls out."""
    lines = []
    for one, other in _PAIRS:
        ours, theirs = (
            {row["case"]["seed"]: row["accuracy"] for row in cells.get(kind, [])}
            for kind in (one, other)
        )
        found = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        if found:
            each = ", ".join(f"{value:+.2f}" for value in found)
            lines.append(f"- {one} minus {other}: {mean(found):+.2f} points ({each} by seed)")
    if lines:
        yield from (*lines, "")


def _foot(rows: Iterable[Row]) -> Iterator[str]:
    """Where and when the runs were."""
    for text in dict.fromkeys(row["origin"] for row in rows):
        yield f"{text}; one thread a run."
