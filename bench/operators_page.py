# SPDX-License-Identifier: Apache-2.0
"""The page of the operator table, and the judgement of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["page", "wrong"]

Row = dict[str, Any]

_LIMITS = {"fp32": 60.0, "fp16": 40.0, "int8": 15.0}
"""What ``edgeprune export`` asks for at least, in dB."""
_ENOUGH = {"fp32": 100.0, "fp16": 60.0, "int8": 40.0}
"""Above it a difference between the formats is that of rounding."""
_APART = 10.0
"""dB by which a file may be worse than the other format's of the same network."""
_EQUAL = {"fp32": 0.99, "fp16": 0.98, "int8": 0.9}
"""Share of integer outputs that must be the network's."""
_COLUMNS = [(form, numerics) for form in ("onnx", "tflite") for numerics in _LIMITS]
_HEAD = """\
# Operators

What each operator comes to in each format, in dB: signal to noise of the file's outputs against the
dense float network's, on random samples. A network is one operator between two layers with random
weights; it goes through the same functions as in `edgeprune compress`. More is better; a share
stands where the outputs are integers that must be equal. *no* is refused before any work, for the
reason given below the table; an empty cell hasn't been measured. Operators that int8 leaves in
float are measured as such.

Written by `python bench/operators.py`, which ends with 1 where a row is neither right (at least
60 dB in fp32, 40 in fp16, 15 in int8, and no more than 10 dB worse than the other format) nor
refused. {count} rows: {right} right, {refused} refused, {wrong} wrong.
"""


def wrong(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """The rows that are neither right nor refused, with what is wrong about each."""
    by_key = {(r["operator"], r["setting"], r["format"], r["numerics"]): r for r in rows}
    found = []
    for row in rows:
        other = "onnx" if row["format"] == "tflite" else "tflite"
        sibling = by_key.get((row["operator"], row["setting"], other, row["numerics"]), {})
        why = _wrong(row, sibling)
        if why:
            found.append((row, why))
    return found


def _wrong(row: Row, sibling: Row) -> str | None:
    numerics = row["numerics"]
    if "refused" in row:
        return None
    if "wrong" in row:
        return str(row["wrong"])
    if "equal" in row:
        return None if row["equal"] >= _EQUAL[numerics] else f"{row['equal']:.1%} equal"
    if row["db"] < _LIMITS[numerics]:
        return f"{row['db']} dB"
    best = min(sibling.get("db", -300.0), _ENOUGH[numerics])
    return f"{row['db']} dB, the other {sibling['db']}" if row["db"] < best - _APART else None


def page(rows: Sequence[Row]) -> str:
    """The page of these rows."""
    bad = {id(row): why for row, why in wrong(rows)}
    refused = [row for row in rows if "refused" in row]
    counts = {"count": len(rows), "refused": len(refused), "wrong": len(bad)}
    counts["right"] = len(rows) - len(refused) - len(bad)
    lines = [_HEAD.format(**counts)]
    columns = " | ".join(f"{form} {numerics}" for form, numerics in _COLUMNS)
    lines.append(f"| operator | setting | {columns} |")
    lines.append("|---" * (2 + len(_COLUMNS)) + "|")
    lines.extend(_lines(rows, bad))
    reasons = sorted({(f"{r['operator']} {r['setting']}".strip(), r["refused"]) for r in refused})
    if reasons:
        lines.append("\n## Refused\n")
        lines.extend(f"- {name}: {reason}" for name, reason in reasons)
    return "\n".join(lines) + "\n"


def _lines(rows: Sequence[Row], bad: dict[int, str]) -> list[str]:
    cases: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in rows:
        case = cases.setdefault((row["operator"], row["setting"]), {})
        case[row["format"], row["numerics"]] = _cell(row, id(row) in bad)
    return [
        f"| {operator} | {setting} | {' | '.join(cells.get(c, '') for c in _COLUMNS)} |"
        for (operator, setting), cells in cases.items()
    ]


def _cell(row: Row, bad: bool) -> str:
    if "refused" in row:
        return "no"
    if "wrong" in row:
        return "**wrong**"
    text = f"{row['equal']:.0%}" if "equal" in row else f"{row['db']:.0f}"
    return f"**{text}**" if bad else text
