# SPDX-License-Identifier: Apache-2.0
"""A history as one HTML file: the plot, the table, what is missing. Nothing from elsewhere."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from edgeprune.history.series import QUANTITIES, Row, Series
from edgeprune.report.text import ABSENT, plain, spread

__all__ = ["columns", "page"]

_SHORT, _DAY = 10, 10
# No script can run and nothing is fetched, whatever a commit's author wrote.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; background: #fff;
       max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
img { width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
         border-bottom: 1px solid #e3e6ea; }
td { overflow-wrap: anywhere; }
th.figure, td.figure { text-align: right; white-space: nowrap;
                       font-variant-numeric: tabular-nums; }
code { font: 13px ui-monospace, Menlo, Consolas, monospace; }
p, li { color: #5b6472; }
"""


def columns(rows: Sequence[Row]) -> list[str]:
    """The quantities that any row has, in their order."""
    return [name for name in QUANTITIES if any(name in row.figures for row in rows)]


def page(shown: Series, svg: str | None, *, title: str, notes: Iterable[str] = ()) -> str:
    """The page; equal text for equal content.

    Args:
        shown: What the table lists, the newest commit first.
        svg: The plot; ``None`` where there is nothing to draw.
        title: What it is the history of.
        notes: Beside those of ``shown``.
    """
    name = _text(title)
    told = [*notes, *shown.notes]
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>",
        f"<p>{_summary(shown)}</p>",
    ]
    if svg is not None:
        # As a picture of its own: what stands in it can't become part of the page.
        data = b64encode(svg.encode()).decode("ascii")
        parts.append(f'<img alt="figures over commits" src="data:image/svg+xml;base64,{data}">')
    parts += ["<h2>Accepted figures</h2>", _table(shown.rows)]
    if told:
        items = "".join(f"<li>{_text(note)}</li>" for note in told)
        parts.append(f"<h2>Notes</h2>\n<ul>{items}</ul>")
    return "\n".join([*parts, "</body>\n</html>\n"])


def _summary(shown: Series) -> str:
    commits, names = len(shown.points), len({row.name for row in shown.rows})
    if not commits:
        return "No version could be read."
    first, last = (_text(shown.points[place].when[:_DAY]) for place in (0, -1))
    return (
        f"{commits} commit{'s' * (commits > 1)} from {first} to {last}, "
        f"{names} artifact{'s' * (names != 1)}. "
        "In brackets is the interval that a figure is known to."
    )


def _table(rows: Sequence[Row]) -> str:
    quantities = columns(rows)
    head = "".join(f"<th>{name}</th>" for name in ("commit", "date", "artifact"))
    head += "".join(f'<th class="figure">{_text(name)}</th>' for name in quantities)
    body = "\n".join(_row(row, quantities) for row in reversed(rows))
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}<th>reason</th></tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(row: Row, quantities: Sequence[str]) -> str:
    version = row.version
    cells = [
        f'<td><code title="{_text(version.subject)}">{_text(version.commit[:_SHORT])}</code></td>',
        f"<td>{_text(version.when[:_DAY])}</td>",
        f"<td>{_text(row.name)}</td>",
    ]
    cells += [
        f'<td class="figure">{_text(spread(row.figures[name])) if name in row.figures else ABSENT}'
        "</td>"
        for name in quantities
    ]
    return f"<tr>{''.join(cells)}<td>{_text(version.lock.reason)}</td></tr>"


def _text(value: str) -> str:
    return escape(plain(value), quote=True)
