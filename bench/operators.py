# SPDX-License-Identifier: Apache-2.0
"""Every operator, in every setting, format and numerics: right, or refused by name.

    python bench/operators.py                             # what is missing
    python bench/operators.py --only interpolate --again  # some, again
    python bench/operators.py --wrong                     # the wrong rows again
    python bench/operators.py --render                    # only write the page

Each case is a network of one operator between two layers (``operator_cases.py``). It goes through
capture, quantization, and export with its checks, as in ``edgeprune compress``; then the file's
outputs are compared with the dense float network's. Each result is a line of
``bench/operators.jsonl``, so that a run goes on where it was left, and ``docs/operators.md`` is
written of what is there. Ends with 1 where a row is neither right nor refused.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast, get_args

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from operator_cases import CASES, Case  # noqa: E402
from operators_page import page, wrong  # noqa: E402

from edgeprune.context import Context  # noqa: E402
from edgeprune.data import Batch, Data  # noqa: E402
from edgeprune.errors import EdgepruneError, InputError  # noqa: E402
from edgeprune.export import export  # noqa: E402
from edgeprune.export.feed import artifact_runner  # noqa: E402
from edgeprune.export.refusals import refuse  # noqa: E402
from edgeprune.model import Event, Model, capture, runner  # noqa: E402
from edgeprune.quantize import quantize, static_blockers  # noqa: E402
from edgeprune.recipe import ExportOptions, Format, Numerics, QuantizeOptions  # noqa: E402
from edgeprune.target import Target  # noqa: E402

__all__ = ["CASES", "COLUMNS", "PAGE", "ROWS", "page", "rows_of", "wrong"]

ROWS, PAGE = HERE / "operators.jsonl", HERE.parent / "docs" / "operators.md"
NUMERICS: tuple[Numerics, ...] = ("fp32", "fp16", "int8")
COLUMNS = [(form, numerics) for numerics in NUMERICS for form in get_args(Format)]
_EVALUATION = 8
"""Samples that files are held against; those before them calibrate."""

Row = dict[str, Any]


def main() -> int:
    """Run what is missing, then write the page."""
    given = _arguments()
    rows = {_key(row): row for row in _read()}
    if not given.render:
        _run(given, rows)
    ordered = _ordered(rows)
    ROWS.write_text("".join(json.dumps(row) + "\n" for row in ordered), encoding="utf-8")
    PAGE.write_text(page(ordered), encoding="utf-8")
    bad = wrong(ordered)
    for row, why in bad:
        print(f"wrong: {row['operator']} {row['setting']} {row['format']} {row['numerics']}: {why}")
    print(f"{len(ordered)} rows, {len(bad)} wrong")
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", help="only cases whose operator and setting have this in them")
    parser.add_argument("--format", choices=get_args(Format))
    parser.add_argument("--numerics", choices=NUMERICS)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--again", action="store_true", help="rows that are there too")
    parser.add_argument("--wrong", action="store_true", help="again, but only the wrong rows")
    parser.add_argument("--render", action="store_true", help="only write the page")
    return parser.parse_args()


def _read() -> Iterator[Row]:
    if ROWS.exists():
        for line in ROWS.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _key(row: Row) -> tuple[str, ...]:
    return row["operator"], row["setting"], row["format"], row["numerics"]


def _ordered(rows: dict[tuple[str, ...], Row]) -> list[Row]:
    """The rows of cases that are, in their order."""
    keys = [(c.operator, c.setting, f, n) for c in CASES for f, n in COLUMNS]
    return [rows[key] for key in keys if key in rows]


def _run(given: argparse.Namespace, rows: dict[tuple[str, ...], Row]) -> None:
    bad = {_key(row) for row, _ in wrong(_ordered(rows))}
    wanted: list[tuple[int, tuple[tuple[Format, Numerics], ...]]] = []
    for place, case in enumerate(CASES):
        columns = tuple(
            (form, numerics)
            for form, numerics in COLUMNS
            if given.format in (None, form) and given.numerics in (None, numerics)
            if _due(given, (case.operator, case.setting, form, numerics), rows, bad)
        )
        if columns and (given.only or "") in case.name:
            wanted.append((place, columns))
    with ThreadPoolExecutor(given.jobs) as pool, ROWS.open("a", encoding="utf-8") as lines:
        queue = iter(wanted)
        for made in pool.map(lambda _: list(_worker(queue, rows, lines)), range(given.jobs)):
            assert not made


def _due(
    given: argparse.Namespace, key: tuple[str, ...], rows: dict[tuple[str, ...], Row], bad: set[Any]
) -> bool:
    return key in bad if given.wrong else given.again or key not in rows


def _worker(queue: Iterator[Any], rows: dict[tuple[str, ...], Row], lines: Any) -> Iterator[Row]:
    """Cases one after the other in a process of its own; a crash of a converter is a row."""
    process = ProcessPoolExecutor(1, get_context("spawn"))
    for place, columns in queue:
        case = CASES[place]
        try:
            found = process.submit(_numbered, place, columns).result()
        except BrokenProcessPool:
            process = ProcessPoolExecutor(1, get_context("spawn"))
            found = [_row(case, f, n, wrong="the process dies") for f, n in columns]
        for row in found:
            rows[_key(row)] = row
            lines.write(json.dumps(row) + "\n")
            said = row.get("wrong") or row.get("refused") or row.get("db", row.get("equal"))
            print(f"{case.name}: {row['format']} {row['numerics']}: {said}", flush=True)
        lines.flush()
    process.shutdown()
    yield from ()


def _numbered(place: int, columns: Sequence[tuple[Format, Numerics]]) -> list[Row]:
    torch.set_num_threads(1)
    return rows_of(CASES[place], columns)


class _Samples:
    """The part of ``Data`` that quantization and export use: samples in memory."""

    name, fingerprint, preprocessing = "random samples", "0" * 64, None

    def __init__(self, inputs: tuple[torch.Tensor, ...]) -> None:
        self.inputs = inputs

    def calibration(self, size: int, count: int) -> Iterator[Batch]:
        """The first samples."""
        return self._batches(size, 0, min(count, len(self.inputs[0]) - _EVALUATION))

    def evaluation(self, size: int) -> Iterator[Batch]:
        """The others."""
        count = len(self.inputs[0])
        return self._batches(size, count - _EVALUATION, count)

    def _batches(self, size: int, start: int, stop: int) -> Iterator[Batch]:
        for first in range(start, stop, size):
            last = min(first + size, stop)
            yield Batch(tuple(t[first:last] for t in self.inputs), None)


def rows_of(case: Case, columns: Sequence[tuple[Format, Numerics]]) -> list[Row]:
    """Take a case to some formats and numerics, one row each."""
    module, inputs = case.build(_EVALUATION)
    try:
        dense, _ = capture(module, tuple(t[:2] for t in inputs), event=Event("load"))
    except EdgepruneError as error:
        return [_row(case, f, n, refused=str(error)) for f, n in columns]
    rows: list[Row] = []
    reduced: dict[Numerics, Model | Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        context = Context(_target(), Path(folder), cast("Data", _Samples(inputs)), dense)
        for form, numerics in columns:
            refused = _refused(dense, form, numerics)
            if refused:
                rows.append(_row(case, form, numerics, refused=refused))
                continue
            if numerics not in reduced:
                reduced[numerics] = _reduce(dense, numerics, context)
            model = reduced[numerics]
            outcome = model if isinstance(model, dict) else _outcome(model, form, context)
            rows.append(_row(case, form, numerics, **outcome))
    return rows


def _refused(dense: Model, form: Format, numerics: Numerics) -> str | None:
    """Why the command line takes no such file in hand."""
    try:
        refuse(dense, form)
    except InputError as error:
        return str(error)
    return static_blockers(dense, [form]).get(form) if numerics == "int8" else None


def _row(case: Case, form: str, numerics: str, **outcome: Any) -> Row:
    named = {"operator": case.operator, "setting": case.setting}
    return named | {"format": form, "numerics": numerics} | outcome


def _reduce(dense: Model, numerics: Numerics, context: Context) -> Model | Row:
    try:
        return quantize(dense, QuantizeOptions(numerics=numerics), context)[0]
    except Exception as error:
        return _failure(error)


def _outcome(model: Model, form: Format, context: Context) -> Row:
    """Write the file, check it, and compare its outputs with the dense network's."""
    dense = context.dense
    assert dense is not None
    assert context.data is not None
    try:
        export(model, ExportOptions(formats=(form,)), context)
        batch = next(context.data.evaluation(_EVALUATION))
        arrays = tuple(t.numpy() for t in batch.inputs)
        wanted = runner(dense)(arrays)
        got = artifact_runner(context.folder / f"model.{form}", model)(arrays)
    except Exception as error:
        return _failure(error)
    figures = [_db(w, g) for w, g in zip(wanted, got, strict=True) if w.dtype.kind == "f"]
    if figures:
        return {"db": round(min(figures), 1)}
    return {"equal": min(float((w == g).mean()) for w, g in zip(wanted, got, strict=True))}


def _db(wanted: Any, got: Any) -> float:
    """Signal to noise, at most 300 dB."""
    signal = float((wanted.astype("f8") ** 2).sum())
    noise = float(((wanted.astype("f8") - got) ** 2).sum())
    if not math.isfinite(noise):
        return -300.0
    return min(300.0, 10 * math.log10(signal / noise)) if noise and signal else 300.0


def _failure(error: Exception) -> Row:
    """What goes wrong once the work has begun: a converter's refusal comes too late."""
    return {"wrong": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _target() -> Target:
    def runtime(name: str) -> dict[str, Any]:
        return {"name": name, "version": "1", "numerics": NUMERICS}

    device = {"title": "any", "soc": "any", "cpu": "any", "cores": 1, "isa": [], "ram": 2**30}
    return Target.model_validate(
        {
            "schema_version": 1,
            "name": "bench",
            "device": device,
            "reach": {"how": "none"},
            "onnx": runtime("onnxruntime"),
            "tflite": runtime("ai-edge-litert"),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
