# SPDX-License-Identifier: Apache-2.0
"""Budgets and figures in, verdicts out. Pure; measures nothing and reads no file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from edgeprune.figure import Figure
from edgeprune.gate.verdict import Outcome, Verdict
from edgeprune.target import Budgets, Target
from edgeprune.units import format_bytes, format_seconds

__all__ = ["judge", "merge", "overall", "passed"]

Name = Literal["size", "latency", "memory", "drop"]
Figures = Mapping[str, Mapping[str, Figure]]


class _Kind(NamedTuple):
    """What a budget is about: its figure's key, its unit, and the way out of a failure."""

    key: str
    unit: str
    on_device: bool
    what: str
    remedy: str


_KINDS: dict[Name, _Kind] = {
    "size": _Kind("bytes", "B", False, "size", "prune more, or use a smaller number type"),
    "latency": _Kind(
        "latency_p50", "s", True, "median latency", "prune more, or use the faster artifact"
    ),
    "memory": _Kind("memory_peak", "B", True, "peak memory", "prune more, or use smaller inputs"),
    "drop": _Kind("drop", "points", False, "drop", "prune less, or fine-tune longer"),
}
_REMEDIES = {
    "pruning": "prune less, or fine-tune longer",
    "quantization": "choose other --numerics, or calibrate with more samples",
    "export": "use the file of the other format, or other --numerics",
}
"""What helps against a drop, by the stage that made it."""
_MEMORIES = {"arena": "tensor arena", "memory_wasm": "WebAssembly memory"}
_WIDER = "measure longer on a quiet machine, or leave more room"
_WIDER_ARENA = "it lies within what pointers of 32 bits may save; leave more room"


def merge(budgets: Budgets, overrides: Budgets) -> Budgets:
    """Put the limits of ``overrides`` (the command line's) over those of ``budgets``."""
    return budgets.model_copy(update=overrides.model_dump(exclude_none=True))


def judge(
    budgets: Budgets,
    figures: Figures,
    *,
    target: Target,
    device: Figures | None,
    losses: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[Verdict, ...]:
    """Judge every artifact by every budget that is set.

    Size (``bytes``) and drop (``drop``) are looked up in ``figures``; latency (``latency_p50``) and
    memory (``target.memory_figure``) in ``device`` alone: what another
    machine took is never a pass. An interval that lies on both sides of the limit makes the verdict
    ``inconclusive``; only the drop is judged on its value, and its interval is told.

    Args:
        budgets: The limits; a missing one isn't judged.
        figures: Of each artifact (and of no other file), by its name.
        target: The device that the budgets are for.
        device: What was measured on that device, by artifact; ``None``: nothing was.
        losses: By artifact, the points that each stage lost, where that is known: the advice on a
            drop is about the stage that lost most.
    """
    return tuple(
        _verdict(
            name,
            limit,
            _Case(artifact, figures[artifact], target, device, (losses or {}).get(artifact, {})),
        )
        for artifact in figures
        for name in _KINDS
        if (limit := getattr(budgets, name)) is not None
    )


def passed(verdicts: Sequence[Verdict], allow_unmeasured: bool = False) -> bool:
    """Whether a run may end with 0: no budget failed, and none is unmeasured unless allowed.

    An inconclusive verdict passes; its reason is a warning.
    """
    refused: set[Outcome] = {"fail"} if allow_unmeasured else {"fail", "not measured"}
    return not any(verdict.outcome in refused for verdict in verdicts)


def overall(verdicts: Sequence[Verdict]) -> str:
    """Sum all verdicts up in one line."""
    if not verdicts:
        return "no budget was set, so nothing was judged"
    counts = Counter(verdict.outcome for verdict in verdicts)
    total = len(verdicts)
    if counts["pass"] == total:
        return "the budget is met" if total == 1 else f"all {total} budgets are met"
    texts: dict[Outcome, str] = {
        "fail": "failed",
        "not measured": "not measured",
        "inconclusive": "inconclusive",
        "pass": "met",
    }
    parts = []
    for outcome, text in texts.items():
        named = [f"{v.budget} of {v.artifact}" for v in verdicts if v.outcome == outcome]
        if named:
            names = f" ({', '.join(named)})" if outcome != "pass" else ""
            parts.append(f"{len(named)} {text}{names}")
    return f"of {total} budget{'s' if total > 1 else ''}: {'; '.join(parts)}"


class _Case(NamedTuple):
    """One artifact, and what is known of it."""

    artifact: str
    figures: Mapping[str, Figure]
    target: Target
    device: Figures | None
    losses: Mapping[str, float]

    def kind(self, name: Name) -> _Kind:
        """What a budget is about here: which memory counts is the target's to say."""
        kind = _KINDS[name]
        if name == "drop" and self.losses:
            stage, points = max(self.losses.items(), key=lambda item: item[1])
            return kind._replace(
                remedy=f"{stage} lost the most, {points:.2f} points: {_REMEDIES[stage]}"
            )
        if kind.key != "memory_peak":
            return kind
        key = self.target.memory_figure
        return kind._replace(key=key, what=_MEMORIES.get(key, kind.what))

    def find(self, kind: _Kind) -> Figure | None:
        """The figure that counts."""
        if not kind.on_device:
            return self.figures.get(kind.key)
        there = {} if self.device is None else self.device.get(self.artifact, {})
        return there.get(kind.key)


def _verdict(name: Name, limit: float, case: _Case) -> Verdict:
    kind = case.kind(name)
    figure = case.find(kind)
    outcome: Outcome
    if figure is None:
        outcome, reason = "not measured", _unmeasured(name, limit, case)
    else:
        outcome, reason = _compare(kind, limit, figure)
    return Verdict(
        budget=name,
        artifact=case.artifact,
        limit=limit,
        unit=kind.unit,
        outcome=outcome,
        figure=figure,
        reason=reason,
    )


def _compare(kind: _Kind, limit: float, figure: Figure) -> tuple[Outcome, str]:
    low, high = _interval(kind, figure)
    near = figure.value != limit and _text(figure.value, kind.unit) == _text(limit, kind.unit)
    fact = f"{kind.what} {_text(figure.value, kind.unit, exact=near)}{_spread(figure, kind.unit)}"
    border = f"the limit of {_text(limit, kind.unit, exact=near)}"
    origin = _origin(figure)
    if high <= limit:
        return "pass", f"{fact} keeps {border} ({origin})."
    if low > limit:
        return "fail", f"{fact} is over {border} ({origin}): {kind.remedy}."
    return "inconclusive", (
        f"warning: {fact} lies on both sides of {border} ({origin}): "
        f"{_WIDER_ARENA if kind.key == 'arena' else _WIDER}."
    )


def _interval(kind: _Kind, figure: Figure) -> tuple[float, float]:
    if kind.key == "drop":
        return figure.value, figure.value
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return low, high


def _unmeasured(name: Name, limit: float, case: _Case) -> str:
    kind, target = case.kind(name), case.target
    border = f"the limit of {_text(limit, kind.unit)} is not judged"
    if not kind.on_device:
        cause = "without evaluation data" if name == "drop" else "without the file"
        return f"{border}: {kind.what} was not measured; {cause} it can't be."
    if case.device is not None:
        return f"{border}: {kind.what} was not measured on {target.name}; see what was not."
    other = ""
    figure = case.figures.get(kind.key)
    if figure is not None and figure.origin.where is not None:
        value = _text(figure.value, kind.unit)
        other = f" (the {value} of this run are of another machine: {figure.origin.where})"
    hint = f" ({target.reach.hint})" if target.reach.hint else ""
    return (
        f"{border}: {kind.what} was not measured on {target.name}{other}; "
        f"measure it there{hint}, or accept it with --allow-unmeasured."
    )


def _origin(figure: Figure) -> str:
    origin = figure.origin
    where = f" on {origin.where}" if origin.where else ""
    runs = f", {origin.runs} runs" if origin.runs else ""
    return f"{origin.kind}{where}{runs}"


def _spread(figure: Figure, unit: str) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f" ({_text(figure.low, unit)} to {_text(figure.high, unit)})"


def _text(value: float, unit: str, *, exact: bool = False) -> str:
    """A person's number; with ``exact`` all digits, for two that would look the same."""
    if exact:
        return f"{value:,.0f} B" if unit == "B" else f"{value:.9g} {unit}"
    if unit == "B":
        return format_bytes(value)
    if unit == "s":
        return format_seconds(value)
    return f"{value:.2f} {unit}"
