# SPDX-License-Identifier: Apache-2.0
"""``edgeprune history``: what the committed baseline was, commit by commit."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import show
from edgeprune.errors import InputError
from edgeprune.history import History, Series, page, read_history, series
from edgeprune.history.page import columns
from edgeprune.history.revisions import MOST_COMMITS
from edgeprune.history.series import Row
from edgeprune.project import LOCK, find_project
from edgeprune.report.check import plot
from edgeprune.report.text import ABSENT, plain, spread
from edgeprune.writing import check_place, save

__all__ = ["add_to"]

_EXAMPLES = r"""Examples:

  edgeprune history

  edgeprune history -o history.svg

  edgeprune history -o history.html --model classifier --target rpi4

  edgeprune history --rev origin/main --limit 20 --json

Pictures need matplotlib: pip install 'edgeprune\[plots]'. In a CI service fetch all commits
(GitHub's checkout action: fetch-depth: 0), since a shallow clone has no history.
"""
_PICTURES = (".svg", ".png")
_SUFFIXES = (*_PICTURES, ".html")
_SHORT, _DAY = 10, 10


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(history)


def history(
    lock: Annotated[
        Path | None,
        typer.Argument(
            metavar="LOCK",
            show_default=f"{LOCK} beside the project file",
            help="The lock file whose versions are read.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        opt.file_option(
            "Plot into an .svg or .png, or write a page with plot and table, .html.", False
        ),
    ] = None,
    overwrite: opt.OverwriteOption = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Only this model.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", metavar="TARGET", help="Only this target.")
    ] = None,
    rev: Annotated[
        str, typer.Option("--rev", metavar="REV", help="The newest commit: a branch, tag or hash.")
    ] = "HEAD",
    limit: Annotated[
        int,
        typer.Option(
            "--limit", min=1, max=MOST_COMMITS, metavar="N", help="So many versions at most."
        ),
    ] = 100,
    json: opt.JsonOption = False,
) -> None:
    """Show size, latency and accuracy over the commits that accepted them.

    Reads the versions of edgeprune.lock.json from git, along the branch's first parents.
    """
    if output is not None:
        check_place(output, _SUFFIXES, overwrite=overwrite)
    path = lock if lock is not None else _lock()
    found = read_history(path, rev=rev, most=limit)
    shown = series(found.versions, model=model, target=target)
    if output is not None:
        _write(found, shown, path, output)
    if json:
        show.as_json(_as_data(found, shown, path))
        return
    _print(found, shown)
    if output is not None:
        typer.echo(f"{output}: commits: {len(shown.points)}")


def _lock() -> Path:
    project = find_project(Path())
    if project is None:
        raise InputError(
            "there is no edgeprune.toml here or above; name the lock file: edgeprune history LOCK"
        )
    return project.lock


def _write(found: History, shown: Series, path: Path, output: Path) -> None:
    if output.suffix.lower() in _PICTURES:
        plot(shown.points, output)
        return
    title = f"edgeprune: history of {path.name}"
    save(output, page(shown, _picture(shown), title=title, notes=found.notes))


def _picture(shown: Series) -> str | None:
    if not any(figures for point in shown.points for figures in point.figures.values()):
        return None
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "plot.svg"
        plot(shown.points, drawn)
        return drawn.read_text(encoding="utf-8")


def _print(found: History, shown: Series) -> None:
    quantities = columns(shown.rows)
    heads = ("commit", "date", "artifact", *quantities)
    if shown.rows:
        show.table(heads, _cells(shown.rows, quantities), left=3)
        typer.echo("")
    for version in found.versions:
        typer.echo(f"{version.commit[:_SHORT]}  {plain(version.lock.reason)}")
    notes = (*found.notes, *shown.notes)
    if notes:
        typer.echo("")
    show.lines(map(plain, notes))


def _cells(rows: Sequence[Row], quantities: Sequence[str]) -> list[list[str]]:
    """A commit is named once, at its first artifact."""
    cells, last = [], None
    for row in rows:
        version = row.version
        first = (version.commit[:_SHORT], version.when[:_DAY]) if version is not last else ("", "")
        figures = (
            spread(row.figures[name]) if name in row.figures else ABSENT for name in quantities
        )
        cells.append([*first, plain(row.name), *figures])
        last = version
    return cells


def _as_data(found: History, shown: Series, path: Path) -> dict[str, Any]:
    by_commit: dict[str, list[Row]] = {version.commit: [] for version in found.versions}
    for row in shown.rows:
        by_commit[row.version.commit].append(row)
    return {
        "lock": path.as_posix(),
        "commits": [
            {
                "commit": version.commit,
                "when": version.when,
                "subject": version.subject,
                "path": version.path,
                "accepted": version.lock.accepted,
                "reason": version.lock.reason,
                "edgeprune": version.lock.edgeprune,
                "artifacts": [_artifact(row) for row in by_commit[version.commit]],
            }
            for version in found.versions
        ],
        "notes": [*found.notes, *shown.notes],
    }


def _artifact(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "target": row.target,
        "artifact": row.artifact,
        "sha256": row.accepted.sha256,
        "machine": None if row.accepted.machine is None else row.accepted.machine.fingerprint,
        "figures": {
            name: figure.model_dump(mode="json") for name, figure in row.accepted.figures.items()
        },
    }
