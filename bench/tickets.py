# SPDX-License-Identifier: Apache-2.0
"""All methods of sparse training beside each other: accuracy, cost, layer densities, collapse.

    python bench/tickets.py --quick                          # digits, about ten minutes
    python bench/tickets.py --data cifar10.zip               # ResNet-20, a night on two cores
    python bench/tickets.py --data cifar10.zip --minutes 60  # an hour of that night

Each finished run is a line of ``bench/tickets.jsonl`` (``tickets_quick.jsonl``), so that a bench
goes on where it was left, and ``bench/tickets.md`` (``tickets_quick.md``) is written of what is
there. Seeds come first in the order: what is there after an hour is one seed of most cells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import tickets_runs as runs  # noqa: E402
from tickets_page import page  # noqa: E402

from edgeprune.profiler.machine import describe, versions  # noqa: E402

_SHOWN = ("edgeprune", "torch", "numpy", "python")


def main() -> None:
    """Run what is missing, then write the page."""
    given = _arguments()
    plan = runs.quick() if given.quick else runs.night(given.data)
    name = "tickets_quick" if given.quick else "tickets"
    rows = HERE / f"{name}.jsonl"
    deadline = time.monotonic() + 60 * given.minutes if given.minutes else None
    if not given.render:
        _run(plan, rows, given.work / name, given.jobs, deadline, given.only)
    text = page(plan, list(_read(rows)))
    (HERE / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="digits and a small network")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as an image folder or a .zip of one")
    parser.add_argument("--minutes", type=float, help="stop beginning runs after so long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--only", help="only runs whose kind has this in it")
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "edgeprune-bench-tickets",
        help="where tickets and checkpoints are kept between runs",
    )  # fmt: skip
    given = parser.parse_args()
    if not given.quick and not given.data:
        parser.error("--data is needed, or --quick")
    return given


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""For the runs: memory that was given back to the system costs a tenth of the time to get again."""


@dataclass(frozen=True)
class _Order:
    plan: runs.Plan
    case: runs.Case
    work: Path
    deadline: float | None
    """On the system's monotonic clock, which all processes share."""


def _run(
    plan: runs.Plan,
    rows: Path,
    work: Path,
    jobs: int,
    deadline: float | None,
    only: str | None,
) -> None:
    """Carry out all cases that have no row yet, wave by wave: a case may need an earlier ticket."""
    done = {runs.Case(**row["case"]) for row in _read(rows) if runs.fits(plan, row)}
    left = [c for c in plan.cases if c not in done and (only is None or only in c.kind)]
    work.mkdir(parents=True, exist_ok=True)
    os.environ.update(_MEMORY)
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_quiet, maxtasksperchild=20) as pool:
        for wave in runs.waves(left):
            orders = [_Order(plan, case, work, deadline) for case in wave]
            for row in pool.imap_unordered(_one, orders):
                if row is None:
                    continue
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, sort_keys=True) + "\n")
                print(_line(row), flush=True)


def _one(order: _Order) -> dict[str, Any] | None:
    if order.deadline is not None and time.monotonic() > order.deadline:
        return None
    found = runs.measure(order.plan, order.case, order.work)
    return {"case": asdict(order.case), "origin": _origin(), **found}


def _origin() -> str:
    known = versions()
    named = ", ".join(f"{name} {known[name]}" for name in _SHOWN if name in known)
    return f"{datetime.now(UTC):%Y-%m-%d}; {describe()}; {named}"


def _quiet() -> None:
    import torch

    torch.set_num_threads(1)


def _line(row: dict[str, Any]) -> str:
    case = runs.Case(**row["case"])
    return f"{case.text:60} {row['accuracy']:6.2f} %  {row['sparse']:5.2f}x  {row['seconds']:.0f} s"


if __name__ == "__main__":
    main()
