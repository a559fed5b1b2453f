# SPDX-License-Identifier: Apache-2.0
"""The README's ResNet-20 table: half of the channels, two epochs, int8, for a Raspberry Pi 4.

    python bench/resnet20.py --weights resnet20_cifar10.safetensors --data cifar10.zip

writes ``bench/resnet20.md``: the stage table of the run's own report, with date, machine, versions
and seed. About a quarter of an hour on two quiet cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from edgeprune.report import read_report

HERE = Path(__file__).parent
SECTIONS = ("Stage by stage", "Artifacts", "Speed", "What was lost")
OPTIONS = ["--target", "rpi4", "--ratio", "0.5", "--epochs", "2", "--allow-unmeasured"]


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--weights", type=Path, required=True, help="state dict of the ResNet-20")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as an image folder")
    parser.add_argument("--out", type=Path, default=HERE / "resnet20.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = compress(given.weights.resolve(), given.data.resolve(), Path(folder))
    given.out.write_text(report, encoding="utf-8")
    print(report)


def section(page: str, title: str) -> str:
    """One section of the run's report."""
    start = page.index(f"## {title}")
    end = page.find("\n## ", start)
    return page[start:end]


def compress(weights: Path, data: Path, folder: Path) -> str:
    """Run the command line from the repository's root and turn its report into the table's page."""
    command = [
        *(sys.executable, "-m", "edgeprune", "compress", str(weights)),
        *("--arch", "tests.networks:resnet20", "--data", f"cifar10={data}"),
        *OPTIONS,
        *("--out", str(folder)),
    ]
    done = subprocess.run(command, cwd=HERE.parent, check=False, stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 1):  # 1: a budget is broken, which the table may well show
        raise SystemExit(done.returncode)
    report = read_report(folder / "rpi4" / "report.json")
    page = (folder / "rpi4" / "report.md").read_text(encoding="utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return "\n".join(
        [
            "# ResNet-20 on CIFAR-10 (JPEG folder), for rpi4",
            "",
            f"`edgeprune compress {weights.name} --arch tests.networks:resnet20 "
            f"--data cifar10={data.name} {' '.join(OPTIONS)}`",
            "",
            *(section(page, title) for title in SECTIONS),
            f"{datetime.now(UTC):%Y-%m-%d}; {report.machine}; seed {report.seed}; one run. "
            "Latency is of that machine, not of a Raspberry Pi.",
            "",
            f"Versions: {versions}.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
