# SPDX-License-Identifier: Apache-2.0
"""What to do: the stages of a run and their options, frozen and validated.

A recipe is a TOML file with one table a stage; every key has a default, so the empty file is a
recipe. The command line's options override its keys one by one.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeprune.toml import Config, load

__all__ = [
    "NUMERICS",
    "ExportOptions",
    "FinetuneOptions",
    "Format",
    "Importance",
    "Numerics",
    "Precision",
    "ProfileOptions",
    "PruneOptions",
    "QuantizeOptions",
    "Recipe",
    "Scope",
    "TicketStart",
    "load_recipe",
]

Numerics = Literal["fp32", "fp16", "int8", "int8-dynamic", "int8-weights"]
NUMERICS: tuple[Numerics, ...] = ("fp32", "fp16", "int8", "int8-dynamic", "int8-weights")
Format = Literal["onnx", "tflite"]
Precision = Literal["float32", "bfloat16"]
Scope = Literal["uniform", "global", "cost", "sensitivity"]
Importance = Literal[
    "l1", "l2", "taylor", "taylor-abs", "fisher", "obs", "wanda", "apoz", "bn-scale", "fpgm",
    "lamp", "random",
]  # fmt: skip


class PruneOptions(Config):
    """Structured pruning: which share of the channels goes, and which ones."""

    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the prunable channels to remove; 0 leaves the model as it is."""
    macs: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the multiply-accumulates to keep; where it is given, ``ratio`` isn't used."""
    params: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the parameters to keep, in place of ``ratio``."""
    importance: Importance | Literal["auto"] = "auto"
    """``auto``: ``obs`` where there is data, ``l2`` where there is none (bench/criteria.md)."""
    scope: Scope | Literal["auto"] = "auto"
    """How much goes where. ``uniform``: the same share of each group; ``global``: least important
    channels first, over all groups; ``cost``: those of the least importance for what they cost;
    ``sensitivity``: by what a narrower group is measured to lose for what it saves. ``auto``:
    ``sensitivity`` for ``macs`` and ``params`` where there is data, else ``uniform``."""
    multiple: Annotated[int, Field(ge=1)] | None = None
    """Channel counts are rounded to this; ``None``: the target's own multiple."""
    samples: Annotated[int, Field(ge=1)] = 512
    """Training samples that a data-driven importance looks at."""
    exclude: tuple[str, ...] = ()
    """Parameters (shell patterns over their names) whose channels all stay, and so do the residual
    branches that use them."""
    attention: Literal["heads", "head_dim"] = "heads"
    """In attention: whole heads go, or the same positions of each head's width."""
    grouped: Literal["channels", "groups"] = "channels"
    """In grouped convolutions: the same positions of each group go, or whole groups."""
    recover: bool = True
    """Fit the layers that are left to what the dense network does, where there is data: closed-form
    least squares, no labels, no training."""
    recover_samples: Annotated[int, Field(ge=1)] = 1024
    """Training samples for that."""
    allow_depth: bool = False
    """Whole residual branches may go, least important first, in place of channels inside all of
    them; the ratio stays what it is."""


class FinetuneOptions(Config):
    """The training loop after pruning."""

    epochs: Annotated[int, Field(ge=0)] = 3
    """0: no fine-tuning."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """``None``: 0.02 for SGD, 0.0005 for AdamW; in proportion less where the model itself insists
    on a smaller batch than ``batch_size``."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Of parameters with two dimensions or more: biases and norms don't decay."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of all steps over which the rate rises linearly; then a cosine to zero."""
    distill: Annotated[float, Field(ge=0, le=1)] | None = None
    """Weight of the dense model's soft labels; ``None``: 0.5 with labels, 1 without."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after so many epochs without a better held-out loss; ``None``: never stop early."""
    augment: Literal["auto", "none", "flip-shift"] = "auto"
    """``auto``: what the data spec says."""
    precision: Precision = "float32"
    """In what products are computed. ``bfloat16``: mixed precision, where weights, gradients and
    the optimizer stay float32. It pays on a processor with instructions for it (AMX), and slows
    training down elsewhere."""


class QuantizeOptions(Config):
    """Numbers of the artifact."""

    numerics: Numerics | Literal["auto"] = "auto"
    """``auto``: static int8 for convolutional networks, dynamic int8 where attention is found, as
    far as the target accepts it."""
    samples: Annotated[int, Field(ge=1)] = 256
    """Calibration samples, from the training part of the data."""


class TicketStart(Config):
    """What a ticket (``--ticket``), which takes the place of pruning, begins with."""

    weights: Literal["model", "ticket"] = "model"
    """``model``: the weights of the model, which is usually the one trained with the ticket;
    ``ticket``: those that the ticket itself rewinds to."""


class ExportOptions(Config):
    """Artifacts to write."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1)] | None = None
    """``None``: the target's."""
    batch: Literal["dynamic"] | Annotated[int, Field(ge=1)] = 1
    """Batch dimension of the ONNX file; TFLite's is always fixed (1 where this is ``dynamic``)."""
    samples: Annotated[int, Field(ge=1)] = 64
    """Evaluation samples on which each artifact is held against its model."""


class ProfileOptions(Config):
    """Measuring the artifacts."""

    blocks: Annotated[int, Field(ge=2)] = 5
    """Separate processes per artifact, interleaved, that nothing disturbed."""
    max_blocks: Annotated[int, Field(ge=2)] = 30
    """With those that make up for disturbed ones, or are needed because the others differ."""
    block_seconds: Annotated[float, Field(gt=0)] = 0.5
    min_runs: Annotated[int, Field(ge=1)] = 20
    time_limit: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which no further block is started."""


class Recipe(Config):
    """All stages of a run."""

    schema_version: Literal[1] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    prune: PruneOptions = PruneOptions()
    ticket: TicketStart = TicketStart()
    finetune: FinetuneOptions = FinetuneOptions()
    quantize: QuantizeOptions = QuantizeOptions()
    export: ExportOptions = ExportOptions()
    profile: ProfileOptions = ProfileOptions()


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: A wrong key or value.
    """
    return load(path, Recipe)
