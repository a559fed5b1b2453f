# SPDX-License-Identifier: Apache-2.0
"""``edgeprune badge`` and ``edgeprune render``: the report of one check in further forms.

A CI job wants several of one check: annotations, a summary, a file for the service, a badge. A
check that measures is run once, with ``--format json``, and these read what it said.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import ValidationError

from edgeprune.cli import options as opt
from edgeprune.errors import InputError
from edgeprune.gate.judged import CheckReport
from edgeprune.report.check import Form, render
from edgeprune.report.check import badge as draw
from edgeprune.writing import check_place, save

__all__ = ["add_to"]

_BADGE = """Examples:

  edgeprune check --format json | edgeprune badge -o badge.svg

  edgeprune badge check.json -o badge.svg --overwrite
"""
_RENDER = """Examples:

  edgeprune check --measure --format json > check.json

  edgeprune render check.json --format junit -o junit.xml

  edgeprune render models/check.json --base models/ --format github
"""
_MOST = 64 * 2**20
"""Bytes; a report on 10,000 artifacts has about half of that."""

CheckArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CHECK",
        show_default="standard input",
        help="What `edgeprune check --format json` printed.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("badge", epilog=_BADGE)(badge)
    app.command("render", epilog=_RENDER)(render_)


def badge(
    check: CheckArgument = None,
    output: Annotated[Path | None, opt.file_option("The .svg to write.")] = None,
    overwrite: opt.OverwriteOption = False,
) -> None:
    """Draw a check's size, latency and verdict as a badge (SVG) for a README or a dashboard."""
    if output is not None:
        check_place(output, (".svg",), overwrite=overwrite)
    _put(draw(_read(check)), output)


def render_(
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            "-f",
            metavar="FORM",
            show_default=False,
            help=f"What to make of it: {', '.join(get_args(Form))}.",
        ),
    ],
    check: CheckArgument = None,
    output: Annotated[Path | None, opt.file_option("The file to write.")] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            metavar="FOLDER",
            show_default="this one",
            help="Where the check was run; its paths are told as they are from here.",
        ),
    ] = None,
    overwrite: opt.OverwriteOption = False,
) -> None:
    """Print the report of a check in another form; the exit code is 0 whatever its verdict is."""
    if output is not None:
        check_place(output, overwrite=overwrite)
    report = _read(check)
    _put(render(report if base is None else _moved(report, base), form), output)


def _moved(report: CheckReport, base: Path) -> CheckReport:
    """The report with its paths relative to this folder: services match them with those of the
    repository, and a check may have been run further down in it."""
    judged = []
    for each in report.judged:
        place = each.place
        if place is not None:
            place = place.model_copy(update={"file": _from_here(place.file, base)})
        artifact = _from_here(each.artifact, base)
        judged.append(each.model_copy(update={"artifact": artifact, "place": place}))
    return report.model_copy(update={"judged": tuple(judged)})


def _from_here(file: str, base: Path) -> str:
    if not file or file.startswith("/"):
        return file
    return Path(os.path.relpath(base / file)).as_posix()


def _put(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
    else:
        save(output, text)
        typer.echo(f"{output}: {len(text.encode()):,} B")


def _read(path: Path | None) -> CheckReport:
    """The report in a file, or on standard input.

    Raises:
        InputError: It can't be read, or is none.
    """
    name = "standard input" if path is None else str(path)
    content = _content(path, name)
    if not content.strip():
        raise InputError(
            f"{name}: is empty; it should have what `edgeprune check --format json` prints, "
            "which prints nothing where it ends with an error"
        )
    try:
        return CheckReport.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the text"
        raise InputError(
            f"{name}: is no report of `edgeprune check --format json`: {key}: {first['msg']}"
        ) from None


def _content(path: Path | None, name: str) -> bytes:
    if path is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("name the file, or pipe into this: edgeprune check --format json | ...")
    try:
        if path is None:
            content = sys.stdin.buffer.read(_MOST + 1)
        else:
            with path.open("rb") as file:
                content = file.read(_MOST + 1)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: can't be read: {told}") from None
    if len(content) > _MOST:
        raise InputError(f"{name}: has more than {_MOST:,} B; no report of a check is so large")
    return content
