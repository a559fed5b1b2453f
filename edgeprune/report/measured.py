# SPDX-License-Identifier: Apache-2.0
"""The sections of what was measured: on the device, and on the machine of the run, apart."""

from collections.abc import Mapping
from dataclasses import replace

from edgeprune.figure import Figure
from edgeprune.report import text
from edgeprune.report.schema import RunReport
from edgeprune.report.section import Rows, Section

__all__ = ["device_memory", "memory", "memory_table", "on_device", "speed", "speed_table"]

Figures = Mapping[str, Figure]


def on_device(report: RunReport) -> Section | None:
    """Speed where it counts."""
    device = report.device
    if device is None:
        return None
    lines = (
        () if device.refused is None else (f"No evidence for {report.target}: {device.refused}.",)
    )
    title = f"On the device: {device.machine}"
    found = speed_table(device.figures)
    if found is None:
        return Section(title, lines=(*lines, *device.not_measured))
    return Section(title, found.table, (*lines, *found.lines, *device.not_measured, *device.notes))


def device_memory(report: RunReport) -> Section | None:
    """What it takes there besides time."""
    found = None if report.device is None else memory_table(report.device.figures)
    return None if found is None else replace(found, title="Memory and start on the device")


def speed(report: RunReport) -> Section | None:
    """Latency on the machine of the run."""
    found = speed_table(report.profile)
    return None if found is None else replace(found, title=f"Speed on {_machine(report)}")


def speed_table(profile: Mapping[str, Figures]) -> Section | None:
    """Latency of each file, where there is any."""
    if not any("latency_p50" in figures for figures in profile.values()):
        return None
    rows = Rows(("file", "p50", "p90", "p99", "runs", "speed-up over dense"))
    lines = []
    for name, figures in profile.items():
        p50, factor = figures.get("latency_p50"), figures.get("latency_ratio")
        runs = text.ABSENT if p50 is None or p50.origin.runs is None else str(p50.origin.runs)
        high, most = (text.show(figures.get(f"latency_p{share}")) for share in (90, 99))
        rows.add("file", name, text.spread(p50), high, most, runs, text.ratio(factor))
        if factor is not None:
            lines += _judge_speed(name, factor)
    if ("file", "p99") in rows.absent:
        lines.append(f"{text.ABSENT} in p99: see what was not measured.")
    return Section("Speed", rows.table(), tuple(lines))


def _judge_speed(name: str, factor: Figure) -> list[str]:
    if factor.low is None or factor.high is None:
        return []
    if factor.low > 1:
        return [f"{name} is slower than the dense file here."]
    if factor.high >= 1:
        return [f"{name}: no difference to the dense file could be measured here."]
    return []


def memory(report: RunReport) -> Section | None:
    """Memory on the machine of the run."""
    return memory_table(report.profile)


_MEMORY = {
    "bytes": "size",
    "memory_peak": "peak memory",
    "memory_model": "of the model",
    "arena": "arena",
    "memory_wasm": "WebAssembly memory",
    "load": "load",
    "first_run": "first run",
    "energy": "energy",
    "instructions": "instructions",
    "drift": "drift",
}
"""Columns, where a file has such a figure."""


def memory_table(profile: Mapping[str, Figures]) -> Section | None:
    """Memory, start, energy of each file, as far as there are such figures."""
    keys = [key for key in _MEMORY if any(key in figures for figures in profile.values())]
    if keys in ([], ["bytes"]):
        return None
    rows = Rows(("file", *(_MEMORY[key] for key in keys)))
    for name, figures in profile.items():
        cells = (
            text.spread(figures.get(key)) if key == "memory_peak" else text.show(figures.get(key))
            for key in keys
        )
        rows.add("file", name, *cells)
    lines = []
    if "memory_peak" in keys:
        lines.append(
            "peak memory: a whole process, Python and the runtime too; of the model: what it added."
        )
    if "drift" in keys:
        lines.append("drift: largest difference from this machine's outputs, in their own unit.")
    if "arena" in keys:
        lines.append("arena: the memory that the runtime keeps tensors in while it runs.")
    if rows.absent:
        lines.append(f"{text.ABSENT}: see what was not measured.")
    return Section("Memory and start", rows.table(), tuple(lines))


def _machine(report: RunReport) -> str:
    places = {
        figure.origin.where
        for figures in report.profile.values()
        for key, figure in figures.items()
        if key.startswith("latency") and figure.origin.where
    }
    return " and ".join(sorted(places)) or report.machine
