# SPDX-License-Identifier: Apache-2.0
"""Where each number of a report comes from, in as few lines as tell it."""

from collections.abc import Iterator

from edgeprune.figure import Figure
from edgeprune.report.schema import RunReport

__all__ = ["origins"]


def origins(report: RunReport) -> tuple[str, ...]:
    """Model, data, seed, machine, tools; then one line for each way a figure was got."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    lines = [
        f"model: {report.model}; target: {report.target}; seed: {report.seed}",
        f"data: {report.data or 'none'}",
        f"machine of this run: {report.machine}",
        f"versions: {versions}",
    ]
    grouped: dict[str, dict[str, list[str]]] = {}
    for owner, key, figure in _figures(report):
        grouped.setdefault(_way(figure), {}).setdefault(key, []).append(owner)
    for way, keys in grouped.items():
        owners = dict.fromkeys(owner for owners in keys.values() for owner in owners)
        lines.append(f"{', '.join(keys)} of {', '.join(owners)}: {way}")
    return tuple(lines)


def _figures(report: RunReport) -> Iterator[tuple[str, str, Figure]]:
    for stage in report.stages:
        for key, figure in stage.figures.items():
            yield stage.stage, key, figure
    on_device = {} if report.device is None else report.device.figures
    for name, figures in (*report.profile.items(), *on_device.items()):
        for key, figure in figures.items():
            yield name, key, figure


def _way(figure: Figure) -> str:
    origin = figure.origin
    where = f" on {origin.where}" if origin.where else ""
    when = f", {origin.when}" if origin.when else ""
    return f"{origin.kind}{where}{when}: {origin.how}"
