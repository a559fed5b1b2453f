# SPDX-License-Identifier: Apache-2.0
"""What to find and how: the options of all methods, frozen and validated."""

from typing import Annotated, Literal

from pydantic import Field

from edgeprune.recipe import FinetuneOptions
from edgeprune.toml import Config

__all__ = [
    "DATA_DRIVEN",
    "DRAWN",
    "METHODS",
    "AllocationRule",
    "AtInitOptions",
    "Criterion",
    "DynamicOptions",
    "EarlyBirdOptions",
    "GradualOptions",
    "ImpOptions",
    "Method",
    "TicketOptions",
]

Method = Literal[
    "imp", "gradual", "one-shot", "snip", "grasp", "synflow", "ntk-sap", "random",
    "early-bird", "set", "rigl",
]  # fmt: skip
METHODS: tuple[Method, ...] = (
    "imp", "gradual", "one-shot", "snip", "grasp", "synflow", "ntk-sap", "random",
    "early-bird", "set", "rigl",
)  # fmt: skip
Criterion = Literal["magnitude", "random", "saliency", "movement", "fisher"]
DATA_DRIVEN: frozenset[Criterion] = frozenset({"saliency", "fisher"})
"""Those that look at training samples; ``movement`` watches the training instead."""
DRAWN: frozenset[Method] = frozenset({"random", "set", "rigl"})
"""Those that draw a mask at random: no ranking decides how dense a layer is, so ERK does."""
AllocationRule = Literal["global", "uniform", "er", "erk", "by-hand"]
Share = Annotated[float, Field(gt=0, lt=1)]


class ImpOptions(Config):
    """Iterative magnitude pruning with rewinding (Frankle and Carbin 2019; Frankle et al. 2020)."""

    rate: Share = 0.2
    """Share of the living weights that goes at each level; the last level takes what is left to
    meet the density."""
    rewind: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """To which share of all steps weights and optimizer go back; 0: to the start."""
    mode: Literal["weights", "learning-rate"] = "weights"
    """``learning-rate``: only the schedule goes back, the weights stay (Renda et al. 2020)."""


class GradualOptions(Config):
    """Pruning while training (Zhu and Gupta 2017)."""

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of all steps before the first weights go."""
    end: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of all steps after which the density is reached."""
    every: Annotated[int, Field(ge=1)] = 50
    """Steps between two changes of the mask."""
    schedule: Literal["cubic", "linear"] = "cubic"


class AtInitOptions(Config):
    """Pruning before any training."""

    samples: Annotated[int, Field(ge=1)] = 512
    """Training samples that a data-driven score looks at."""
    iterations: Annotated[int, Field(ge=1)] | None = None
    """Steps on the way to the density; ``None``: what the method's paper took (SNIP and GraSP 1,
    SynFlow 100, NTK-SAP 20)."""
    temperature: Annotated[float, Field(gt=0)] = 200.0
    """Of GraSP's outputs (200 in the code of Wang et al. 2020)."""


class EarlyBirdOptions(Config):
    """Early-bird tickets (You et al. 2020; Chen et al. 2021 for transformers)."""

    window: Annotated[int, Field(ge=2)] = 5
    """Masks in the queue."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The ticket is found when the newest mask differs from every other one in the queue in less
    than this share of the channels."""
    penalty: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the L1 norm of the scales (batch norm) or coefficients (heads, feed-forward)."""


class DynamicOptions(Config):
    """Dynamic sparse training (SET: Mocanu et al. 2018; RigL: Evci et al. 2020)."""

    every: Annotated[int, Field(ge=1)] = 100
    """Steps between two changes of the mask."""
    fraction: Share = 0.3
    """Share of a layer's living weights that is exchanged at first; it decays by half a cosine."""
    end: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of all steps after which the mask stays."""


class TicketOptions(Config):
    """What ``ticket find`` does."""

    method: Method = "imp"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of the covered weights (of the channels, for early-bird) that lives."""
    alloc: AllocationRule | None = None
    """How the density is shared among the layers; ``None``: the method's own (ERK for random, SET
    and RigL, global elsewhere)."""
    densities: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """By hand: density by shell pattern over names of weights."""
    criterion: Criterion = "magnitude"
    """What ``one-shot`` and ``gradual`` rank by."""
    pattern: Annotated[str, Field(pattern=r"^\d+:\d+$")] | None = None
    """``2:4``: at most 2 of every 4 weights along the input axis live."""
    exclude: tuple[str, ...] = ()
    """Weights (shell patterns over their names) that stay dense."""
    fresh: bool = False
    """Start from newly drawn weights, not from those of the model."""
    train: FinetuneOptions = FinetuneOptions(epochs=20, distill=0.0)
    imp: ImpOptions = ImpOptions()
    gradual: GradualOptions = GradualOptions()
    at_init: AtInitOptions = AtInitOptions()
    early_bird: EarlyBirdOptions = EarlyBirdOptions()
    dynamic: DynamicOptions = DynamicOptions()

    @property
    def allocation(self) -> AllocationRule:
        """``alloc``, or where that is ``None`` the method's own (but early-bird's, which ranks
        channels)."""
        return self.alloc or ("erk" if self.method in DRAWN else "global")
