# SPDX-License-Identifier: Apache-2.0
"""What ``edgeprune deploy`` prints: what came of it, what would, and what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from edgeprune.cli import show
from edgeprune.errors import EdgepruneError
from edgeprune.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from edgeprune.deploy.fleet import Result
    from edgeprune.deploy.listing import Listing
    from edgeprune.deploy.plan import Plan
    from edgeprune.deploy.steps import Outcome

__all__ = [
    "line",
    "listing_json",
    "outcome_json",
    "outcome_printer",
    "plan_json",
    "print_listing",
    "print_plan",
    "result_json",
]

T = TypeVar("T")


def outcome_printer(unchecked: str) -> Callable[[Sequence[Result[Outcome]]], None]:
    """What prints the table of deployed boards; ``unchecked`` stands where nothing was compared."""

    def printer(results: Sequence[Result[Outcome]]) -> None:
        rows = []
        for result in results:
            done = result.value
            if done is None:
                rows.append((result.name, "failed, see below", "", "", "", ""))
                continue
            rows.append(
                (
                    result.name,
                    done.version,
                    done.before or "-",
                    _health_text(done) or unchecked,
                    format_bytes(done.sent),
                    format_seconds(done.seconds),
                )
            )
        show.table(("board", "current", "before", "outputs", "sent", "time"), rows, left=4)
        gone = [(r.name, r.value.removed) for r in results if r.value and r.value.removed]
        show.lines(f"{name}: removed {', '.join(names)}" for name, names in gone)

    return printer


def _health_text(done: Outcome) -> str:
    """How far the outputs were from the expected ones, at most."""
    differences = [d for checked in done.checked for d in checked.outputs]
    if not differences:
        return ""
    shares = [d.largest / d.tolerance for d in differences if d.tolerance]
    if not any(d.largest for d in differences):
        return "as expected, to the bit"
    return f"as expected, within {max(shares, default=0.0):.2g} of what is allowed"


def outcome_json(done: Outcome) -> dict[str, Any]:
    """A deployed board as JSON."""
    return {
        "folder": done.board,
        "version": done.version,
        "before": done.before,
        "sent_bytes": done.sent,
        "seconds": round(done.seconds, 3),
        "removed": list(done.removed),
        "checked": [
            {
                "artifact": checked.artifact,
                "runtime": checked.runtime,
                "outputs": [
                    {"name": d.output, "largest_difference": d.largest, "tolerance": d.tolerance}
                    for d in checked.outputs
                ],
            }
            for checked in done.checked
        ],
    }


def print_plan(results: Sequence[Result[tuple[Listing, Plan]]]) -> None:
    """Print what would be done on each board."""
    for result in results:
        if result.value is None:
            continue
        listing, plan = result.value
        typer.echo(f"{result.name}:")
        show.lines((_there(listing), *plan.lines()))
    typer.echo("--dry-run: nothing was changed")


def _there(listing: Listing) -> str:
    lock = "; somebody is at work there" if listing.lock else ""
    if not listing.versions:
        return f"no version is there{lock}"
    marked = (f"{n}{' (current)' * (n == listing.current)}" for n in listing.history())
    return f"there: {', '.join(marked)}{lock}"


def plan_json(found: tuple[Listing, Plan]) -> dict[str, Any]:
    """What would be done on a board as JSON."""
    listing, plan = found
    return {
        "there": listing_json(listing),
        "version": plan.version,
        "upload": plan.upload,
        "bytes": plan.bytes,
        "bytes_to_send": plan.sent,
        "switch": plan.switch,
        "remove": list(plan.remove),
    }


def print_listing(results: Sequence[Result[Listing]]) -> None:
    """Print the versions of each board as one table."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        if result.value is not None:
            rows += _listing_rows(result.name, result.value)
    show.table(("board", "version", "state", "before it", "size"), rows, left=4)


def _listing_rows(name: str, listing: Listing) -> Iterator[tuple[str, ...]]:
    if not listing.versions and not listing.incoming:
        yield (name, "-", "nothing is deployed there", "", "")
    for version in listing.history():
        there = listing.versions[version]
        yield (name, version, _state(listing, version), there.before or "-", f"{there.bytes:,} B")
    for version, size in sorted(listing.incoming.items()):
        yield (name, version, "upload was interrupted", "", f"{size:,} B")
    if listing.lock is not None:
        yield (name, "", "somebody is at work there", "", "")


def _state(listing: Listing, version: str) -> str:
    if version == listing.current:
        return "current, not found healthy yet" if listing.unproven else "current"
    return "previous" if version == listing.previous else ""


def listing_json(listing: Listing) -> dict[str, Any]:
    """The versions of a board as JSON."""
    return {
        "current": listing.current,
        "previous": listing.previous,
        "unproven": listing.unproven,
        "locked": listing.lock is not None,
        "versions": [
            {"version": v, "bytes": listing.versions[v].bytes, "before": listing.versions[v].before}
            for v in listing.history()
        ],
        "incoming": listing.incoming,
    }


def result_json(result: Result[T], as_data: Callable[[T], dict[str, Any]]) -> dict[str, Any]:
    """What came of one board as JSON: what ``as_data`` makes of it, or its error."""
    if result.error is not None:
        error = result.error
        return {"board": result.name, "error": line(error), "exit_code": error.exit_code}
    assert result.value is not None
    return {"board": result.name, **as_data(result.value)}


def line(error: EdgepruneError | None) -> str:
    """The text of an error as one line."""
    return " ".join(str(error).split())
