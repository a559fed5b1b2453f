# SPDX-License-Identifier: Apache-2.0
"""What TFLite's ``benchmark_model`` prints, as numbers: of TensorFlow 1.x, 2.x and LiteRT.

The text differs by version: lines begin with ``INFO:`` or not, only newer ones have percentiles,
and the table of operators has one column more or less. Times are printed in us, memory in MiB
(called MB there).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.errors import DeviceError

__all__ = ["Benchmark", "Op", "Runs", "failure", "parse_benchmark"]

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_COUNT = re.compile(rf"^(?:INFO: )?count=(?P<count>\d+)(?P<stats>(?: \w+={_NUMBER})+)\s*$", re.M)
_STAT = re.compile(rf" (\w+)=({_NUMBER})")
_INIT = re.compile(rf"Initialized session in ({_NUMBER}) ?ms")
_GROWTH = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init={_NUMBER} overall=({_NUMBER})"
)
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: ({_NUMBER})")
_VERSION = re.compile(r"Tensorflow Version ?: ?(\S+)", re.IGNORECASE)
_OPS = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_TABLE = re.compile(r"=+ Run Order =+\s*?\n[^\n]*\[Name\]\s*?\n(?P<rows>(?:[^\n]*\d%[^\n]*\n?)*)")
# type, perhaps its start, first, average (ms a call), its share and theirs so far, KB, calls, name
_ROW = re.compile(
    rf"^\s*(?P<type>\S.*?)\s+(?:{_NUMBER}\s+)?{_NUMBER}\s+(?P<ms>{_NUMBER})\s+{_NUMBER}%\s+"
    rf"{_NUMBER}%\s+-?{_NUMBER}\s+(?P<calls>\d+)\s+(?P<name>\S.*?)\s*$"
)
_MEBI = 1024 * 1024


@dataclass(frozen=True)
class Runs:
    """Runs of one phase."""

    count: int
    seconds: Mapping[str, float]
    """``avg``, ``first``, ``min`` and ``max``; of several runs ``std``; of newer versions also
    ``p5``, ``median`` and ``p95``."""


@dataclass(frozen=True)
class Op:
    """One operator of the graph, or a part of it that a delegate took over."""

    name: str
    type: str
    seconds: float
    """Of all its calls in one inference, on average."""
    calls: int
    """In one inference; 0 where an old version doesn't count them."""


@dataclass(frozen=True)
class Benchmark:
    """One run of the tool."""

    load: float
    """Seconds from the start of reading the model to allocated tensors."""
    warmup: Runs
    """Its ``first`` is the first inference after the load."""
    runs: Runs
    growth: int | None
    """Bytes by which its memory has grown at the end; ``None`` where the system doesn't tell."""
    peak: int | None
    """Bytes, of the whole process, looked at now and then; only where it was asked for."""
    version: str | None
    """Of the runtime, where the tool tells."""
    xnnpack: bool
    """Whether XNNPACK took part of the graph."""
    ops: tuple[Op, ...]
    """In the order of the run; only where they were asked for."""


def parse_benchmark(text: str) -> Benchmark:
    """Read what the tool printed on both of its outputs.

    Raises:
        DeviceError: It lacks what every version prints, so the tool didn't get to its end.
    """
    text = text.replace("\r", "")
    init = _INIT.search(text)
    phases = [
        _runs(int(match["count"]), match["stats"])
        for match in _COUNT.finditer(text)
        if int(match["count"])
    ]
    if init is None or len(phases) != 2:
        raise DeviceError(f"benchmark_model didn't get to its end: {failure(text)}")
    version = _VERSION.search(text)
    return Benchmark(
        load=float(init[1]) / 1e3,
        warmup=phases[0],
        runs=phases[1],
        growth=_bytes(_GROWTH.search(text)),
        peak=_bytes(_PEAK.search(text)),
        version=version[1] if version else None,
        xnnpack="XNNPACK delegate for CPU" in text,
        ops=_ops(text),
    )


def failure(text: str) -> str:
    """The line that says best what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line.removeprefix("ERROR:").strip()
        for line in lines
        if line.startswith("ERROR:") and "Benchmarking failed" not in line
    ]
    return (errors or lines or ["it printed nothing"])[-1]


def _runs(count: int, stats: str) -> Runs:
    seconds = {key: float(value) / 1e6 for key, value in _STAT.findall(stats)}
    if "avg" not in seconds:  # a single run is only called curr
        seconds |= dict.fromkeys(("first", "avg", "min", "max"), seconds["curr"])
    del seconds["curr"]
    return Runs(count, seconds)


def _bytes(match: re.Match[str] | None) -> int | None:
    return None if match is None else round(float(match[1]) * _MEBI)


def _ops(text: str) -> tuple[Op, ...]:
    table = _TABLE.search(text.partition(_OPS)[2])
    rows = [] if table is None else map(_ROW.match, table["rows"].splitlines())
    return tuple(_op(row) for row in rows if row is not None)


def _op(row: re.Match[str]) -> Op:
    calls = int(row["calls"])
    seconds = round(float(row["ms"]) / 1e3 * max(1, calls), 9)
    return Op(row["name"], row["type"], seconds, calls)
