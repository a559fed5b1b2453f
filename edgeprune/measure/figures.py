# SPDX-License-Identifier: Apache-2.0
"""From what the agent answered to figures. Pure; runs on the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

from edgeprune.figure import Figure, measured
from edgeprune.profiler.spawn import reason
from edgeprune.profiler.stats import (
    Estimate,
    median,
    median_with_interval,
    ratio_with_interval,
    usable,
)

__all__ = ["Found", "Origins", "Samples", "clean_blocks", "dense_of", "summarize"]

_MIN_BLOCKS = 2
_RUNS_FOR = {"p50": 1, "p90": 10, "p99": 100}
"""Runs a block needs before a percentile of it says anything but its slowest run."""

_CAUSES = 2
"""Of disturbed blocks that are told."""

Block = Mapping[str, Any]


@dataclass(frozen=True)
class Samples:
    """What the agent said of one file: its answers to ``memory``, ``latency`` and ``energy``."""

    memory: Mapping[str, Any] | None = None
    blocks: Sequence[Block] = ()
    """Of ``latency``."""
    killed: int | None = None
    """The signal that ended its latency process."""
    cut: str | None = None
    """Why there are fewer blocks than were wanted."""
    energy: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Origins:
    """What the origins of all figures of a profile share."""

    where: str
    when: str
    threads: int
    inputs: str
    """``random`` or ``real``."""

    def figure(self, value: Estimate, unit: str, how: str, runs: int) -> Figure:
        """Make a measured figure."""
        how = f"{how}; {self.threads} thread{'s' if self.threads > 1 else ''}, {self.inputs} inputs"
        return measured(
            round(value.value, 10),
            unit,
            how,
            where=self.where,
            when=self.when,
            runs=runs,
            low=value.low,
            high=value.high,
        )


class Found(NamedTuple):
    """Figures by key; what is missing, and why; remarks."""

    figures: dict[str, Figure]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def clean_blocks(blocks: Sequence[Block]) -> list[Block]:
    """Those blocks that nothing else on the machine disturbed."""
    return [block for block in blocks if not block["tainted"]]


def summarize(
    sizes: Mapping[str, Figure], samples: Mapping[str, Samples], origins: Origins
) -> tuple[dict[str, dict[str, Figure]], tuple[str, ...], tuple[str, ...]]:
    """Figures of each file; what is missing, and why; notes on disturbed blocks."""
    figures: dict[str, dict[str, Figure]] = {}
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    for name, sample in samples.items():
        figures[name] = {"bytes": sizes[name]}
        for found in (
            _memory(name, sample.memory, origins),
            _latency(name, sample, origins),
            _ratio(name, samples, origins),
            _energy(name, sample.energy, origins),
        ):
            figures[name] |= found.figures
            missing += found.missing
            notes += found.notes
    return figures, tuple(missing), tuple(notes)


def dense_of(name: str, names: Mapping[str, Any]) -> str | None:
    """Name the dense file of the same format as ``name``, where there is one beside it."""
    dense = f"dense{PurePath(name).suffix}"
    return dense if dense in names and dense != name else None


def _memory(name: str, answer: Mapping[str, Any] | None, origins: Origins) -> Found:
    if answer is None:
        return Found({})
    if answer["killed"] is not None:
        return Found({}, (f"{name}: memory: {reason(answer['killed'])}",))
    if not answer["peak"]:
        return Found({}, (f"{name}: memory: the time limit came first; raise it",))
    count = len(answer["peak"])
    since = "since its load" if answer["reset"] else "since its start"
    runtime = answer["runtime"]
    base = median(answer["base"]) / 1e6
    spread = f"median of {count} fresh processes, interval from the lowest to the highest"
    texts = {
        "peak": f"peak resident memory (VmHWM) of a process {since}, Python and {runtime} "
        f"({base:.1f} MB) with it; fixed malloc thresholds; {spread}",
        "model": f"growth of anonymous memory (RssAnon) by loading and running it in {runtime}; "
        f"{spread}",
    }
    found = {}
    for key, how in texts.items():
        values = answer[key]
        estimate = Estimate(median(values), min(values), max(values), 0.0)
        found[f"memory_{key}"] = origins.figure(estimate, "B", how, count)
    arena = answer["arena"]
    if arena is None:
        return Found(found, (f"{name}: arena: {answer['arena_reason']}",))
    size = arena["bytes"]
    found["arena"] = origins.figure(Estimate(size, size, size, 1.0), "B", arena["how"], count)
    return Found(found)


def _latency(name: str, sample: Samples, origins: Origins) -> Found:
    blocks = sample.blocks
    if sample.killed is not None:
        return Found({}, (f"{name}: latency: {reason(sample.killed)}",))
    if len(blocks) < _MIN_BLOCKS:
        done = "one block was" if blocks else "no block was"
        why = sample.cut or "raise the time limit"
        text = f"{name}: latency: {done} done, an interval takes {_MIN_BLOCKS}: {why}"
        return Found({}, (text,))
    used, notes = _used(name, blocks)
    runs = sum(block["runs"] for block in used)
    runtime = used[0]["runtime"]
    keys = {"load": "load", "first_run": "first"}
    missing = []
    for share, needed in _RUNS_FOR.items():
        fewest = min(block["runs"] for block in used)
        if fewest >= needed:
            keys[f"latency_{share}"] = share
        else:
            missing.append(
                f"{name}: latency_{share}: {fewest} runs a block are too few, {needed} are needed"
            )
    if sample.cut is not None:
        missing.append(f"{name}: all blocks of latency that were planned: {sample.cut}")
    found = {}
    for key, source in keys.items():
        estimate = median_with_interval([block[source] for block in used])
        how = f"{_text(key)}, {runtime}; {_blocks_text(estimate, used, len(blocks))}"
        total = runs if key.startswith("latency") else len(used)
        found[key] = origins.figure(estimate, "s", how, total)
    return Found(found, tuple(missing), notes)


def _ratio(name: str, samples: Mapping[str, Samples], origins: Origins) -> Found:
    dense = dense_of(name, samples)
    if dense is None:
        return Found({})
    both = _pairs(usable(samples[name].blocks), usable(samples[dense].blocks))
    if len(both) < _MIN_BLOCKS:
        both = _pairs(samples[name].blocks, samples[dense].blocks)
    if len(both) < _MIN_BLOCKS:
        return Found({}, (f"{name}: latency_ratio: fewer than {_MIN_BLOCKS} rounds with {dense}",))
    ratios = [round(a["p50"] / b["p50"], 4) for a, b in both]
    estimate = ratio_with_interval(ratios)  # what slows a round slows both
    mine = [block for block, _ in both]
    how = (
        f"p50 over that of {dense}, Hodges-Lehmann estimate of {len(both)} rounds with its "
        f"{100 * estimate.coverage:.0f} % signed-rank interval"
    )
    runs = sum(block["runs"] for block in mine)
    return Found({"latency_ratio": origins.figure(estimate, "x", how, runs)})


def _pairs(mine: Sequence[Block], theirs: Sequence[Block]) -> list[tuple[Block, Block]]:
    """Blocks of the same round; of a round's repeats the last."""
    other = {block["turn"]: block for block in theirs}
    own = {block["turn"]: block for block in mine}
    return [(own[turn], other[turn]) for turn in sorted(own.keys() & other.keys())]


def _energy(name: str, answer: Mapping[str, Any] | None, origins: Origins) -> Found:
    if answer is None:
        return Found({})
    if answer["meter"] is None:
        return Found({}, (f"{name}: energy: {answer['reason']}",))
    joules = answer["joules_per_inference"]
    if joules is None:
        return Found({}, (f"{name}: energy: {answer['reason']}",))
    runs, idle = answer["busy"]["runs"], answer["idle"]["watts"]
    how = (
        f"energy of one inference by {answer['meter']}: the integral over {runs} inferences less "
        f"the idle {idle:.3g} W over the same time"
    )
    figure = measured(joules, "J", how, where=origins.where, when=origins.when, runs=runs)
    return Found({"energy": figure})


def _used(name: str, blocks: Sequence[Block]) -> tuple[Sequence[Block], tuple[str, ...]]:
    """Choose the undisturbed blocks, or all where hardly any is; with a note where that matters."""
    clean = clean_blocks(blocks)
    disturbed = len(blocks) - len(clean)
    if not disturbed:
        return blocks, ()
    causes = list(dict.fromkeys(reason for block in blocks for reason in block["tainted"]))
    why = "; ".join([*causes[:_CAUSES], "..."] if len(causes) > _CAUSES else causes)
    text = f"{name}: {disturbed} of {len(blocks)} blocks were disturbed ({why}) and "
    chosen = usable(blocks)
    if len(chosen) < len(blocks):
        return chosen, (text + "left out",)
    return blocks, (text + "used all the same, for want of others",)


def _blocks_text(estimate: Estimate, used: Sequence[Block], total: int) -> str:
    of = f"{len(used)} of {total}" if len(used) != total else str(total)
    disturbed = len(used) - len(clean_blocks(used))
    busy = f", {disturbed} of them disturbed," if disturbed else ""
    return (
        f"median of {of} interleaved processes{busy} with its "
        f"{100 * estimate.coverage:.0f} % order-statistic interval"
    )


def _text(key: str) -> str:
    texts = {"load": "load (file in the page cache)", "first_run": "first run after the load"}
    return texts.get(key) or f"{key.removeprefix('latency_')} of a run, inputs in to outputs out"
