# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of an artifact against the accepted ones."""

from collections.abc import Iterator, Sequence

from edgeprune.check.case import Subject, edges_of
from edgeprune.check.judging import judged
from edgeprune.check.missing import ACCEPT
from edgeprune.gate.judged import Judged
from edgeprune.gate.lock import Accepted, Edge
from edgeprune.report.text import plain

__all__ = ["same_edges"]


def same_edges(subject: Subject, accepted: Accepted) -> Iterator[Judged]:
    """Whether what feeds the model and reads its outputs still fits; no limit has to be set."""
    if accepted.inputs is None or accepted.outputs is None:
        return
    inputs, outputs = edges_of(subject.contents)
    changed = [
        *_changed("input", accepted.inputs, inputs),
        *_changed("output", accepted.outputs, outputs),
    ]
    if changed:
        reason = (
            f"{'; '.join(changed)}: whatever feeds the model or reads its outputs has to change "
            f"with it. Put it back, or accept it with {ACCEPT} --reason TEXT."
        )
        yield judged(subject, "baseline/shapes", "fail", reason)
    else:
        reason = "Its inputs and outputs have the accepted shapes and types."
        yield judged(subject, "baseline/shapes", "pass", reason)


def _changed(kind: str, before: Sequence[Edge], now: Sequence[Edge]) -> Iterator[str]:
    """Differences; by name where the names are the same, else one after the other."""
    if len(before) != len(now):
        yield f"it has {len(now)} {kind}s and had {len(before)}"
        return
    if {edge.name for edge in before} == {edge.name for edge in now}:
        by_name = {edge.name: edge for edge in now}
        now = [by_name[edge.name] for edge in before]
    for old, new in zip(before, now, strict=True):
        known = old.shape is not None and new.shape is not None
        if (known and old.shape != new.shape) or old.dtype != new.dtype:
            yield f"{kind} {plain(new.name)[:80]} is {_edge(new)} and was {_edge(old)}"


def _edge(edge: Edge) -> str:
    sizes = ("?" if size is None else str(size) for size in edge.shape or ())
    shape = "of unknown shape" if edge.shape is None else "x".join(sizes) or "scalar"
    return f"{shape} {edge.dtype}".rstrip()
