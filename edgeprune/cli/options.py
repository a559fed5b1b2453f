# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and how they become a recipe, a target and a data source."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from edgeprune.errors import InputError
from edgeprune.gate import merge
from edgeprune.job import DataSource, Source
from edgeprune.recipe import Importance, Numerics, Recipe, load_recipe
from edgeprune.target import Budgets, Target
from edgeprune.toml import parse
from edgeprune.units import parse_bytes, parse_seconds

__all__ = [
    "ArchOption",
    "BatchOption",
    "BatchSizeOption",
    "DataOption",
    "DistillOption",
    "EpochsOption",
    "ExcludeOption",
    "FormatOption",
    "ImportanceOption",
    "JsonOption",
    "LimitOption",
    "LrOption",
    "ModelArgument",
    "MultipleOption",
    "NumericsOption",
    "OptimizerOption",
    "OutputOption",
    "OverwriteOption",
    "PatienceOption",
    "RatioOption",
    "RecipeOption",
    "ScopeOption",
    "SeedOption",
    "ShapeOption",
    "TargetOption",
    "ThreadsOption",
    "TrustOption",
    "batch",
    "bytes_option",
    "data_source",
    "finetune_changes",
    "numerics",
    "prune_changes",
    "recipe",
    "seconds_option",
    "source",
    "use_threads",
    "with_budgets",
]

T = TypeVar("T")

_MODEL, _PRUNING, _TUNING, _ARTIFACTS = "The model", "Pruning", "Fine-tuning", "Artifacts"

ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A .pt2 program, a state dict (.pt, .pth, .safetensors), or TorchScript.",
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
        help="Load a pickled module. A pickle runs code: only for files whose origin you trust.",
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
RatioOption = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        min=0,
        max=1,
        help="Share of the prunable channels to remove; 0 removes none.",
        show_default="0.3",
        rich_help_panel=_PRUNING,
    ),
]
ImportanceOption = Annotated[
    Literal[Importance, "auto"] | None,
    typer.Option(
        "--importance",
        help="What makes a channel important.",
        show_default="auto: taylor with data, l2 without",
        rich_help_panel=_PRUNING,
    ),
]
ScopeOption = Annotated[
    Literal["uniform", "global"] | None,
    typer.Option(
        "--scope",
        help="The ratio in each group, or over all of them.",
        show_default="uniform",
        rich_help_panel=_PRUNING,
    ),
]
MultipleOption = Annotated[
    int | None,
    typer.Option(
        "--multiple",
        min=1,
        help="Channel counts are rounded to it.",
        show_default="the target's",
        rich_help_panel=_PRUNING,
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Parameters whose channels all stay ('head.*'); may be repeated.",
        rich_help_panel=_PRUNING,
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=0,
        help="Epochs of fine-tuning; 0: none.",
        show_default="3",
        rich_help_panel=_TUNING,
    ),
]
LrOption = Annotated[
    float | None,
    typer.Option(
        "--lr",
        help="Largest learning rate.",
        show_default="0.02 for sgd, 0.0005 for adamw",
        rich_help_panel=_TUNING,
    ),
]
OptimizerOption = Annotated[
    Literal["sgd", "adamw"] | None,
    typer.Option("--optimizer", help="[default: sgd]", rich_help_panel=_TUNING),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size", min=1, help="Samples a step.", show_default="128", rich_help_panel=_TUNING
    ),
]
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
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", show_default=False, help="What to write.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=2**31 - 1, help="Seed of all that is random.", show_default="0"
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads to compute with.", show_default="all cores"),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to standard output, and nothing else there.")
]


def recipe(file: Path | None, changes: Mapping[str, Any]) -> Recipe:
    """The recipe of ``file``, or the default one, with ``changes`` over it.

    A key of ``changes`` is ``seed`` or ``stage.option``; a value of ``None`` changes nothing.

    Raises:
        ConfigError: The file, or a value, is wrong.
    """
    base = load_recipe(file) if file is not None else Recipe()
    table = base.model_dump()
    for key, value in changes.items():
        if value is None:
            continue
        stage, _, option = key.rpartition(".")
        (table[stage] if stage else table)[option] = value
    return parse(table, Recipe, "command line")


def with_budgets(target: Target, **budgets: float | None) -> Target:
    """``target`` with the budgets that are given here over its own.

    Raises:
        ConfigError: A limit can't be one.
    """
    given = {name: value for name, value in budgets.items() if value is not None}
    merged = merge(target.budgets, parse(given, Budgets, "command line"))
    return target.model_copy(update={"budgets": merged})


def numerics(value: str | None) -> str | None:
    """The recipe's word for ``--numerics``."""
    return "fp32" if value == "none" else value


def batch(value: str | None) -> int | str | None:
    """The recipe's value for ``--batch``.

    Raises:
        InputError: Neither a number from 1 on nor ``dynamic``.
    """
    if value is None or value == "dynamic":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"--batch: '{value}' is neither a number from 1 on nor 'dynamic'")
    return int(value)


def _shapes(values: list[str] | None) -> tuple[tuple[int, ...], ...] | None:
    """The input shapes of ``1x3x224x224``, one each.

    Raises:
        InputError: A text isn't of that form.
    """
    if not values:
        return None
    return tuple(_shape(value) for value in values)


def _shape(value: str) -> tuple[int, ...]:
    sizes = value.lower().split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"--input-shape: '{value}' is no shape; write it as 1x3x224x224")
    return tuple(int(size) for size in sizes)


def source(
    path: Path, arch: str | None, input_shape: list[str] | None, trust_pickle: bool
) -> Source:
    """The model to start from.

    Raises:
        InputError: An input shape isn't one.
    """
    return Source(path, arch, _shapes(input_shape), trust_pickle)


def data_source(value: str | None, limit: int | None) -> DataSource | None:
    """What ``--data`` and ``--limit`` name: ``cifar10=photos/`` is a spec and its path.

    Raises:
        InputError: A limit without data.
    """
    if value is None:
        if limit is not None:
            raise InputError("--limit is about the data, and no --data is given")
        return None
    name, equals, path = value.partition("=")
    if equals and not Path(value).exists():
        return DataSource(name, Path(path), limit)
    return DataSource(value, None, limit)


def prune_changes(
    ratio: float | None,
    importance: str | None,
    scope: str | None,
    multiple: int | None,
    exclude: list[str] | None,
) -> dict[str, Any]:
    """The pruning options as changes of a recipe."""
    return {
        "prune.ratio": ratio,
        "prune.importance": importance,
        "prune.scope": scope,
        "prune.multiple": multiple,
        "prune.exclude": exclude or None,
    }


def finetune_changes(
    epochs: int | None,
    lr: float | None,
    optimizer: str | None,
    batch_size: int | None,
    distill: float | None,
    patience: int | None,
) -> dict[str, Any]:
    """The fine-tuning options as changes of a recipe."""
    return {
        "finetune.epochs": epochs,
        "finetune.learning_rate": lr,
        "finetune.optimizer": optimizer,
        "finetune.batch_size": batch_size,
        "finetune.distill": distill,
        "finetune.patience": patience,
    }


def bytes_option(flag: str, example: str, help: str, panel: str) -> Any:
    """An option that reads ``2MB``."""
    return _quantity(flag, example, help, parse_bytes, panel)


def seconds_option(flag: str, example: str, help: str, panel: str) -> Any:
    """An option that reads ``25ms``."""
    return _quantity(flag, example, help, parse_seconds, panel)


def _quantity(flag: str, example: str, text: str, read: Callable[[str], T], panel: str) -> Any:
    def parser(value: str) -> T:
        try:
            return read(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(flag, metavar=example, parser=parser, help=text, rich_help_panel=panel)


def use_threads(wanted: int | None) -> int:
    """Tell the libraries, before they are imported, how many threads to use; the number."""
    threads = wanted or len(os.sched_getaffinity(0))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return threads
