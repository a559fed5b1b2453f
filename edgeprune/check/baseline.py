# SPDX-License-Identifier: Apache-2.0
"""Each artifact against the baseline that was accepted last: intervals against intervals. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeprune.check.case import Case, Subject, told
from edgeprune.check.limits import Answer, grown
from edgeprune.check.measuring import LOOKS
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged, Rule
from edgeprune.gate.lock import Accepted
from edgeprune.gate.verdict import Outcome
from edgeprune.measure.growth import judge_growth
from edgeprune.report.text import change, plain, show, spread

__all__ = ["against_baseline", "gone"]

Figures = Mapping[str, Figure]

_EXACT = frozenset({"arena", "memory_wasm", "arena_estimate"})
"""Memory that doesn't depend on the machine that runs the model."""


class _Pair(NamedTuple):
    """A figure now and when it was accepted."""

    key: str
    now: Figure
    before: Figure


def against_baseline(subject: Subject) -> Answer:
    """Judge the growth of one artifact by each limit that is set."""
    growth = subject.case.limits.growth
    limits: dict[str, float] = growth.model_dump(exclude_none=True)
    if not limits or subject.case.model is None:
        return Answer(())
    accepted = subject.case.limits.accepted.get(subject.name)
    if accepted is None:
        reason = (
            "not judged, since there is no accepted figure to compare with: `edgeprune baseline "
            "accept` takes the present ones."
        )
        return Answer(
            tuple(_judged(subject, _RULES[key], "not measured", reason) for key in limits)
        )
    notes: list[str] = []
    judged = []
    for key, limit in limits.items():
        if key == "accuracy":
            judged.append(_accuracy(subject, accepted, limit))
        else:
            judged.append(_growth(subject, accepted, key, limit, notes))
    return Answer(tuple(judged), tuple(notes))


def gone(cases: Sequence[Case], here: Path) -> tuple[Judged, ...]:
    """What a baseline has and a result hasn't any more; else nothing would be said of it."""
    found = []
    for case in cases:
        limits = case.limits.growth.model_dump(exclude_none=True)
        if case.result is None or not limits:
            continue
        there = {artifact.file for artifact in case.result.manifest.artifacts}
        rule = _RULES[next(iter(limits))]
        found += [
            Judged(
                rule=rule,
                model=case.model,
                target=None if case.target is None else case.target.name,
                artifact=told(case.path.parent / name, here),
                outcome="not measured",
                reason=f"The baseline has {plain(name)}, and the result hasn't any more: make it "
                "again, or accept that with `edgeprune baseline accept`.",
                place=case.limits.places.get(rule),
            )
            for name in case.limits.accepted
            if name not in there
        ]
    return tuple(found)


_RULES: dict[str, Rule] = {
    "size": "baseline/size",
    "latency": "baseline/latency",
    "memory": "baseline/memory",
    "accuracy": "baseline/accuracy",
}
_WHAT = {
    "bytes": "size",
    "latency_reference": "latency as a multiple of the reference model's",
    "latency_p50": "median latency",
    "memory_peak": "peak memory",
    "memory_wasm": "WebAssembly memory",
    "arena": "tensor arena",
    "arena_estimate": "estimated activation memory",
}


def _growth(
    subject: Subject, accepted: Accepted, key: str, limit: float, notes: list[str]
) -> Judged:
    rule = _RULES[key]
    pair = _pair(subject, accepted, key, notes)
    if pair is None:
        reason = f"There is no {key} to compare: {_absent(key)}."
        return _open(subject, rule, limit, reason)
    low, high, outcome = _compare(subject, pair, limit)
    border = pair.before.value * limit
    known = "" if low == high else f" ({100 * (low - 1):+.3g} to {100 * (high - 1):+.3g} %)"
    fact = (
        f"{_WHAT[pair.key]} {spread(pair.now)} is {_percent(pair)}{known} against the accepted "
        f"{spread(pair.before)}"
    )
    allowed = f"{100 * (limit - 1):+.3g} % allowed, so {show(_like(pair.now, border))}"
    origin = f"{pair.now.origin.kind}{_where(pair.now)}"
    ends = {
        "pass": f"{fact}; {allowed} ({origin}).",
        "fail": f"{fact}, and only {allowed} ({origin}): make it smaller, or accept it with "
        "`edgeprune baseline accept --reason TEXT`.",
        "inconclusive": f"{fact}, with {allowed} ({origin}): measure longer on a quiet machine "
        "(--measure, --time-limit).",
    }
    return _judged(
        subject,
        rule,
        outcome,
        ends[outcome],
        figure=pair.now,
        limit=border,
        baseline=pair.before,
        blame=grown(subject, "macs" if key == "latency" else "bytes") if outcome == "fail" else (),
    )


def _pair(subject: Subject, accepted: Accepted, key: str, notes: list[str]) -> _Pair | None:
    now, before = subject.known, accepted.figures
    for name in _candidates(subject, key):
        figure = _now(subject, now, name)
        if figure is None or name not in before or figure.unit != before[name].unit:
            continue
        exact = name in ("bytes", "latency_reference") or name in _EXACT
        same = _same_machine(subject, accepted, figure, before[name])
        if name == "latency_reference" and not same:
            notes.append(
                f"{subject.shown}: its ratio to the reference model was accepted on another "
                f"machine ({before[name].origin.where or 'unknown'}) or runtime, so a part of the "
                "difference may be theirs."
            )
        if exact or same:
            return _Pair(name, figure, before[name])
        notes.append(
            f"{subject.shown}: {_WHAT[name]} isn't compared with the accepted one: that is of "
            f"another machine ({before[name].origin.where or 'unknown'}); --measure takes the "
            "ratio to a reference model instead, where the baseline has it."
        )
    return None


def _candidates(subject: Subject, key: str) -> tuple[str, ...]:
    if key == "size":
        return ("bytes",)
    if key == "latency":
        return ("latency_reference", "latency_p50")
    target = subject.case.target
    own = "memory_peak" if target is None else target.memory_figure
    return (own, "arena_estimate")


def _now(subject: Subject, known: Figures, name: str) -> Figure | None:
    """A figure of the present artifact; the estimate is worked out only where it is wanted."""
    if name == "arena_estimate" and name not in known:
        return subject.estimate
    return known.get(name)


def _same_machine(subject: Subject, accepted: Accepted, now: Figure, before: Figure) -> bool:
    mine, theirs = subject.machine, accepted.machine
    if mine is not None and theirs is not None and mine.fingerprint == theirs.fingerprint:
        return True
    return now.origin.where is not None and now.origin.where == before.origin.where


def _compare(subject: Subject, pair: _Pair, limit: float) -> tuple[float, float, Outcome]:
    """The least and the most that the growth may be, as factors, and what follows."""
    if pair.key == "latency_reference":
        looks = LOOKS if subject.ratios else 1
        found = judge_growth(pair.before, subject.ratios or pair.now, limit - 1, looks=looks)
        return 1 + found.low, 1 + found.high, found.outcome
    if pair.now == pair.before:  # one and the same measurement, of which noise has no part
        return 1.0, 1.0, "pass" if limit >= 1 else "fail"
    low, high = _ratio(pair)
    return low, high, "pass" if high <= limit else "fail" if low > limit else "inconclusive"


def _ratio(pair: _Pair) -> tuple[float, float]:
    """The least and the most that the growth may be, as factors."""
    now, before = _ends(pair.now), _ends(pair.before)
    if pair.now == pair.before:
        return 1.0, 1.0  # the very same measurement, whose interval says nothing of a change
    if before[1] <= 0:
        return (1.0, 1.0) if now == before else (0.0 if now[0] <= 0 else float("inf"), float("inf"))
    return now[0] / before[1], now[1] / before[0] if before[0] > 0 else float("inf")


def _ends(figure: Figure) -> tuple[float, float]:
    low = figure.value if figure.low is None else figure.low
    return low, figure.value if figure.high is None else figure.high


def _accuracy(subject: Subject, accepted: Accepted, limit: float) -> Judged:
    """On its value: both were scored on the same samples, as with the drop budget."""
    rule: Rule = "baseline/accuracy"
    now, before = subject.known.get("score"), accepted.figures.get("score")
    if now is None or before is None:
        reason = f"There is no score to compare: {_absent('accuracy')}."
        return _open(subject, rule, limit, reason)
    if now.origin.how != before.origin.how or now.origin.runs != before.origin.runs:
        reason = (
            f"The score {show(now)} isn't comparable with the accepted {show(before)}: "
            f"{now.origin.how}, {now.origin.runs} samples, against {before.origin.how}, "
            f"{before.origin.runs} samples."
        )
        return _open(subject, rule, limit, reason, figure=now, baseline=before)
    border = before.value - limit
    fact = (
        f"score {spread(now)} is {change(now.value - before.value)} points against the accepted "
        f"{spread(before)}"
    )
    passed = now.value >= border
    end = f"; {limit:.3g} may be lost ({now.origin.how})."
    if not passed:
        end = (
            f", and only {limit:.3g} may be lost ({now.origin.how}): train longer, or accept it "
            "with `edgeprune baseline accept --reason TEXT`."
        )
    return _judged(
        subject,
        rule,
        "pass" if passed else "fail",
        fact + end,
        figure=now,
        limit=border,
        baseline=before,
    )


def _absent(key: str) -> str:
    if key == "latency":
        return (
            "neither was it measured now and then beside a reference model (--measure), nor both "
            "times on the same machine"
        )
    if key == "memory":
        return "it was not measured both times, and neither can it be estimated from both files"
    return "without evaluation data nothing was scored, now or then"


def _open(
    subject: Subject,
    rule: Rule,
    limit: float,
    reason: str,
    *,
    figure: Figure | None = None,
    baseline: Figure | None = None,
) -> Judged:
    """Not judged. The limit is a factor or a loss, no figure, so it is left to the reason."""
    border = (
        f"-{limit:.3g} points" if rule == "baseline/accuracy" else f"{100 * (limit - 1):+.3g} %"
    )
    return _judged(
        subject,
        rule,
        "not measured",
        f"{border} isn't judged. {reason}",
        figure=figure,
        baseline=baseline,
    )


def _judged(  # noqa: PLR0913 - the parts of a verdict
    subject: Subject,
    rule: Rule,
    outcome: Outcome,
    reason: str,
    *,
    figure: Figure | None = None,
    limit: float | None = None,
    baseline: Figure | None = None,
    blame: tuple[str, ...] = (),
) -> Judged:
    case = subject.case
    return Judged(
        rule=rule,
        model=case.model,
        target=None if case.target is None else case.target.name,
        artifact=subject.shown,
        outcome=outcome,
        reason=reason,
        unit="" if figure is None else figure.unit,
        figure=figure,
        limit=limit,
        baseline=baseline,
        blame=blame,
        place=case.limits.places.get(rule),
    )


def _like(figure: Figure, value: float) -> Figure:
    return figure.model_copy(update={"value": value, "low": None, "high": None})


def _percent(pair: _Pair) -> str:
    if pair.before.value <= 0:
        return "more" if pair.now.value > pair.before.value else "the same"
    return f"{100 * (pair.now.value / pair.before.value - 1):+.3g} %"


def _where(figure: Figure) -> str:
    return f" on {figure.origin.where}" if figure.origin.where else ""
