# SPDX-License-Identifier: Apache-2.0
"""Instructions of one inference on an emulated Raspberry Pi 4 and 5: float against int8.

    python bench/instructions.py

writes ``bench/instructions.md``. The network is the ResNet-20 of the README's table with random
weights, on random pictures: how many instructions run doesn't depend on the numbers. Needs what
``edgeprune device add emulated:rpi4`` needs. About three minutes on two quiet cores, most of it in
the emulator.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from edgeprune.device.emulated import set_up
from edgeprune.measure.emulator import RUNS, measure_emulated
from edgeprune.measure.result import Conditions, Profile
from edgeprune.model import Event, capture, save
from edgeprune.profiler.machine import describe
from edgeprune.recipe import ProfileOptions
from edgeprune.target import find_target
from tests.networks import resnet20

HERE = Path(__file__).parent
BOARDS = ("rpi4", "rpi5")
FORMATS = ("onnx", "tflite")
NUMERICS = ("fp32", "int8")
SEED = 0


def main() -> None:
    """Make the files, count, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=HERE / "instructions.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        sentences, found = {}, {}
        for name in BOARDS:
            target, board = find_target(name), Path(folder) / name
            sentences[name] = set_up(board, target)
            options, conditions = ProfileOptions(time_limit=3600), Conditions(seed=SEED)
            found[name] = measure_emulated(files, options, conditions, folder=board, target=target)
    page = table(sentences, found)
    given.out.write_text(page, encoding="utf-8")
    print(page)


def make_files(folder: Path) -> dict[str, Path]:
    """The network in both formats and both numerics, by ``fp32.onnx`` and so on."""
    torch.manual_seed(SEED)
    pictures = np.random.default_rng(SEED).standard_normal((64, 3, 32, 32)).astype(np.float32)
    np.savez(folder / "pictures.npz", x=pictures)
    example = (torch.from_numpy(pictures[:2]),)
    model, _ = capture(resnet20().eval(), example, event=Event("bench"))
    save(model, folder / "resnet.pt2")
    found = {}
    for numerics in NUMERICS:
        small, out = folder / f"{numerics}.pt2", folder / numerics
        command("quantize", "resnet.pt2", "--numerics", numerics, "-o", small, folder=folder)
        command("export", small, "-o", out, folder=folder)
        found |= {f"{numerics}.{form}": out / f"model.{form}" for form in FORMATS}
    return found


def command(stage: str, *words: str | Path, folder: Path) -> None:
    """Run one stage of edgeprune in ``folder``."""
    common = ("--data", "pictures.npz", "-t", BOARDS[0], "--seed", str(SEED), "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune", stage, *map(str, words), *common],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def table(sentences: Mapping[str, str], found: Mapping[str, Profile]) -> str:
    """The page."""
    rows = [
        f"| {name} | {form} | {' | '.join(cells(found[name], form))} |"
        for name in BOARDS
        for form in FORMATS
    ]
    return "\n".join(
        [
            "# Instructions of one inference, float against int8",
            "",
            "ResNet-20 for 3x32x32 pictures (40.6 million multiply-adds), random weights, batch 1, "
            "one thread.",
            "",
            "| board | format | fp32 | int8 | int8 / fp32 | drift fp32 | drift int8 |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            f"- Millions of instructions, the median of {RUNS} inferences; in brackets the lowest "
            "and the highest.",
            "- A count in an emulator, no time: it knows no caches, memory or pipeline. It ranks "
            "files and kernels on one instruction set, and finds regressions.",
            "- The Cortex-A76 of the Raspberry Pi 5 has an instruction for the dot product of "
            "bytes, the A72 of the Pi 4 hasn't.",
            "- Drift: the largest absolute difference between the outputs there and on this "
            "machine, for one input.",
            *(f"- {sentence}." for sentence in sentences.values()),
            "",
            f"{datetime.now(UTC):%Y-%m-%d}; {describe()}; seed {SEED}; one run.",
            "",
        ]
    )


def cells(found: Profile, form: str) -> list[str]:
    """One row's figures."""
    files = [found.figures[f"{numerics}.{form}"] for numerics in NUMERICS]
    missing = [text for text in found.not_measured if "instructions" in text]
    if missing:
        raise SystemExit("; ".join(missing))
    counts = [figures["instructions"] for figures in files]
    texts = [
        f"{c.value / 1e6:.3f} ({(c.low or 0) / 1e6:.3f} to {(c.high or 0) / 1e6:.3f})"
        for c in counts
    ]
    share = f"{counts[1].value / counts[0].value:.2f}"
    return [*texts, share, *(f"{figures['drift'].value:.1g}" for figures in files)]


if __name__ == "__main__":
    main()
