# SPDX-License-Identifier: Apache-2.0
"""How well the agent's figures repeat on this machine, quiet and with a busy process on each core.

    pip install -e '.[compress,dev]'
    python bench/repeatability.py

writes ``bench/repeatability.md``: ten runs in each state of the memory and the latency of two tiny
networks in both formats. Of memory the spread of the runs is shown, of latency how often a run's
interval holds the median of the other runs. About a quarter of an hour for each state.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for tests.networks

import torch  # noqa: E402

from edgeprune import __version__  # noqa: E402
from edgeprune.export.onnx import write_onnx  # noqa: E402
from edgeprune.export.tflite import write_tflite  # noqa: E402
from edgeprune.model import Event, capture  # noqa: E402
from edgeprune.profiler.machine import describe  # noqa: E402
from edgeprune.profiler.stats import median_with_interval, usable  # noqa: E402
from tests.networks import digits_cnn, resnet20  # noqa: E402

RUNS = 10
STATES = ("quiet", "hog")
SEED = 0
MEMORY = 0.01
"""Share by which memory may spread."""
HEADINGS = (
    *("state", "file", "peak MB", "spread", "increment MB", "spread", "arena B"),
    *("p50 µs", "farthest", "interval", "covers", "blocks"),
)


@dataclass(frozen=True)
class Repeated:
    """All runs of one file in one state."""

    peaks: list[float]
    """Bytes, the median of a run's processes; so are ``models``."""
    models: list[float]
    arenas: set[int | None]
    blocks: list[list[dict[str, Any]]]

    def held_against(self) -> list[tuple[Any, float]]:
        """The latency of each run, and the median of the other runs."""
        found = [self.estimate(blocks) for blocks in self.blocks]
        return [(one, median(other.value for other in found if other is not one)) for one in found]

    def hits(self) -> int:
        """Runs whose interval holds the median of the other runs."""
        return sum(one.low <= others <= one.high for one, others in self.held_against())

    @staticmethod
    def estimate(blocks: list[dict[str, Any]]) -> Any:
        """The latency of a run as a report has it."""
        return median_with_interval([block["p50"] for block in usable(blocks)])

    def row(self, state: str, name: str) -> list[str]:
        """What the table shows of it."""
        estimates = [self.estimate(blocks) for blocks in self.blocks]
        values = [estimate.value for estimate in estimates]
        farthest = max(abs(one.value / others - 1) for one, others in self.held_against())
        width = median((e.high - e.low) / 2 / e.value for e in estimates)
        counts = [len(blocks) for blocks in self.blocks]
        clean = sum(not block["tainted"] for blocks in self.blocks for block in blocks)
        return [
            *(state, name, f"{median(self.peaks) / 1e6:.2f}", f"{spread(self.peaks):.2%}"),
            *(f"{median(self.models) / 1e6:.3f}", f"{spread(self.models):.2%}"),
            ", ".join(str(arena) for arena in sorted(self.arenas, key=str)),
            *(f"{median(values) * 1e6:.1f}", f"{farthest:.1%}", f"±{width:.1%}"),
            f"{self.hits()} of {len(values)}",
            f"{min(counts)} to {max(counts)}, {clean} of {sum(counts)} undisturbed",
        ]

    def holds(self) -> bool:
        """Whether it is as the project promises."""
        runs = len(self.blocks)
        memory = spread(self.peaks) <= MEMORY and spread(self.models) <= MEMORY
        return memory and len(self.arenas) == 1 and self.hits() >= runs - runs // 10


def main() -> None:
    """Do the runs and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=RUNS, help="in each state (10)")
    parser.add_argument("--state", choices=STATES, action="append", help="one state only")
    parser.add_argument("--out", type=Path, default=HERE / "repeatability.md")
    given = parser.parse_args()
    if given.runs < 2:
        parser.error("--runs: one run has no other to be compared with")
    start = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        files = write_models(Path(folder))
        found = {}
        for state in given.state or STATES:
            load = os.getloadavg()[0]
            with hogs(os.cpu_count() or 1) if state == "hog" else contextlib.nullcontext():
                for name, repeated in repeat(files, given.runs, state).items():
                    found[state, name] = repeated
            print(f"{state}: load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    text = page(found, given.runs, start)
    print(text)
    given.out.write_text(text, encoding="utf-8")


def write_models(folder: Path) -> list[Path]:
    """Write two networks in both formats."""
    shapes = {"resnet20": (resnet20, (2, 3, 32, 32)), "digits": (digits_cnn, (2, 1, 8, 8))}
    files = []
    for name, (make, shape) in shapes.items():
        torch.manual_seed(SEED)
        model, _ = capture(make().eval(), (torch.randn(shape),), event=Event("load"))
        files += [folder / f"{name}.onnx", folder / f"{name}.tflite"]
        write_onnx(model, files[-2], opset=20, batch=1)
        write_tflite(model, files[-1], batch=1)
    return files


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that do nothing but be busy."""
    words = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(words) for _ in range(count)]
    try:
        time.sleep(1)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def repeat(files: list[Path], runs: int, state: str) -> dict[str, Repeated]:
    """Measure all files ``runs`` times, as ``edgeprune profile`` has the agent do it."""
    found = {path.name: Repeated([], [], set(), []) for path in files}
    for run in range(runs):
        print(f"{state}, run {run + 1} of {runs}", file=sys.stderr)
        memory, latency = (
            agent(task, "--seed", str(run), *map(str, files)) for task in ("memory", "latency")
        )
        for place, path in enumerate(files):
            one, mine = memory[place], found[path.name]
            mine.peaks.append(median(one["peak"]))
            mine.models.append(median(one["model"]))
            mine.arenas.update(one["arenas"] or [None])
            mine.blocks.append(latency[place]["blocks"])
    return found


def agent(*words: str) -> list[dict[str, Any]]:
    """Ask the agent in this tree."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune.profiler", *words],
        cwd=HERE.parent,
        capture_output=True,
        check=True,
    )
    files: list[dict[str, Any]] = json.loads(done.stdout)["result"]["files"]
    return files


def spread(values: list[float]) -> float:
    """Largest less smallest, as a share of the median."""
    return (max(values) - min(values)) / median(values)


def page(found: dict[tuple[str, str], Repeated], runs: int, start: datetime) -> str:
    """Write the table and what belongs to it."""
    rows = [list(HEADINGS), ["---"] * len(HEADINGS)]
    rows += [repeated.row(state, name) for (state, name), repeated in found.items()]
    broken = [f"{name} ({state})" for (state, name), each in found.items() if not each.holds()]
    tools = ("onnxruntime", "ai-edge-litert", "numpy")
    told = ", ".join(f"{tool} {version(tool)}" for tool in tools)
    states = dict.fromkeys(state for state, _ in found)
    only = f" --state {' '.join(states)}" if len(states) < len(STATES) else ""
    minutes = (datetime.now(UTC) - start).total_seconds() / 60
    return "\n".join(
        [
            "# How well the agent's figures repeat",
            "",
            f"`python bench/repeatability.py{only}`",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            f"{runs} runs in each state; `hog` has a busy process on each core beside the agent. "
            "Spread: largest less smallest of the runs, over their median. Farthest: of a run from "
            "the median of the others. Interval: half its width, the median of the runs. Covers: "
            "the runs whose interval holds the median of the others.",
            "",
            "Promised: memory within 1 %, arenas equal, 9 of 10 covered. Not held by "
            f"{', '.join(broken)}."
            if broken
            else "Promised and held: memory within 1 %, arenas equal, 9 of 10 covered.",
            "",
            "That no interval is narrower than 5 % was found by trial, beside busy processes: with "
            "3 % and with 4 % one file in four was covered in 8 of 10 runs only, and the farthest "
            "run was 5 % away. So where the interval is just that, the page shows that runs differ "
            "by less, not that the blocks tell by how much. Other machines, and models of more "
            "than half a millisecond, weren't tried.",
            "",
            f"{start:%Y-%m-%d}, {minutes:.0f} minutes; {describe()}; one thread; load average at "
            f"the end {os.getloadavg()[0]:.1f}.",
            "",
            f"Versions: edgeprune {__version__}, {told}, python {sys.version.split()[0]}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
