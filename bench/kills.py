# SPDX-License-Identifier: Apache-2.0
"""Kills a small compress at random moments, and holds what --resume ends with against no kill.

    pip install -e '.[compress,dev]'
    python bench/kills.py --count 56 --seed 0

writes ``bench/kills.md``: each kill (``kill -9``, at a moment drawn between the start and the time
that the undisturbed run took) is followed by the same command with ``--resume``, which is killed
again with a chance of two thirds. Then all files of the result are compared: artifacts and weights
byte by byte, reports and manifest with all that is a time left out. Some seconds for each kill.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for tests.networks

import torch  # noqa: E402

from edgeprune.model import Event, capture, save  # noqa: E402
from tests.networks import digits_cnn  # noqa: E402

TIMES = ("seconds", "when", "created", "started", "finished", "date")
"""Keys whose values are times."""
ALONE = ("manifest.json", "report.json", "report.md")
"""Files with times in them; all others must be equal byte by byte."""
OPTIONS = (
    *("-t", "rpi4", "--data", "digits", "--limit", "200", "--ratio", "0.5", "--epochs", "3"),
    *("--batch-size", "16", "--seed", "3", "--no-profile", "--allow-unmeasured"),
    *("--max-drop", "100"),
)
AGAIN = 2 / 3
"""Chance that a resumed run is killed once more."""


def main() -> int:
    """Kill, compare and write the table; 1 where a file differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=56, help="kills (56)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "kills.md")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        model = make_model(folder / "model.pt2")
        start = time.monotonic()
        run(model, folder / "whole", 1)
        took = time.monotonic() - start
        whole = contents(folder / "whole" / "rpi4")
        killed, differences, runs = Counter[str](), list[str](), 0
        while killed.total() < given.count:
            left = given.count - killed.total()
            killed += killed_run(model, folder / "out", chance, took, left)
            runs += 1
            found = different(whole, contents(folder / "out" / "rpi4"))
            differences += [f"run {runs}: {each}" for each in found]
            shutil.rmtree(folder / "out")
            print(
                f"{killed.total()} kills, {runs} runs, {len(differences)} differences", flush=True
            )
        threads = different(whole, threaded(model, folder / "threads"))
    given.output.write_text(page(given, killed, runs, differences, threads), encoding="utf-8")
    return 1 if differences else 0


def make_model(path: Path) -> Path:
    """The network of the digits, untrained."""
    torch.manual_seed(0)
    batch = (torch.rand(2, 1, 8, 8),)
    save(capture(digits_cnn(), batch, event=Event("bench"))[0], path)
    return path


def command(model: Path, out: Path, threads: int) -> list[str]:
    """The compress that is killed."""
    words = [sys.executable, "-m", "edgeprune", "compress", str(model), *OPTIONS]
    return [*words, "--threads", str(threads), "-o", str(out)]


def run(model: Path, out: Path, threads: int, *more: str) -> None:
    """One run to its end."""
    done = subprocess.run(
        [*command(model, out, threads), *more], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"compress ended with {done.returncode}: {done.stderr[-500:]}")


def killed_run(
    model: Path, out: Path, chance: random.Random, took: float, left: int
) -> Counter[str]:
    """Kill a run, and maybe the ones that go on with it; where each was killed."""
    killed = Counter[str]()
    more: list[str] = []
    while killed.total() < left and (not killed or chance.random() < AGAIN):
        words = [*command(model, out, 1), *more]
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(chance.uniform(0, took))
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[1]
        if process.returncode != -signal.SIGKILL:
            break  # it was faster
        stages = re.findall(r"^> (\w+)", said, re.MULTILINE)
        killed[stages[-1] if stages else "start"] += 1
        more = ["--resume"]
    run(model, out, 1, *(more if (out / ".rpi4.work").exists() else ["--overwrite"]))
    return killed


def threaded(model: Path, out: Path) -> dict[str, Any]:
    """What two threads end with."""
    run(model, out, 2)
    return contents(out / "rpi4")


def contents(folder: Path) -> dict[str, Any]:
    """What each file of a result is, times left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): content(path) for path in files}


def content(path: Path) -> Any:
    """What a file is, times left out."""
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.name in ALONE:
        text = path.read_text(encoding="utf-8")
        return re.sub(r"\d+(\.\d+)? s\b|\d{4}-\d\d-\d\d[T ]?[\d:]*\S*", "TIME", text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(value: Any) -> Any:
    """``value`` without times, and without the seal and hashes that cover them."""
    if isinstance(value, dict):
        covered = ("seal", *ALONE)
        return {k: timeless(v) for k, v in value.items() if k not in TIMES and k not in covered}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of files that aren't equal; of JSON, with the first place."""
    return [
        f"{name}{place(one.get(name), other.get(name))}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def place(one: Any, other: Any) -> str:
    """Where two values differ first."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        key = next(key for key in keys if one.get(key) != other.get(key))
        return f".{key}{place(one.get(key), other.get(key))}"
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        at = next(k for k, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        return f"[{at}]{place(one[at], other[at])}"
    return f": {str(one)[:60]} / {str(other)[:60]}"


def page(
    given: argparse.Namespace,
    killed: Counter[str],
    runs: int,
    differences: list[str],
    threads: list[str],
) -> str:
    """The table as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "litert-torch"))
    rows = "".join(f"| {stage} | {count} |\n" for stage, count in sorted(killed.items()))
    told = "".join(f"- {each}\n" for each in differences) or "No file differed.\n"
    unlike = ", ".join(re.split(r"(?<=\.json)\.|: ", name)[0] for name in threads) or "none"
    return (
        "# Kills\n\n`bench/kills.py` writes this page; its docstring says what is done.\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}; seed {given.seed}.\n\n"
        f"{killed.total()} kills in {runs} runs, each resumed to its end, "
        f"{len(differences)} files that differ from the undisturbed run's.\n\n"
        f"| killed in | times |\n| --- | ---: |\n{rows}\n{told}\n"
        f"Files that differ between `--threads 1` and `--threads 2`: {unlike}.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
