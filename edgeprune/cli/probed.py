# SPDX-License-Identifier: Apache-2.0
"""How the answer of the agent's ``probe`` is shown."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from edgeprune.cli import show
from edgeprune.cli.console import page
from edgeprune.device.settings import Named
from edgeprune.units import format_bytes

__all__ = ["lacking", "one_line", "print_table"]


def one_line(found: Mapping[str, Any]) -> str:
    """Board or processor, cores, machine, Python, numpy, runtimes."""
    cores = found["cores"]
    versions = {"Python": found["python"], "numpy": found["numpy"], **found["runtimes"]}
    parts = [
        found["board"] or found["cpu"] or "a machine that doesn't name itself",
        f"{cores} core{'s' * (cores != 1)}",
        found["machine"],
        *(f"{name} {version}" for name, version in versions.items() if version),
    ]
    return ", ".join(parts)


def lacking(found: Mapping[str, Any], named: Named) -> list[str]:
    """What must be installed there before anything can be measured."""
    python = " ".join(named.entry.python or ("python3",))
    lines = []
    if found["numpy"] is None:
        lines.append(
            f"numpy is missing there: {python} -m pip install numpy (Debian: apt-get install "
            "python3-numpy)"
        )
    if not found["runtimes"]:
        lines.append(
            f"a runtime is missing there: {python} -m pip install onnxruntime, or ai-edge-litert "
            "(on old boards tflite-runtime with numpy<2)"
        )
    return lines


def print_table(named: Named, found: Mapping[str, Any]) -> None:
    """Print every fact in a row of its own; what the device doesn't tell says so."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("device", Text(f"{named.name} ({named.address})"))
    for title, key, text in _ROWS:
        value = found.get(key)
        unknown = _WITHOUT.get(key, "unknown")
        grid.add_row(title, Text(unknown if value is None else text(value)))
    page().print(grid)
    show.lines(lacking(found, named))


def _throttled(value: Mapping[str, Any]) -> str:
    now, boot = value.get("now"), value.get("boot")
    if now is None and boot is None:
        return "unknown"
    since = "" if boot is None else f"; since the start: {', '.join(boot) or 'never'}"
    return f"now: {'unknown' if now is None else ', '.join(now) or 'no'}{since}"


def _versions(value: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in value.items()) or "none"


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("board", "board", str),
    ("SoC", "soc", str),
    ("CPU", "cpu", str),
    ("cores", "cores", str),
    ("ISA", "isa", lambda value: " ".join(value) or "unknown"),
    ("RAM", "ram", format_bytes),
    ("machine", "machine", str),
    ("emulated", "emulated", lambda value: f"by {value}: its times and memory are no evidence"),
    ("kernel", "kernel", str),
    ("system", "os", str),
    ("Python", "python", str),
    ("numpy", "numpy", str),
    ("runtimes", "runtimes", _versions),
    ("governor", "governor", str),
    ("frequency", "frequency_hz", lambda value: f"{value / 1e6:.0f} MHz"),
    ("temperature", "temperature_c", lambda value: f"{value:.1f} °C"),
    ("throttled", "throttled", _throttled),
    ("energy meters", "energy_meters", lambda value: ", ".join(value) or "none"),
)
_WITHOUT = {"numpy": "not installed", "emulated": "no"}
