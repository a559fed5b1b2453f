# SPDX-License-Identifier: Apache-2.0
"""Each artifact against the baseline that was accepted last: intervals against intervals. Pure."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edgeprune.check.case import Subject
from edgeprune.check.changed import same_edges
from edgeprune.check.judging import judged
from edgeprune.check.limits import Answer, grown
from edgeprune.check.measuring import LOOKS
from edgeprune.check.missing import ACCEPT, unaccepted
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged, Rule
from edgeprune.gate.lock import Accepted
from edgeprune.gate.verdict import Outcome
from edgeprune.measure.growth import judge_growth
from edgeprune.project import LOCK
from edgeprune.report.text import change, plain, show, spread

__all__ = ["against_baseline"]

Figures = Mapping[str, Figure]

_EXACT = frozenset({"bytes", "parameters", "macs", "arena_estimate", "arena", "memory_wasm"})
"""Figures that don't depend on the machine that runs the model."""
_FROM_FILE = frozenset({"bytes", "parameters", "macs", "arena_estimate"})
_OF_THE_FILE = {
    "size": "bytes",
    "macs": "macs",
    "parameters": "parameters",
    "arena": "arena_estimate",
}
"""Limits on what the file itself tells, which nothing excuses from being judged."""


class _Pair(NamedTuple):
    """A figure now and when it was accepted."""

    key: str
    now: Figure
    before: Figure


def against_baseline(subject: Subject) -> Answer:
    """Judge the growth of one artifact by each limit that is set, and its inputs and outputs."""
    case = subject.case
    limits: dict[str, float] = case.limits.growth.model_dump(exclude_none=True)
    lock = case.limits.lock
    expected = limits or lock.version is not None or lock.was_there
    if case.model is None or not expected:
        return Answer(())
    accepted = case.limits.accepted.get(subject.name)
    if accepted is None:
        return Answer((unaccepted(subject),))
    if subject.damage is not None:  # which is a verdict already
        return Answer(())
    notes: list[str] = []
    found = [*same_edges(subject, accepted)]
    for key, limit in limits.items():
        if key == "accuracy":
            found.append(_accuracy(subject, accepted, limit))
        elif key in _OF_THE_FILE:
            found += _of_the_file(subject, accepted, key, limit, notes)
        else:
            found.append(_growth(subject, accepted, key, limit, notes))
    return Answer(tuple(found), tuple(notes))


_RULES: dict[str, Rule] = {
    "size": "baseline/size",
    "macs": "baseline/macs",
    "parameters": "baseline/parameters",
    "arena": "baseline/arena",
    "latency": "baseline/latency",
    "memory": "baseline/memory",
    "accuracy": "baseline/accuracy",
}
_WHAT = {
    "bytes": "size",
    "macs": "number of multiply-accumulates",
    "parameters": "number of parameters",
    "latency_reference": "latency as a multiple of the reference model's",
    "latency_p50": "median latency",
    "memory_peak": "peak memory",
    "memory_wasm": "WebAssembly memory",
    "arena": "tensor arena",
    "arena_estimate": "estimated activation memory",
}


def _of_the_file(
    subject: Subject, accepted: Accepted, key: str, limit: float, notes: list[str]
) -> Iterator[Judged]:
    """Judge what the file tells; that it isn't known is excused only by an old lock file."""
    name, version = _OF_THE_FILE[key], subject.case.limits.lock.version
    if name not in accepted.figures and version == 1 and name != "bytes":
        notes.append(
            f"{subject.shown}: the {_WHAT[name]} isn't compared: {LOCK} is of an earlier version, "
            f"which doesn't have it; {ACCEPT} writes the present one."
        )
        return
    now = _now(subject, subject.known, name)
    if now is None:
        reason = (
            f"{_border(key, limit)} can't be judged: the {_WHAT[name]} can't be told from the file"
            f"{_untold(subject, name)}; leave out baseline.{key} for a model without it."
        )
        yield judged(subject, _RULES[key], "fail", reason)
    elif name not in accepted.figures:
        reason = (
            f"{_border(key, limit)} can't be judged: the {_WHAT[name]} wasn't known when this was "
            f"accepted; {ACCEPT} takes the present {show(now)}."
        )
        yield judged(subject, _RULES[key], "fail", reason, figure=now)
    else:
        yield _growth(subject, accepted, key, limit, notes)


def _untold(subject: Subject, name: str) -> str:
    """Why a figure can't be told, where that is known."""
    known = subject.contents
    if name == "arena_estimate":
        return f" ({plain(known.no_arena)})" if known.no_arena else ""
    first = next(iter(known.counts.uncounted), None)
    return "" if first is None else f" ({plain(first.operator)}: {plain(first.reason)})"


def _growth(
    subject: Subject, accepted: Accepted, key: str, limit: float, notes: list[str]
) -> Judged:
    rule = _RULES[key]
    pair = _pair(subject, accepted, key, notes)
    if pair is None:
        reason = f"{_border(key, limit)} isn't judged, with no {key} to compare: {_absent(key)}."
        return judged(subject, rule, "not measured", reason)
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
    return judged(
        subject,
        rule,
        outcome,
        ends[outcome],
        figure=pair.now,
        limit=border,
        baseline=pair.before,
        blame=grown(subject, "macs" if key in ("latency", "macs") else "bytes")
        if outcome == "fail"
        else (),
    )


def _pair(subject: Subject, accepted: Accepted, key: str, notes: list[str]) -> _Pair | None:
    now, before = subject.known, accepted.figures
    for name in _candidates(subject, key):
        figure = _now(subject, now, name)
        if figure is None or name not in before or figure.unit != before[name].unit:
            continue
        exact = name == "latency_reference" or name in _EXACT
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
    if key in _OF_THE_FILE:
        return (_OF_THE_FILE[key],)
    if key == "latency":
        return ("latency_reference", "latency_p50")
    target = subject.case.target
    own = "memory_peak" if target is None else target.memory_figure
    return (own, "arena_estimate")


def _now(subject: Subject, known: Figures, name: str) -> Figure | None:
    """A figure of the present artifact; the file is read only where it is wanted."""
    if name in _FROM_FILE and name != "bytes":
        return subject.counted.get(name)
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
        reason = f"{_border('accuracy', limit)} isn't judged: {_absent('accuracy')}."
        # No file tells its score: of a foreign one nothing more can be asked.
        outcome: Outcome = "not measured" if subject.case.result is None else "fail"
        return judged(subject, rule, outcome, reason, figure=now, baseline=before)
    if now.origin.how != before.origin.how or now.origin.runs != before.origin.runs:
        reason = (
            f"The score {show(now)} isn't comparable with the accepted {show(before)}: "
            f"{now.origin.how}, {now.origin.runs} samples, against {before.origin.how}, "
            f"{before.origin.runs} samples. Score it on the same data, or accept it with {ACCEPT}."
        )
        return judged(subject, rule, "fail", reason, figure=now, baseline=before)
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
    return judged(
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
    return (
        "it has no score, now or when it was accepted; `edgeprune compress --data` scores it, and "
        "without data the key is to be left out"
    )


def _border(key: str, limit: float) -> str:
    """A limit in words; it is a factor or a loss, no figure, so it is left to the reason."""
    return f"-{limit:.3g} points" if key == "accuracy" else f"{100 * (limit - 1):+.3g} %"


def _like(figure: Figure, value: float) -> Figure:
    return figure.model_copy(update={"value": value, "low": None, "high": None})


def _percent(pair: _Pair) -> str:
    if pair.before.value <= 0:
        return "more" if pair.now.value > pair.before.value else "the same"
    return f"{100 * (pair.now.value / pair.before.value - 1):+.3g} %"


def _where(figure: Figure) -> str:
    return f" on {figure.origin.where}" if figure.origin.where else ""
