# SPDX-License-Identifier: Apache-2.0
"""The options that several commands share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from edgeprune.errors import InputError
from edgeprune.recipe import Numerics
from edgeprune.units import parse_bytes, parse_seconds

__all__ = [
    "BUDGETS",
    "MOST_THREADS",
    "PRUNING",
    "RUN",
    "ArchOption",
    "BatchOption",
    "BatchSizeOption",
    "DataOption",
    "DistillOption",
    "EpochsOption",
    "FormatOption",
    "JsonOption",
    "LimitOption",
    "LrOption",
    "MaxDropOption",
    "MaxLatencyOption",
    "MaxMemoryOption",
    "MaxSizeOption",
    "ModelArgument",
    "NumericsOption",
    "OptimizerOption",
    "OutputOption",
    "OverwriteOption",
    "PatienceOption",
    "RecipeOption",
    "ResumeOption",
    "SeedOption",
    "ShapeOption",
    "SizeOption",
    "StateKeyOption",
    "SurplusOption",
    "TargetOption",
    "ThreadsOption",
    "TicketOption",
    "TrustOption",
    "batch_size_option",
    "epochs_option",
    "exclude_option",
    "file_option",
    "lr_option",
    "optimizer_option",
    "sizes",
]

T = TypeVar("T")

MOST_THREADS = 1024
"""Far above any edge device; OpenMP dies of a million."""

_MODEL, _TUNING, _ARTIFACTS = "The model", "Fine-tuning", "Artifacts"
PRUNING = "Pruning"
RUN = "The run"
BUDGETS = "Budgets, over those that are set already"


def epochs_option(help: str, default: str, panel: str) -> Any:
    """``--epochs`` of a command that trains."""
    return typer.Option("--epochs", min=0, help=help, show_default=default, rich_help_panel=panel)


def lr_option(default: str, panel: str) -> Any:
    """``--lr``, of which each kind of training has another default."""
    told = "Largest learning rate."
    return typer.Option("--lr", help=told, show_default=default, rich_help_panel=panel)


def optimizer_option(panel: str) -> Any:
    """``--optimizer``."""
    told = "What changes the weights."
    return typer.Option("--optimizer", help=told, show_default="sgd", rich_help_panel=panel)


def batch_size_option(panel: str) -> Any:
    """``--batch-size``."""
    told = "Samples a step."
    return typer.Option("--batch-size", min=1, help=told, show_default="128", rich_help_panel=panel)


def exclude_option(what: str, panel: str) -> Any:
    """``--exclude``."""
    told = f"{what} ('head.*'); may be repeated."
    return typer.Option("--exclude", metavar="PATTERN", help=told, rich_help_panel=panel)


ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A .pt2 program or a state dict (.pt, .pth, .safetensors); with --trust-pickle also "
        "TorchScript or a pickled module.",
    ),
]
ArchOption = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="PACKAGE.MODULE:FACTORY",
        help="What builds the network that a state dict belongs to.",
        rich_help_panel=_MODEL,
    ),
]
StateKeyOption = Annotated[
    str | None,
    typer.Option(
        "--state-key",
        metavar="KEY",
        help="Which weights of a checkpoint are meant: a key such as state_dict_ema, dotted where "
        "nested, or what their names begin with.",
        show_default="the only ones, or the usual",
        rich_help_panel=_MODEL,
    ),
]
SurplusOption = Annotated[
    bool,
    typer.Option(
        "--allow-surplus",
        help="Leave out weights in the file that the network doesn't have; they are named.",
        rich_help_panel=_MODEL,
    ),
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="1x3x224x224",
        help="Shape of an input, batch first, where neither the file nor the data tell; once an "
        "input.",
        rich_help_panel=_MODEL,
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Load TorchScript, a pickled module, or a .pt2 that is refused without. They run code "
        "from the file: only for files whose origin you trust.",
        rich_help_panel=_MODEL,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="DATA",
        help="A folder of images, an .npz, a datasets folder, the name or file of a spec "
        "(digits), NAME=PATH for a spec that needs a path (cifar10=photos/), or "
        "package.module:factory.",
        rich_help_panel=_MODEL,
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        metavar="N",
        help="Use at most N samples of each part of the data, for a quick try; the report says so.",
        rich_help_panel=_MODEL,
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        help="The device: a name (`edgeprune targets list`) or a .toml file.",
    ),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="All options of all stages as TOML; the options here override it.",
    ),
]
TicketOption = Annotated[
    Path | None,
    typer.Option(
        "--ticket",
        metavar="FILE",
        help="In place of pruning by a ratio: a ticket (`edgeprune ticket find`). Its zeros are "
        "put into the model, which is best the one trained with it, and stay zero; its channels, "
        "where it is by channels, are removed. Its own weights: \\[ticket] weights in a recipe.",
        rich_help_panel=PRUNING,
    ),
]
EpochsOption = Annotated[int | None, epochs_option("Epochs of fine-tuning; 0: none.", "3", _TUNING)]
LrOption = Annotated[float | None, lr_option("0.02 for sgd, 0.0005 for adamw", _TUNING)]
OptimizerOption = Annotated[Literal["sgd", "adamw"] | None, optimizer_option(_TUNING)]
BatchSizeOption = Annotated[int | None, batch_size_option(_TUNING)]
DistillOption = Annotated[
    float | None,
    typer.Option(
        "--distill",
        min=0,
        max=1,
        help="Weight of the dense model's soft labels.",
        show_default="0.5 with labels, 1 without",
        rich_help_panel=_TUNING,
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        min=1,
        help="Stop after so many epochs without a better held-out loss.",
        show_default="never",
        rich_help_panel=_TUNING,
    ),
]
NumericsOption = Annotated[
    Literal[Numerics, "auto", "none"] | None,
    typer.Option(
        "--numerics",
        help="Numbers of the artifacts; none: fp32.",
        show_default="auto, by the target and the model",
        rich_help_panel=_ARTIFACTS,
    ),
]
FormatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="onnx|tflite",
        help="Artifacts to write; may be repeated.",
        show_default="all that the target runs",
        rich_help_panel=_ARTIFACTS,
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch",
        metavar="N|dynamic",
        help="Batch dimension of the ONNX file.",
        show_default="1",
        rich_help_panel=_ARTIFACTS,
    ),
]


def _budget(flag: str, example: str, help: str, read: Callable[[str], T]) -> Any:
    """An option that reads ``2MB`` or ``25ms``."""

    def parser(value: str) -> T:
        try:
            return read(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(flag, metavar=example, parser=parser, help=help, rich_help_panel=BUDGETS)


MaxSizeOption = Annotated[
    int | None, _budget("--max-size", "2MB", "Of each artifact's file.", parse_bytes)
]
MaxLatencyOption = Annotated[
    float | None, _budget("--max-latency", "25ms", "Median of one inference.", parse_seconds)
]
MaxMemoryOption = Annotated[
    int | None, _budget("--max-memory", "64MB", "Peak of a fresh process.", parse_bytes)
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="1.0",
        min=0,
        help="Points of accuracy, agreement or fidelity that may be lost against the dense model.",
        rich_help_panel=BUDGETS,
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", show_default=False, help="What to write.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on where an interrupted run was stopped.", rich_help_panel=RUN
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=2**31 - 1, help="Seed of all that is random.", show_default="0"
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=MOST_THREADS,
        help="Threads to compute with.",
        show_default="all cores",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to standard output, and nothing else there.")
]


def file_option(help: str, default: str | Literal[False] = "standard output") -> Any:
    """``--output FILE`` of a command that prints; ``default`` is where else it goes."""
    return typer.Option("--output", "-o", metavar="FILE", show_default=default, help=help)


SizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        metavar="NAME=VALUE",
        show_default=False,
        help="Size of a dimension that a file leaves open, by its name (height=320), or by "
        "INPUT.AXIS where it has none (image.2=320); may be repeated. A batch is 1.",
    ),
]


def sizes(given: list[str] | None) -> dict[str, int]:
    """What ``--size`` says, by name.

    Raises:
        InputError: It is no NAME=VALUE, or names one twice.
    """
    found: dict[str, int] = {}
    for text in given or ():
        name, _, value = text.rpartition("=")
        number = int(value) if re.fullmatch(r"[0-9]{1,9}", value) else 0
        if not name or not number:
            raise InputError(f"--size {text}: should be NAME=VALUE such as height=320")
        if found.setdefault(name, number) != number:
            raise InputError(f"--size {text}: '{name}' is {found[name]} already")
    return found
