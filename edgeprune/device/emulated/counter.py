# SPDX-License-Identifier: Apache-2.0
"""The instruction counter: QEMU's plugin ``count.c``, compiled where the board is set up."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from edgeprune.device.emulated.tools import start
from edgeprune.errors import DeviceError
from edgeprune.profiler.count import MAGIC

__all__ = ["SOURCE", "counting", "make_counter", "read_counts"]

SOURCE = Path(__file__).with_name("count.c")
_LIBRARY = "count.so"
_VERSIONS = (1, 2, 3, 4, 5)
"""Of QEMU's plugin interface. QEMU 7.2 takes 1; what the plugin uses is the same in all of them."""
_TRIAL = f"""
import os
for number in range(2):
    try:
        os.lseek(-1, {MAGIC} << 16 | number, 0)
    except OSError:
        pass
"""


def make_counter(folder: Path, launcher: Path) -> str | None:
    """Compile the counter into ``folder`` and try it; the reason where it can't be had.

    Args:
        folder: Where it is to be, beside the userland.
        launcher: What starts the emulated Python.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return "there is no C compiler: apt-get install gcc libc6-dev"
    reason = None
    for version in _VERSIONS:
        reason = _try(folder, launcher, compiler, version)
        if reason is None or "API version" not in reason:
            break
    if reason is not None:
        (folder / _LIBRARY).unlink(missing_ok=True)
    return reason


def counting(folder: Path, out: Path) -> tuple[str, ...]:
    """Words that, before the launcher's, let it append each marker's count to the file ``out``."""
    library, file = (str(path.resolve()).replace(",", ",,") for path in (folder / _LIBRARY, out))
    # sets and dictionaries in the same order in each process, or the counts wander
    return ("env", "PYTHONHASHSEED=0", f"QEMU_PLUGIN=file={library},out={file}")


def read_counts(out: Path, empty: int, runs: int) -> list[int]:
    """Instructions of each run, from the markers that ``profiler.count`` made.

    What the marking itself takes (the median of the ``empty`` pairs) is taken off.

    Raises:
        DeviceError: Not every marker was seen, so nothing was counted.
    """
    totals = _read(out)
    if [number for number, _ in totals] != list(range(2 * (empty + runs))):
        raise DeviceError(
            f"the emulator saw {len(totals)} of {2 * (empty + runs)} markers, so no instruction "
            "was counted"
        )
    values = [total for _, total in totals]
    pairs = [end - begin for begin, end in zip(values[::2], values[1::2], strict=True)]
    return [round(run - median(pairs[:empty])) for run in pairs[empty:]]


def _try(folder: Path, launcher: Path, compiler: str, version: int) -> str | None:
    library, out = folder / _LIBRARY, folder / "trial.txt"
    words: Sequence[str] = (
        *(compiler, "-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-DAPI={version}"),
        *("-o", str(library), str(SOURCE)),
    )
    try:
        start(words, timeout=60)
        start([*counting(folder, out), str(launcher), "-c", _TRIAL], timeout=60)
    except DeviceError as error:
        return str(error)
    seen = [number for number, _ in _read(out)]
    out.unlink(missing_ok=True)
    return None if seen == [0, 1] else "this QEMU takes no plugins: apt-get install qemu-user"


def _read(out: Path) -> list[tuple[int, int]]:
    try:
        lines = out.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []
    return [(int(number), int(total)) for number, total in map(str.split, lines)]
