# SPDX-License-Identifier: Apache-2.0
"""One rule applied to one artifact: what is the same of every verdict."""

from edgeprune.check.case import Subject
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged, Place, Rule
from edgeprune.gate.verdict import Outcome

__all__ = ["judged"]


def judged(  # noqa: PLR0913 - the parts of a verdict
    subject: Subject,
    rule: Rule,
    outcome: Outcome,
    reason: str,
    *,
    unit: str | None = None,
    figure: Figure | None = None,
    limit: float | None = None,
    baseline: Figure | None = None,
    blame: tuple[str, ...] = (),
    place: Place | None = None,
) -> Judged:
    """The verdict on an artifact.

    Args:
        subject: The artifact.
        rule: What was judged.
        outcome: The answer.
        reason: One sentence a person can act on.
        unit: Of figure and limit; absent: the figure's.
        figure: What was judged.
        limit: What it was held against.
        baseline: What was accepted.
        blame: The layers that grew most.
        place: The line of the limit; absent: where the rule's own is written.
    """
    case = subject.case
    return Judged(
        rule=rule,
        model=case.model,
        target=None if case.target is None else case.target.name,
        artifact=subject.shown,
        outcome=outcome,
        reason=f"{reason}{_whose(subject, rule, figure)}",
        unit=unit if unit is not None else "" if figure is None else figure.unit,
        figure=figure,
        limit=limit,
        baseline=baseline,
        blame=blame,
        place=place or case.limits.places.get(rule),
    )


def _whose(subject: Subject, rule: Rule, figure: Figure | None) -> str:
    """Who says so, where nothing here has measured or counted it."""
    if figure is None or figure.origin.kind != "measured" or subject.case.result is None:
        return ""
    on_device = rule.endswith(("/latency", "/memory"))
    if on_device and subject.anew:
        return ""
    return f" The figure is its manifest's{'; --measure takes one anew' if on_device else ''}."
