# SPDX-License-Identifier: Apache-2.0
"""``edgeprune targets``: which devices there are, and what is known of each."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgeprune.recipe import Format
from edgeprune.target import Budgets, Runtime, Target, find_target, list_targets
from edgeprune.units import format_bytes, format_seconds

__all__ = ["app"]

app = typer.Typer(help="List the devices that edgeprune knows, or show one.", no_args_is_help=True)

_NAMES: dict[Format, str] = {"onnx": "ONNX", "tflite": "TFLite"}
_REACH = {
    "local": "this machine, measured in each run",
    "ssh": "over ssh",
    "adb": "over adb",
    "browser": "in a browser",
    "simulator": "through a simulator",
    "none": "by hand",
}
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List every known target: the shipped ones, and those in ./targets."""
    targets = {name: find_target(name) for name in list_targets()}
    if as_json:
        _print_json([_summary(target, path) for target, path in _with_files(targets)])
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "device", "formats", "size", "latency", "memory", "drop"):
        figure = title not in ("name", "device", "formats")
        table.add_column(
            title, justify="right" if figure else "left", no_wrap=title != "device", overflow="fold"
        )
    for name, target in targets.items():
        formats = " ".join(_NAMES[form] for form in target.formats)
        limits = _limits(target.budgets)
        figures = [limits.get(key, "") for key in ("size", "latency", "memory", "drop")]
        table.add_row(name, target.device.title, formats, *figures)
    _console().print(table)
    typer.echo(
        "The last four columns are the default budgets; `edgeprune targets show NAME` has more."
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A target's name, or the path of its .toml file.")],
    as_json: Json = False,
) -> None:
    """Show what is known of one target: hardware, runtimes, budgets, how to measure there."""
    target = find_target(name)
    path = Path(name) if name.endswith(".toml") else list_targets()[name]
    if as_json:
        _print_json({**target.model_dump(mode="json"), "file": str(path)})
        return
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in _rows(target, path):
        grid.add_row(key, value)
    _console().print(grid)


def _rows(target: Target, path: Path) -> list[tuple[str, str]]:
    device = target.device
    rows = [("target", target.name), ("device", device.title), ("SoC", device.soc)]
    rows.append(("CPU", device.cpu))
    if device.cores is not None:
        rows.append(("cores", str(device.cores)))
    if device.isa:
        rows.append(("ISA", " ".join(device.isa)))
    if device.ram is not None:
        rows.append(("RAM", _binary(device.ram)))
    if device.flash is not None:
        rows.append(("flash", _binary(device.flash)))
    if device.note is not None:
        rows.append(("", device.note))
    for form in target.formats:
        rows += _runtime_rows(_NAMES[form], target.runtime(form))
    if target.onnx is not None:
        rows.append(
            ("ONNX opset", f"{target.opset}, int8 activations as {target.onnx_activations}")
        )
    rows += [
        ("threads", str(target.threads)),
        ("channels", f"multiples of {target.channel_multiple}"),
        ("budgets", ", ".join(f"{key} {limit}" for key, limit in _limits(target.budgets).items())),
        ("reached", _REACH[target.reach.how]),
    ]
    if target.reach.hint is not None:
        rows.append(("", target.reach.hint))
    rows.append(("file", str(path)))
    return rows


def _runtime_rows(title: str, runtime: Runtime) -> list[tuple[str, str]]:
    rows = [
        (title, f"{runtime.name} {runtime.version}"),
        ("", f"takes {', '.join(runtime.numerics)} (the preferred one first)"),
    ]
    if runtime.attention_numerics is not None:
        rows.append(("", f"for models with attention: {runtime.attention_numerics}"))
    if runtime.note is not None:
        rows.append(("", runtime.note))
    return rows


def _limits(budgets: Budgets) -> dict[str, str]:
    """The budgets that there are, as text."""
    limits = {}
    if budgets.size is not None:
        limits["size"] = format_bytes(budgets.size)
    if budgets.latency is not None:
        limits["latency"] = format_seconds(budgets.latency)
    if budgets.memory is not None:
        limits["memory"] = format_bytes(budgets.memory)
    if budgets.drop is not None:
        limits["drop"] = f"{budgets.drop:g} pt"
    return limits


def _binary(count: int) -> str:
    """Memory as chips come: ``512 KiB``, ``4 GiB``; in decimal units where it isn't whole."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count % scale == 0:
            return f"{count // scale} {unit}"
    return format_bytes(count)


def _summary(target: Target, path: Path) -> dict[str, Any]:
    return {
        "name": target.name,
        "title": target.device.title,
        "formats": target.formats,
        "budgets": target.budgets.model_dump(mode="json"),
        "file": str(path),
    }


def _with_files(targets: dict[str, Target]) -> list[tuple[Target, Path]]:
    files = list_targets()
    return [(target, files[name]) for name, target in targets.items()]


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _console() -> Console:
    return Console(highlight=False, markup=False)
