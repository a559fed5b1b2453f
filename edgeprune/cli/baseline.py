# SPDX-License-Identifier: Apache-2.0
"""``edgeprune baseline``: the figures that a team accepted, in ``edgeprune.lock.json``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import check, reach, show
from edgeprune.cli import options as opt
from edgeprune.errors import InputError
from edgeprune.writing import save

if TYPE_CHECKING:
    from edgeprune.gate.lock import Accepted, Lock
    from edgeprune.project import ProjectFile

__all__ = ["app"]

app = typer.Typer(
    help="The figures that `check` holds new ones against: edgeprune.lock.json, to be committed.",
    no_args_is_help=True,
)

_ACCEPT = """Examples:

  edgeprune baseline accept --reason "wider head for the new classes"

  edgeprune baseline accept --model classifier --target rpi4 --measure --device ssh://pi@board
"""
_SHOW = """Examples:

  edgeprune baseline show

  edgeprune baseline show --json
"""

_COLUMNS = ("model", "target", "file", "size", "parameters", "MACs", "latency", "score")

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Of these models only; may be repeated."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", metavar="TARGET", help="For these only; may be repeated."),
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", "-m", metavar="TEXT", help="Why; it stands in the file's history."),
]


@app.command(epilog=_ACCEPT)
def accept(
    reason: Reason = None,
    model: Models = None,
    target: Targets = None,
    size: opt.SizeOption = None,
    measure: check.Measure = False,
    device: reach.DeviceOption = None,
    time_limit: check.TimeLimit = None,
) -> None:
    """Take the present figures as the baseline; commit the file that is written.

    Nothing is accepted whose manifest doesn't fit its files.
    """
    from edgeprune.check import Request, gather
    from edgeprune.check.accept import accept as accepted
    from edgeprune.check.accept import present
    from edgeprune.gate.lock import read_lock
    from edgeprune.report.files import to_json
    from edgeprune.report.text import plain

    how = check.measuring(measure, device, time_limit)
    project = _project()
    before = read_lock(project.lock)
    request = Request(targets=tuple(target or ()), models=tuple(model or ()), sizes=opt.sizes(size))
    here = Path.cwd()
    cases = gather(request, here, project, before)
    subjects, notes = present(cases, here, how, request.sizes)
    lock = accepted(
        subjects,
        before,
        whole=not (request.targets or request.models),
        reason=plain(reason or "") or "no reason was given",
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    show.lines(notes)
    if before is not None and before.models == lock.models:
        typer.echo(f"{project.lock.name}: all of this is accepted already; nothing was written")
        return
    save(project.lock, to_json(lock))
    _table(lock, before)
    typer.echo(f"\n{project.lock.name}: accepted: {lock.reason}")


@app.command("show", epilog=_SHOW)
def show_(json: opt.JsonOption = False) -> None:
    """Show the figures that are accepted, since when and why."""
    from edgeprune.gate.lock import read_lock
    from edgeprune.report.text import plain

    project = _project()
    lock = read_lock(project.lock)
    if lock is None:
        raise InputError(
            f"{project.lock}: isn't there; `edgeprune baseline accept` takes the present figures"
        )
    if json:
        show.as_json(lock.model_dump(mode="json"))
        return
    typer.echo(f"accepted {plain(lock.accepted)}: {plain(lock.reason)}")
    _table(lock, None)


def _project() -> ProjectFile:
    from edgeprune.project import find_project

    found = find_project(Path.cwd())
    if found is None:
        raise InputError(
            "a baseline belongs to a project: there is no edgeprune.toml here or above "
            "(`edgeprune init` writes one)"
        )
    return found


def _table(lock: Lock, before: Lock | None) -> None:
    from edgeprune.report.text import plain

    rows = []
    for model, target, name, entry in _entries(lock):
        old = None
        if before is not None:
            old = before.models.get(model, {}).get(target, {}).get(name)
        cells = (_cell(entry, old, key) for key in ("bytes", "parameters", "macs"))
        rows.append(
            (plain(model), plain(target), plain(name), *cells, _latency(entry), _score(entry))
        )
    show.table(_COLUMNS, rows, left=3)


def _entries(lock: Lock) -> Iterator[tuple[str, str, str, Accepted]]:
    for model, targets in sorted(lock.models.items()):
        for target, files in sorted(targets.items()):
            for name, entry in sorted(files.items()):
                yield model, target, name, entry


def _cell(entry: Accepted, old: Accepted | None, key: str) -> str:
    from edgeprune.report.text import show as text

    now = entry.figures.get(key)
    before = None if old is None else old.figures.get(key)
    if before is None or now is None or before.value == now.value:
        return text(now)
    return f"{text(before)} -> {text(now)}"


def _latency(entry: Accepted) -> str:
    from edgeprune.report.text import spread

    found = entry.figures.get("latency_reference") or entry.figures.get("latency_p50")
    return spread(found)


def _score(entry: Accepted) -> str:
    from edgeprune.report.text import show as text

    return text(entry.figures.get("score"))
