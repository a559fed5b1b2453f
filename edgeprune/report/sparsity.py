# SPDX-License-Identifier: Apache-2.0
"""What a ticket's zeros are worth: densities, layer by layer, and sizes in a zip archive."""

from collections.abc import Mapping

from edgeprune.report import text
from edgeprune.report.schema import RunReport, StageReport
from edgeprune.report.section import Rows, Section

__all__ = ["densities", "zipped"]


def zipped(report: RunReport) -> Section | None:
    """The files' sizes as they are, and compressed, where a ticket's zeros are in them."""
    if not any("zipped" in figures for figures in report.profile.values()):
        return None
    rows = Rows(("file", "size", "zipped"))
    for name, figures in report.profile.items():
        rows.add("file", name, text.show(figures.get("bytes")), text.show(figures.get("zipped")))
    lead = (
        "Zeros alone make no file smaller and no runtime faster here; what they are worth shows "
        "where a file is compressed, as in a download."
    )
    return Section("What the zeros save", rows.table(), lead=lead)


def densities(report: RunReport) -> Section | None:
    """The share of each layer's weights that lives."""
    stage = next((s for s in report.stages if s.stage == "ticket"), None)
    layers = None if stage is None else _densities(stage)
    if not layers:
        return None
    rows = Rows(("weights", "living"))
    for name, density in layers.items():
        rows.add("layer", name, f"{100 * density:.2f} %")
    return Section("Density by layer", rows.table(), only_page=True)


def _densities(stage: StageReport) -> Mapping[str, float]:
    found = stage.details.get("densities", {})
    return found if isinstance(found, dict) else {}
