# SPDX-License-Identifier: Apache-2.0
"""``edgeprune diff``: what changed between two versions of artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import show
from edgeprune.errors import InputError

if TYPE_CHECKING:
    from edgeprune.check.diff import Compared, Diff, FigureDiff

__all__ = ["add_to"]

_LAYERS = 20
"""Layers that are shown; the others are counted, and all are in the JSON."""

_EXAMPLES = """Examples:

  edgeprune diff out/rpi4 new/rpi4

  edgeprune diff old.tflite new.tflite --json

  edgeprune diff main out/net

  edgeprune diff HEAD~3:models/net.onnx models/net.onnx --format markdown
"""

_SIDE = "A result of compress, a folder of them, an .onnx or .tflite file, or a git revision: "
Before = Annotated[
    str,
    typer.Argument(
        metavar="BEFORE", help=f"{_SIDE}REVISION:PATH, or REVISION for the path of the other side."
    ),
]
After = Annotated[str, typer.Argument(metavar="AFTER", help="The same of the other version.")]
FormOption = Annotated[
    Literal["terminal", "markdown"],
    typer.Option("--format", "-f", help="Tables for a terminal, or for a comment."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(diff)


def diff(
    before: Before,
    after: After,
    size: opt.SizeOption = None,
    format: FormOption = "terminal",
    json: opt.JsonOption = False,
) -> None:
    """Show per target what changed: bytes, operators, layers, latency with intervals.

    Nothing is run and nothing is judged; the exit code is 0 whatever changed.
    """
    from edgeprune.check.case import check_sizes
    from edgeprune.check.diff import compare, side

    sizes = opt.sizes(size)

    with ExitStack() as stack:
        sides = []
        for text, other in ((before, after), (after, before)):
            path = stack.enter_context(_opened(text, other))
            sides.append(side(path, Path.cwd(), text, sizes))
        check_sizes([each for one in sides for each in one.subjects.values()], sizes)
        found = compare(*sides)
    if json:
        show.as_json(found.as_data())
    elif format == "markdown":
        typer.echo(_markdown(found))
    else:
        _print(found)


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists() or Path(text).is_symlink()
    except OSError:  # a name that is too long: no path, and no revision either
        return False


@contextmanager
def _opened(text: str, other: str) -> Iterator[Path]:
    """The path of one side; of a revision a copy, while the context is open."""
    from edgeprune.check.revisions import at_revision

    here = Path.cwd()
    if _is_there(text):
        yield Path(text)
        return
    revision, _, path = text.partition(":")
    path = path or (other if _is_there(other) else other.partition(":")[2])
    if not path or not revision:
        raise InputError(
            f"{text}: isn't there; as a revision it needs a path: {revision or 'REVISION'}:PATH"
        )
    with at_revision(revision, Path(path), here) as copy:
        yield copy


_COLUMNS = ("figure", "before", "after", "change")


def _print(found: Diff) -> None:
    for each in found.artifacts:
        typer.echo(f"{_title(each)}")
        if each.state != "same":
            show.table(_COLUMNS, _rows(each))
            typer.echo()
        details = list(_details(each))
        show.lines(details)
        if details:
            typer.echo()
    show.lines(found.notes)


def _title(each: Compared) -> str:
    from edgeprune.report.text import plain

    owner = f"{plain(each.target)}: " if each.target else ""
    states = {"same": "the same file", "changed": "changed", "new": "new", "gone": "gone"}
    return f"{owner}{plain(each.name)}: {states[each.state]}"


def _rows(each: Compared) -> list[tuple[str, ...]]:
    from edgeprune.report.text import spread

    return [
        (one.key.replace("_", " "), spread(one.before), spread(one.after), _change(one))
        for one in each.figures
    ]


def _change(one: FigureDiff) -> str:
    from edgeprune.report.text import change

    if one.elsewhere:
        return "other machine"
    if one.before is None or one.after is None:
        return ""
    if one.before.value == one.after.value:
        return "="
    if one.after.unit in ("%", "points"):
        return f"{change(one.after.value - one.before.value)} points"
    if one.key.endswith("_ops"):
        return f"{one.after.value - one.before.value:+.0f}"
    text = "" if one.growth is None else f"{100 * (one.growth - 1):+.1f} %"
    return f"{text} (intervals overlap)" if _overlap(one) else text


def _overlap(one: FigureDiff) -> bool:
    """Whether the difference may be chance."""
    old, new = one.before, one.after
    if old is None or new is None or None in (old.low, old.high, new.low, new.high):
        return False
    assert old.low is not None
    assert old.high is not None
    assert new.low is not None
    assert new.high is not None
    return old.low <= new.high and new.low <= old.high


def _details(each: Compared) -> Sequence[str]:
    from edgeprune.report.text import plain

    lines = []
    if each.kinds and each.state == "changed":
        pairs = (f"{plain(kind)} {old} -> {new}" for kind, (old, new) in each.kinds.items())
        lines.append(f"operators: {', '.join(pairs)}")
    layers = sorted(each.layers, key=lambda layer: -abs(layer.growth("bytes")))
    lines += [f"{layer.name}: {layer.text}" for layer in layers[:_LAYERS]]
    if len(layers) > _LAYERS:
        lines.append(f"... and {len(layers) - _LAYERS} more layers")
    if each.state == "changed" and not each.kinds and not layers:
        lines.append("the same operators and layers: other weights")
    return lines


def _markdown(found: Diff) -> str:
    from edgeprune.report.check.markdown import prose

    parts = ["## edgeprune diff"]
    for each in found.artifacts:
        parts.append(f"**{prose(_title(each))}**")
        if each.state != "same":
            head = [f"| {' | '.join(_COLUMNS)} |", "| --- | ---: | ---: | ---: |"]
            rows = [f"| {' | '.join(map(prose, row))} |" for row in _rows(each)]
            parts.append("\n".join((*head, *rows)))
        details = _details(each)
        if details:
            parts.append("\n".join(f"- {prose(line)}" for line in details))
    if found.notes:
        parts.append("\n".join(f"- {prose(note)}" for note in found.notes))
    return "\n\n".join(parts)
