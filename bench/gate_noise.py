# SPDX-License-Identifier: Apache-2.0
"""How often noise fools the latency check against a baseline, with a busy process on each core.

    pip install -e '.[compress,dev]'
    python bench/gate_noise.py            # 100 + 40 checks, about 15 minutes
    python bench/gate_noise.py --quick    # 8 + 4 checks, two minutes

writes ``bench/gate_noise.md``. Two convolutional networks in both formats are accepted as a
baseline while nothing of ours runs beside them. Then, with a busy process on each core, unchanged
files and files with one wider layer are checked in shuffled order against a limit of +5 %. A check
that is inconclusive measures once more, as `edgeprune check` does, and both looks are judged
together.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, stdev
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from edgeprune import __version__  # noqa: E402
from edgeprune.export.onnx import write_onnx  # noqa: E402
from edgeprune.export.tflite import write_tflite  # noqa: E402
from edgeprune.figure import Figure  # noqa: E402
from edgeprune.measure.growth import SHIFT, judge_growth  # noqa: E402
from edgeprune.measure.profile import here  # noqa: E402
from edgeprune.measure.reference import PRECISION, measure_reference  # noqa: E402
from edgeprune.measure.result import Conditions  # noqa: E402
from edgeprune.model import Event, capture  # noqa: E402
from edgeprune.profiler.machine import describe  # noqa: E402

LIMIT = 0.05
LOOKS = 2
LAYERS = 7
SEED = 0
SIZES = {"small": (32, 32), "medium": (64, 64)}
"""Channels of each convolution, and pixels of the input's side."""
WIDER = {
    "small.onnx": 48,
    "small.tflite": 33,
    "medium.onnx": 96,
    "medium.tflite": 96,
}
"""Channels of the one wider layer, for some 15 % each. Kernels work on 8 or 16 at once, so one more
than 32 can cost as much as 16 more."""
BASELINE_PRECISION = 0.01
HEADINGS = (
    *("file", "wider layer", "its MACs", "its latency", "unchanged: checks", "false failures"),
    *("inconclusive", "second looks", "wider: checks", "caught", "change told", "s a check"),
)


@dataclass
class Checks:
    """What was found of one file."""

    name: str
    macs: float
    """Of the file with the wider layer, over those of the other."""
    real: Mapping[str, float]
    """The same of its latency, measured against each other while nothing of ours ran beside."""
    baseline: Figure
    outcomes: dict[bool, list[str]] = field(default_factory=lambda: {False: [], True: []})
    """Of unchanged files (False) and of those with a wider layer (True)."""
    changes: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    looks: list[int] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """What the table shows of it."""
        same, slow = self.outcomes[False], self.outcomes[True]
        real = self.real
        told = sorted(self.changes[True])
        return [
            *(self.name, f"{SIZES[self.name.split('.')[0]][0]} to {WIDER[self.name]} channels"),
            *(f"{self.macs - 1:+.1%}", f"{real['value'] - 1:+.1%} ± {width(real):.1%}"),
            *(str(len(same)), str(same.count("fail")), str(same.count("inconclusive"))),
            *(f"{self.looks.count(2)} of {len(self.looks)}", str(len(slow))),
            *(str(slow.count("fail")), f"{told[0]:+.1%} to {told[-1]:+.1%}" if told else ""),
            f"{median(self.seconds):.1f}",
        ]


def main() -> None:
    """Do the checks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--unchanged", type=int, default=100, help="checks, all files (100)")
    parser.add_argument("--wider", type=int, default=40, help="checks, all files (40)")
    parser.add_argument("--quick", action="store_true", help="8 and 4")
    parser.add_argument("--hogs", type=int, default=os.cpu_count() or 1, help="(one a core)")
    parser.add_argument("--raw", type=Path, help="file for each check as a line of JSON")
    parser.add_argument("--out", type=Path, default=HERE / "gate_noise.md")
    given = parser.parse_args()
    counts = (8, 4) if given.quick else (given.unchanged, given.wider)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no busy process stays behind
    start = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        raw = stack.enter_context(given.raw.open("a", encoding="utf-8")) if given.raw else None
        folder = Path(name)
        found = {file: accept(folder, file) for file in WIDER}
        files = list(found)
        jobs = [(files[k % len(files)], False) for k in range(counts[0])]
        jobs += [(files[k % len(files)], True) for k in range(counts[1])]
        random.Random(SEED).shuffle(jobs)
        loads = []
        with hogs(given.hogs):
            for number, (file, slow) in enumerate(jobs):
                line = check(found[file], folder / (f"wide-{file}" if slow else file), slow, number)
                loads.append(os.getloadavg()[0])
                print(f"{number + 1} of {len(jobs)}: {line}", file=sys.stderr, flush=True)
                if raw is not None:
                    print(json.dumps(line), file=raw, flush=True)
    text = page(list(found.values()), start, loads, given.hogs)
    print(text)
    given.out.write_text(text, encoding="utf-8")


def accept(folder: Path, file: str) -> Checks:
    """Write a file and the one with a wider layer, and measure the baseline."""
    channels, pixels = SIZES[file.split(".")[0]]
    widths = [channels] * LAYERS
    plain = write(folder / file, widths, pixels)
    widths[LAYERS // 2] = WIDER[file]
    wide = write(folder / f"wide-{file}", widths, pixels)
    words = [sys.executable, "-m", "edgeprune.profiler", "compare", "--precision", "0.005"]
    done = subprocess.run(
        [*words, folder / f"wide-{file}", folder / file],
        cwd=HERE.parent,
        capture_output=True,
        check=True,
    )
    real = json.loads(done.stdout)["result"]["ratio"]
    baseline = measure(folder / file, BASELINE_PRECISION, SEED)
    return Checks(file, wide / plain, real, baseline)


def write(path: Path, widths: list[int], pixels: int) -> int:
    """Write a network of 3x3 convolutions with ``widths`` channels; its MACs in these."""
    torch.manual_seed(SEED)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, stride=2, padding=1), nn.ReLU()]
    for k in range(1, len(widths)):
        layers += [nn.Conv2d(widths[k - 1], widths[k], 3, padding=1), nn.ReLU()]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))
    network = nn.Sequential(*layers, *head).eval()
    model, _ = capture(network, (torch.randn(2, 3, pixels, pixels),), event=Event("load"))
    if path.suffix == ".onnx":
        write_onnx(model, path, opset=20, batch=1)
    else:
        write_tflite(model, path, batch=1)
    pairs = zip([3, *widths], widths, strict=False)
    return (pixels // 2) ** 2 * 9 * sum(a * b for a, b in pairs)


def measure(path: Path, precision: float, seed: int) -> Figure:
    """Measure one file as `edgeprune check --measure` does."""
    found = measure_reference({path.name: path}, Conditions(seed=seed), here(), precision=precision)
    if path.name not in found.figures:
        raise SystemExit(f"gate_noise: {'; '.join(found.not_measured)}")
    return found.figures[path.name]


def check(checks: Checks, path: Path, slow: bool, number: int) -> dict[str, Any]:
    """Do one check, with a second look where the first is inconclusive."""
    began = time.monotonic()
    looks: list[Figure] = []
    while True:
        looks.append(measure(path, PRECISION, SEED + number))
        growth = judge_growth(checks.baseline, looks, LIMIT, looks=LOOKS)
        if growth.outcome != "inconclusive" or len(looks) == LOOKS:
            break
    checks.outcomes[slow].append(growth.outcome)
    checks.changes[slow].append(growth.change)
    checks.looks.append(len(looks))
    checks.widths.append(width(looks[0].model_dump()))
    checks.seconds.append(time.monotonic() - began)
    return {
        "file": checks.name,
        "wider": slow,
        "outcome": growth.outcome,
        "change": growth.change,
        "low": growth.low,
        "high": growth.high,
        "baseline": [checks.baseline.low, checks.baseline.value, checks.baseline.high],
        "looks": [[look.low, look.value, look.high] for look in looks],
        "seconds": checks.seconds[-1],
    }


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that do nothing but be busy."""
    words = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(words) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def width(interval: Mapping[str, Any]) -> float:
    """Half of an interval's width as a share of its value."""
    return float((interval["high"] - interval["low"]) / 2 / interval["value"])


def smallest_caught(every: list[Checks]) -> str:
    """From which slowdown on 19 of 20 checks would have failed, by the spread of all checks.

    What a check of an unchanged file told is moved by a slowdown, and its interval with it.
    """
    needed = []
    for each in every:
        half = median(each.widths)
        ours = width(each.baseline.model_dump())
        interval = 1.15 * math.sqrt(half**2 + ours**2 + SHIFT**2)
        needed += [(1 + LIMIT) * math.exp(interval) / (1 + c) - 1 for c in each.changes[False]]
    if len(needed) < 20:
        return ""
    share = sorted(needed)[math.ceil(0.95 * len(needed)) - 1]
    return (
        f"By the spread of the unchanged files' checks a slowdown of {share:.1%} is caught in "
        "19 of 20 checks by the first look alone (computed, not tried)."
    )


def page(every: list[Checks], start: datetime, loads: list[float], count: int) -> str:
    """Write the table and what belongs to it."""
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *(each.row() for each in every)]
    same = [outcome for each in every for outcome in each.outcomes[False]]
    slow = [outcome for each in every for outcome in each.outcomes[True]]
    spreads = [f"{each.name} {stdev(each.changes[False]):.2%}" for each in every]
    missed = len(slow) - slow.count("fail")
    held = (
        not same.count("fail")
        and same.count("inconclusive") <= len(same) / 100
        and missed <= len(slow) / 20
    )
    minutes = (datetime.now(UTC) - start).total_seconds() / 60
    tools = ("onnxruntime", "ai-edge-litert", "numpy", "torch", "litert-torch")
    told = ", ".join(f"{tool} {version(tool)}" for tool in tools)
    halves = [half for each in every for half in each.widths]
    return "\n".join(
        [
            "# How often noise fools the latency check",
            "",
            "`python bench/gate_noise.py`",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            f"Limit: latency +{LIMIT:.0%} over the baseline, as a ratio to the reference model. In "
            f"all: {len(same)} checks of unchanged files, {same.count('fail')} false failures, "
            f"{same.count('inconclusive')} inconclusive; {len(slow)} checks of files with a wider "
            f"layer, {slow.count('fail')} caught, {slow.count('inconclusive')} inconclusive.",
            "",
            "Wanted: no false failure, at most 1 of 100 inconclusive, 19 of 20 slowdowns caught. "
            + ("Held." if held else "**Not held.**"),
            "",
            "Spread of what unchanged files' checks told (standard deviation): "
            f"{', '.join(spreads)}. Half-width of a ratio's interval: median {median(halves):.2%}, "
            f"most {max(halves):.2%}. {smallest_caught(every)}",
            "",
            f"Latency of the wider file: measured against the other one, in the same processes, "
            f"before the busy processes were started. {LOOKS} looks at most; seeds {SEED} on.",
            "",
            f"{start:%Y-%m-%d}, {minutes:.0f} minutes; {describe()}; one thread; {count} busy "
            f"processes beside; load average {min(loads):.1f} to {max(loads):.1f}.",
            "",
            f"Versions: edgeprune {__version__}, {told}, python {sys.version.split()[0]}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
