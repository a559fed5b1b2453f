# SPDX-License-Identifier: Apache-2.0
"""What a report shows, in order, for the page and the terminal alike. Pure text in tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from edgeprune.figure import Figure, counted
from edgeprune.gate.budgets import overall
from edgeprune.gate.verdict import Outcome, Verdict
from edgeprune.report import measured, sparsity, text
from edgeprune.report.origins import origins
from edgeprune.report.schema import Artifact, Check, Reference, RunReport, StageReport
from edgeprune.report.section import Rows, Section
from edgeprune.units import format_seconds

__all__ = ["OUTCOMES", "verdict_section", "view"]

OUTCOMES: dict[Outcome, str] = {
    "pass": "yes",
    "fail": "NO",
    "inconclusive": "unclear",
    "not measured": "not measured",
}
Figures = Mapping[str, Figure]
_HELD = (
    "SQNR, to float, to dense: signal to noise of the worst output, or part of one with a range of "
    "its own, against the model that the file was made from, the float model before quantization, "
    "and the dense model (from which pruning and training move it rightly)."
)


def view(report: RunReport) -> tuple[Section, ...]:
    """All sections that have something to say; the answer is the first."""
    builders: tuple[Callable[[RunReport], Section | None], ...] = (
        _answer,
        _stages,
        _artifacts,
        measured.on_device,
        measured.device_memory,
        measured.speed,
        measured.memory,
        sparsity.zipped,
        _losses,
        sparsity.densities,
        _not_measured,
        _notes,
        origins_section,
    )
    sections = (build(report) for build in builders)
    return tuple(section for section in sections if section is not None)


def origins_section(report: RunReport) -> Section:
    """Where the numbers come from."""
    return Section("Provenance", lines=origins(report), only_page=True)


def _answer(report: RunReport) -> Section:
    answer = OUTCOMES["fail"] if report.missing else _yes_or_no(report.verdicts)
    title = f"{report.model} for {report.target}: {answer}"
    section = verdict_section(report.verdicts)
    return replace(section, title=title, lines=(*_missing(report), *section.lines))


def _missing(report: RunReport) -> tuple[str, ...]:
    lines = [
        f"{each.file} is missing: it could not be made in {each.numerics}: {each.reason}"
        for each in report.missing
    ]
    if lines:
        lines.append(f"{text.KEPT[0].upper()}{text.KEPT[1:]}; --format leaves a file out.")
    return tuple(lines)


def verdict_section(verdicts: Sequence[Verdict]) -> Section:
    """The answer to each budget."""
    lead = f"{overall(verdicts)}."
    if not verdicts:
        return Section("Budgets", lead=lead)
    rows = Rows(("budget", "artifact", "limit", "measured", "met?"))
    for verdict in verdicts:
        figure = text.spread(verdict.figure)
        limit = text.show(counted(verdict.limit, verdict.unit, "limit"))
        outcome = OUTCOMES[verdict.outcome]
        rows.add("verdict", verdict.budget, verdict.artifact, limit, figure, outcome)
    reasons = tuple(
        f"{v.budget} of {v.artifact}: {OUTCOMES[v.outcome]}: {v.reason}"
        for v in verdicts
        if v.outcome != "pass"
    )
    return Section("Budgets", rows.table("artifact", "met?"), reasons, lead)


def _yes_or_no(verdicts: Sequence[Verdict]) -> str:
    outcomes = {verdict.outcome for verdict in verdicts}
    if not outcomes:
        return "not judged"
    if "fail" in outcomes:
        return OUTCOMES["fail"]
    if "not measured" in outcomes:
        return "not all measured"
    return "yes, with a warning" if "inconclusive" in outcomes else OUTCOMES["pass"]


def _stages(report: RunReport) -> Section:
    metric = report.metric or "accuracy"
    rows = Rows(("stage", metric, "parameters", "MACs", "bytes", "latency"))
    dense = tuple(name for name in report.profile if name.startswith("dense."))
    for place, stage in enumerate(report.stages):
        if not stage.figures:  # it made no model
            continue
        _stage_row(rows, "stage", stage.stage, stage.figures)
        files = (*(dense if place == 0 else ()), *(a.file for a in stage.artifacts))
        for name in files:
            _stage_row(rows, "file", f"· {name}", report.profile.get(name, {}))
    lines = _below_stages(report, rows.absent)
    if any("(" in cell for row in rows.rows for cell in row[1:]):
        lines.insert(0, "In brackets: the interval that a figure is known to.")
    return Section("Stage by stage", rows.table(), tuple(lines))


def _stage_row(rows: Rows, kind: str, name: str, figures: Figures) -> None:
    rows.add(
        kind,
        name,
        text.spread(figures.get("score")),
        text.show(figures.get("parameters")),
        text.show(figures.get("macs")),
        text.show(figures.get("bytes")),
        text.spread(figures.get("latency_p50")),
    )


def _below_stages(report: RunReport, absent: set[tuple[str, str]]) -> list[str]:
    metric = report.metric or "accuracy"
    where = {
        figure.origin.where
        for figures in report.profile.values()
        for key, figure in figures.items()
        if key == "latency_p50" and figure.origin.where
    }
    lines = [f"latency: median of single inferences on {place}." for place in sorted(where)]
    if ("stage", metric) in absent and report.metric is None:
        lines.append(f"{text.ABSENT} in {metric}: nothing was evaluated, for want of data.")
    elif {("stage", metric), ("file", metric)} & absent:
        lines.append(f"{text.ABSENT} in {metric}: not evaluated for these rows.")
    if ("file", "parameters") in absent:
        lines.append(f"{text.ABSENT} in parameters, MACs: of the model, not of its files.")
    if ("stage", "bytes") in absent:
        lines.append(f"{text.ABSENT} in bytes: the export stores reduced numbers; see its files.")
    if ("stage", "latency") in absent:
        lines.append(f"{text.ABSENT} in latency: only files are run on a device's runtime.")
    if ("file", "latency") in absent:
        lines.append(f"{text.ABSENT} in latency of a file: see what was not measured.")
    if report.seconds is not None:
        parts = (f"{stage.stage} {format_seconds(stage.seconds)}" for stage in report.stages)
        lines.append(f"Time: {format_seconds(report.seconds)}: {', '.join(parts)}.")
    return lines


def _artifacts(report: RunReport) -> Section | None:
    if not report.artifacts:
        return None
    columns = ("file", "numerics", "size", "smaller", "int8 ops", "float ops", "max error")
    rows = Rows((*columns, "SQNR", "to float", "to dense", "top-1"))
    for artifact in report.artifacts:
        check = artifact.check
        rows.add(
            "artifact",
            artifact.file,
            artifact.numerics,
            text.show(counted(artifact.bytes, "B", "size of the file")),
            _smaller(artifact, report.profile),
            str(check.int8_ops),
            str(check.float_ops),
            f"{check.max_abs_error:.3g}",
            *(_db(ratio) for ratio in _ratios(check)),
            text.ABSENT if check.top1_agreement is None else f"{100 * check.top1_agreement:.1f} %",
        )
    lines = _checks(report)
    if ("artifact", "smaller") in rows.absent:
        lines += (f"{text.ABSENT} in smaller: the dense model has no such file in this run.",)
    if {("artifact", "to float"), ("artifact", "to dense")} & rows.absent:
        lines += (
            f"{text.ABSENT} in to float, to dense: exactly equal, or there was no such model to "
            "compare with.",
        )
    if any(artifact.check.closeness for artifact in report.artifacts):
        lines = (_HELD, *lines)
    return Section("Artifacts, held against their model", rows.table("numerics"), lines)


def _ratios(check: Check) -> tuple[float | None, ...]:
    """Signal to noise against the model itself, the float one before it, and the dense one."""
    own = check.least_db("model") if check.closeness else check.sqnr_db
    reference: Reference = "float" if check.compared("float") else "model"
    return own, check.least_db(reference), check.least_db("dense")


def _db(ratio: float | None) -> str:
    return text.ABSENT if ratio is None else f"{ratio:.1f} dB"


def _smaller(artifact: Artifact, profile: Mapping[str, Figures]) -> str:
    """How many times smaller than the dense file of its format."""
    dense = profile.get(f"dense{PurePath(artifact.file).suffix}", {}).get("bytes")
    if dense is None or not artifact.bytes:
        return text.ABSENT
    return f"{dense.value / artifact.bytes:.1f}x"


def _checks(report: RunReport) -> tuple[str, ...]:
    lines = []
    for artifact in report.artifacts:
        check = artifact.check
        inputs = "samples of the evaluation data" if check.inputs != "random" else "random inputs"
        lines.append(
            f"{artifact.file}: for {artifact.runtime}; run here on {check.samples} {inputs}, "
            f"mean error {check.mean_abs_error:.3g}."
        )
        if check.sqnr_db is None:
            lines.append(
                f"{text.ABSENT} in SQNR of {artifact.file}: its outputs are exactly equal."
            )
        if check.top1_agreement is None:
            lines.append(f"{text.ABSENT} in top-1 of {artifact.file}: no class axis.")
        lines += [f"{artifact.file}: {note}" for note in artifact.notes]
    return tuple(lines)


def _losses(report: RunReport) -> Section | None:
    steps = _scored(report)
    if len(steps) < 2:
        return None
    changes = [after - before for before, after in ((s.before, s.score.value) for s in steps)]
    worst = min(changes)
    rows = Rows(("step", report.metric or "score", "change in points", "lost against dense"))
    for step, points in zip(steps, changes, strict=True):
        mark = " (most)" if points == worst < 0 else ""
        first = step is steps[0]
        moved = "start" if first else f"{text.change(points)}{mark}"
        rows.add("step", step.name, text.spread(step.score), moved, text.spread(step.drop))
    lines = [line for stage in report.stages for line in _layers(stage)]
    if rows.absent:
        lines.append(f"{text.ABSENT} in lost against dense: not measured for this step.")
    return Section("What was lost, and where", rows.table(), tuple(lines))


@dataclass(frozen=True)
class _Scored:
    name: str
    score: Figure
    drop: Figure | None
    before: float


def _scored(report: RunReport) -> list[_Scored]:
    steps: list[_Scored] = []
    before: float | None = None
    for stage in report.stages:
        score = stage.figures.get("score")
        if score is None:
            continue
        start = score.value if before is None else before
        steps.append(_Scored(stage.stage, score, stage.figures.get("drop"), start))
        before = score.value
        for artifact in stage.artifacts:
            figures = report.profile.get(artifact.file, {})
            if "score" in figures:
                name, own = f"· {artifact.file}", figures["score"]
                steps.append(_Scored(name, own, figures.get("drop"), before))
    return steps


def _layers(stage: StageReport) -> list[str]:
    """The layers that a stage took most from, as far as its details tell."""
    lines = []
    cut = [
        group
        for group in stage.details.get("groups", ())
        if {"name", "before", "after"} <= set(group) and 0 < group["after"] < group["before"]
    ]
    if cut:
        cut.sort(key=lambda group: (group["after"] / group["before"], group["name"]))
        named = [f"{g['name']} {g['before']} to {g['after']}" for g in cut[:3]]
        lines.append(f"{stage.stage}: {len(cut)} groups lost channels, most {', '.join(named)}.")
    branches = [b for b in stage.details.get("branches", ()) if {"name", "goes"} <= set(b)]
    if branches:
        gone = [b["name"] for b in branches if b["goes"]]
        which = f": {', '.join(gone)}" if gone else ""
        lines.append(
            f"{stage.stage}: {len(gone)} of {len(branches)} residual branches went{which}."
        )
    layers = [layer for layer in stage.details.get("layers", ()) if layer.get("own_db") is not None]
    if layers:
        layers.sort(key=lambda layer: (layer["own_db"], layer["layer"]))
        named = [f"{layer['layer']} {layer['own_db']:.1f} dB" for layer in layers[:3]]
        lines.append(f"{stage.stage}: least exact layers, each by itself: {', '.join(named)}.")
    return lines


def _not_measured(report: RunReport) -> Section | None:
    if not report.not_measured:
        return None
    return Section("Not measured", lines=report.not_measured)


def _notes(report: RunReport) -> Section | None:
    lines = tuple(f"{stage.stage}: {note}" for stage in report.stages for note in stage.notes)
    return Section("Notes", lines=lines) if lines else None
