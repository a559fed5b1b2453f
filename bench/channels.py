# SPDX-License-Identifier: Apache-2.0
"""Structured pruning against Torch-Pruning: how many of the test set's networks, and how fast.

    pip install -e '.[compress,dev,bench]'
    python bench/channels.py

writes ``bench/channels.md``; with ``--quick`` it prints a small part of it and writes nothing.
Which of ``tests/architectures`` each prunes is in ``prunable.py``, what analysis and surgery cost
in ``pruning_speed.py``, how Torch-Pruning is used in ``rival.py``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for tests.architectures

import torch  # noqa: E402
from prunable import SEED, coverage  # noqa: E402
from pruning_speed import scaling, speed  # noqa: E402

from edgeprune import __version__  # noqa: E402
from edgeprune.profiler.machine import describe  # noqa: E402
from tests.architectures import ARCHITECTURES  # noqa: E402

QUICK = ("vit", "resnet", "shufflenet-v2", "densenet")


def main() -> None:
    """Run it and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a small part, printed only")
    parser.add_argument("--out", type=Path, default=HERE / "channels.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    names = QUICK if given.quick else tuple(ARCHITECTURES)
    sections = [
        *coverage(names),  # first: it forks, which a process that has run a race shouldn't
        *speed(given.quick),
        *scaling(given.quick),
    ]
    tools = ("torch", "torch-pruning", "transformers", "numpy", "scipy")
    told = ", ".join(f"{tool} {version(tool)}" for tool in tools)
    load = os.getloadavg()[0]
    page = "\n".join(
        [
            "# Structured pruning, against Torch-Pruning",
            "",
            "`python bench/channels.py`",
            "",
            *sections,
            f"{datetime.now(UTC):%Y-%m-%d}; {describe()}; one thread; seed {SEED}; load average at "
            f"the end {load:.1f}, this process included: CPU seconds bear other work better than "
            "wall seconds do.",
            "",
            f"Versions: edgeprune {__version__}, {told}, python {sys.version.split()[0]}.",
            "",
        ]
    )
    print(page)
    if not given.quick:
        given.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
