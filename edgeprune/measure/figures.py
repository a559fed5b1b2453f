# SPDX-License-Identifier: Apache-2.0
"""From what the measuring processes answered to figures. Pure; runs on the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from edgeprune.figure import Figure, counted, measured
from edgeprune.profiler.stats import TAINT, Estimate, median, median_with_interval, tainted

__all__ = ["MEMORY_REPEATS", "Origins", "Samples", "clean_blocks", "summarize"]

MEMORY_REPEATS = 3
_MIN_BLOCKS = 2
_RUNS_FOR = {"p50": 1, "p90": 10, "p99": 100}
"""Runs a block needs before a percentile of it says anything but its slowest run."""

Blocks = Mapping[int, dict[str, Any]]


@dataclass
class Samples:
    """What was measured of one file: answers of the memory jobs, and of the blocks by round."""

    memory: list[dict[str, Any]] = field(default_factory=list)
    blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    """That the last block's process took."""


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


Found = tuple[dict[str, Figure], list[str], list[str]]


def clean_blocks(blocks: Blocks) -> dict[int, dict[str, Any]]:
    """Those blocks that nothing else on the machine disturbed."""
    return {turn: b for turn, b in blocks.items() if not tainted(b["wall"], b["cpu"])}


def summarize(
    sizes: Mapping[str, int], samples: Mapping[str, Samples], origins: Origins
) -> tuple[dict[str, dict[str, Figure]], tuple[str, ...], tuple[str, ...]]:
    """Figures of each file; what is missing, and why; notes on disturbed blocks."""
    figures: dict[str, dict[str, Figure]] = {}
    missing: list[str] = []
    notes: list[str] = []
    for name, sample in samples.items():
        figures[name] = {"bytes": counted(sizes[name], "B", "size of the file")}
        for found, lacks, remarks in (
            _memory(name, sample.memory, origins),
            _latency(name, sample.blocks, origins),
            _ratio(name, samples, origins),
        ):
            figures[name] |= found
            missing += lacks
            notes += remarks
    return figures, tuple(missing), tuple(notes)


def dense_of(name: str, names: Mapping[str, Any]) -> str | None:
    """Name the dense file of the same format as ``name``, where there is one beside it."""
    dense = f"dense{PurePath(name).suffix}"
    return dense if dense in names and dense != name else None


def _memory(name: str, answers: list[dict[str, Any]], origins: Origins) -> Found:
    if not answers:
        return {}, [], []
    count = len(answers)
    since = "since its load" if all(answer["reset"] for answer in answers) else "since its start"
    runtime = answers[0]["runtime"]
    base = median([answer["base"] for answer in answers]) / 1e6
    spread = f"median of {count} fresh processes, interval from the lowest to the highest"
    texts = {
        "peak": f"peak resident memory (VmHWM) of a process {since}, Python and {runtime} "
        f"({base:.1f} MB) with it; fixed malloc thresholds; {spread}",
        "model": f"growth of anonymous memory (RssAnon) by loading and running it in {runtime}; "
        f"{spread}",
    }
    found = {}
    for key, how in texts.items():
        values = [answer[key] for answer in answers]
        estimate = Estimate(median(values), min(values), max(values), 0.0)
        found[f"memory_{key}"] = origins.figure(estimate, "B", how, count)
    return found, [], []


def _latency(name: str, blocks: Blocks, origins: Origins) -> Found:
    if len(blocks) < _MIN_BLOCKS:
        done = "one block was" if blocks else "no block was"
        text = (
            f"{name}: latency: {done} done, an interval takes {_MIN_BLOCKS}; raise the time limit"
        )
        return {}, [text], []
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
    found = {}
    for key, source in keys.items():
        estimate = median_with_interval([block[source] for block in used])
        how = f"{_text(key)}, {runtime}; {_blocks_text(estimate, used, len(blocks))}"
        total = runs if key.startswith("latency") else len(used)
        found[key] = origins.figure(estimate, "s", how, total)
    return found, missing, notes


def _ratio(name: str, samples: Mapping[str, Samples], origins: Origins) -> Found:
    dense = dense_of(name, samples)
    if dense is None:
        return {}, [], []
    mine, theirs = samples[name].blocks, samples[dense].blocks
    both = sorted(set(clean_blocks(mine)) & set(clean_blocks(theirs)))
    if len(both) < _MIN_BLOCKS:
        both = sorted(set(mine) & set(theirs))
    if len(both) < _MIN_BLOCKS:
        return {}, [f"{name}: latency_ratio: fewer than {_MIN_BLOCKS} rounds with {dense}"], []
    estimate = median_with_interval(
        [round(mine[turn]["p50"] / theirs[turn]["p50"], 4) for turn in both]
    )
    pairs = [mine[turn] for turn in both]
    how = f"p50 over that of {dense}, round by round; {_blocks_text(estimate, pairs, len(pairs))}"
    runs = sum(block["runs"] for block in pairs)
    return {"latency_ratio": origins.figure(estimate, "x", how, runs)}, [], []


def _used(name: str, blocks: Blocks) -> tuple[list[dict[str, Any]], list[str]]:
    """Choose the undisturbed blocks, or all where hardly any is; with a note where that matters."""
    clean = clean_blocks(blocks)
    disturbed = len(blocks) - len(clean)
    if not disturbed:
        return list(blocks.values()), []
    text = (
        f"{name}: {disturbed} of {len(blocks)} blocks were disturbed "
        f"(wall time over {TAINT:g} x CPU time) and "
    )
    if len(clean) >= _MIN_BLOCKS:
        return list(clean.values()), [text + "left out"]
    return list(blocks.values()), [text + "used all the same, for want of others"]


def _blocks_text(estimate: Estimate, used: list[dict[str, Any]], total: int) -> str:
    of = f"{len(used)} of {total}" if len(used) != total else str(total)
    disturbed = sum(tainted(block["wall"], block["cpu"]) for block in used)
    busy = f", {disturbed} of them disturbed," if disturbed else ""
    return (
        f"median of {of} interleaved processes{busy} with its "
        f"{100 * estimate.coverage:.0f} % order-statistic interval"
    )


def _text(key: str) -> str:
    texts = {"load": "load (file in the page cache)", "first_run": "first run after the load"}
    return texts.get(key) or f"{key.removeprefix('latency_')} of a run, inputs in to outputs out"
