# SPDX-License-Identifier: Apache-2.0
"""The agent's command line.

Standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from edgeprune import __version__
from edgeprune.errors import InputError
from edgeprune.profiler.meters import METERS

__all__ = ["alarm", "parse"]

_EXAMPLES = """examples:
  python3 edgeprune-agent.pyz probe
  python3 edgeprune-agent.pyz memory model.onnx model.tflite
  python3 edgeprune-agent.pyz latency --threads 4 --time-limit 60 model.onnx
  python3 edgeprune-agent.pyz compare --precision 0.01 new.onnx old.onnx
  python3 edgeprune-agent.pyz run --inputs x.npz --outputs y.npz -- -odd-name-.tflite
"""


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong instead of printing it: standard output has the answer alone."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: It is wrong.
    """
    parser = _Parser(
        prog="edgeprune-agent",
        description="Measures artifacts on this device; answers in one line of JSON.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    tasks = parser.add_subparsers(dest="task", metavar="TASK")
    tasks.required = True
    tasks.add_parser("probe", help="what this device is and has", allow_abbrev=False)
    several = _common(tasks, "memory", "peak memory of a process that runs each file", "+")
    several.add_argument("--repeats", type=_count, default=3, help="processes a file (3)")
    _latency(_common(tasks, "latency", "seconds of a run, by interleaved processes", "+"))
    _compare(_common(tasks, "compare", "time of the first file over the second's", 2))
    _common(tasks, "ops", "seconds of each operation", 1)
    single = _common(tasks, "run", "outputs for given inputs", 1)
    single.add_argument("--outputs", metavar="Y.npz", required=True, help="file to write")
    single = _common(tasks, "count", "runs between marker system calls, for an emulator", 1)
    single.add_argument("--runs", type=_count, default=6, help="how many (6)")
    single = _common(tasks, "energy", "joules of an inference, by a meter of this device", 1)
    single.add_argument("--seconds", type=_seconds, default=5.0, help="idle, then busy (5)")
    single.add_argument("--meter", choices=("auto", *METERS), default="auto", help="(auto)")
    given = parser.parse_args(list(arguments))
    if given.task == "run" and given.inputs is None:
        raise InputError("edgeprune-agent run: --inputs X.npz is missing")
    if given.task in ("compare", "latency") and given.max_blocks < given.blocks:
        raise InputError(f"edgeprune-agent {given.task}: --max-blocks is less than --blocks")
    return given


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Let the kernel end this process after ``seconds``, whatever hangs in it."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _common(tasks: Any, name: str, text: str, files: str | int) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = tasks.add_parser(
        name, help=text, description=text, allow_abbrev=False
    )
    parser.add_argument("files", metavar="FILE", nargs=files, help="an .onnx or .tflite file")
    parser.add_argument("--threads", type=_count, default=1, help="compute threads (1)")
    parser.add_argument("--seed", type=int, default=0, help="of random inputs and the order (0)")
    parser.add_argument("--inputs", metavar="X.npz", help="real inputs instead of random ones")
    parser.add_argument(
        "--sizes", type=_sizes, metavar="JSON", help="of random inputs: open dimensions by name"
    )
    parser.add_argument(
        "--time-limit", type=_seconds, default=300.0, help="seconds after which all ends (300)"
    )
    parser.add_argument(
        "--memory-limit", type=_gibibytes, default=8.0, help="GiB a measuring process may take (8)"
    )
    parser.add_argument("--progress", action="store_true", help="'progress DONE TOTAL FILE' lines")
    return parser


def _sizes(text: str) -> dict[str, int]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(type(size) is int for size in found.values()):
        raise argparse.ArgumentTypeError('should be JSON such as {"height": 320}')
    return found


def _latency(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--blocks", type=_count, default=5, help="undisturbed processes wanted of each file (5)"
    )
    parser.add_argument(
        "--block-seconds", type=_seconds, default=0.5, help="that each goes on for (0.5)"
    )
    parser.add_argument("--min-runs", type=_count, default=20, help="that each has (20)")
    parser.add_argument(
        "--max-blocks", type=_count, default=30, help="with disturbed ones, which are repeated (30)"
    )


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        type=_share,
        default=0.015,
        help="share of the ratio by which it may be off either way; it goes on until then (0.015)",
    )
    parser.add_argument("--blocks", type=_count, default=6, help="processes at least (6)")
    parser.add_argument("--max-blocks", type=_count, default=20, help="processes at most (20)")
    parser.add_argument(
        "--block-seconds", type=_seconds, default=0.15, help="of CPU time of each (0.15)"
    )


def _number(text: str, make: Callable[[str], float], least: float, what: str) -> float:
    try:
        value = make(text)
    except ValueError:
        value = math.nan
    if not (value >= least and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"'{text}' isn't {what}")
    return value


def _count(text: str) -> int:
    return int(_number(text, int, 1, "a whole number from 1 on"))


def _seconds(text: str) -> float:
    return _number(text, float, 1e-3, "a number of seconds from 0.001 on")


def _gibibytes(text: str) -> float:
    return _number(text, float, 0.0625, "a number of GiB from 0.0625 on")


def _share(text: str) -> float:
    return _number(text, float, 1e-4, "a share from 0.0001 on, like 0.02 for 2 %")
