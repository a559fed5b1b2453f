# SPDX-License-Identifier: Apache-2.0
"""The options of pruning."""

from typing import Annotated, Literal

import typer

from edgeprune.cli import options as opt
from edgeprune.recipe import Importance, Scope

__all__ = [
    "AllowDepthOption",
    "AttentionOption",
    "ExcludeOption",
    "GroupedOption",
    "ImportanceOption",
    "MacsOption",
    "MultipleOption",
    "NoRecoverOption",
    "ParamsOption",
    "RatioOption",
    "ScopeOption",
]

RatioOption = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        min=0,
        max=1,
        help="Share of the prunable channels to remove; 0 removes none.",
        show_default="0.3",
        rich_help_panel=opt.PRUNING,
    ),
]
MacsOption = Annotated[
    float | None,
    typer.Option(
        "--macs",
        min=0,
        max=1,
        help="Share of the multiply-accumulates to keep, in place of --ratio: 0.5 keeps half.",
        show_default=False,
        rich_help_panel=opt.PRUNING,
    ),
]
ParamsOption = Annotated[
    float | None,
    typer.Option(
        "--params",
        min=0,
        max=1,
        help="Share of the parameters to keep, in place of --ratio.",
        show_default=False,
        rich_help_panel=opt.PRUNING,
    ),
]
ImportanceOption = Annotated[
    Literal[Importance, "auto"] | None,
    typer.Option(
        "--importance",
        help="What makes a channel important.",
        show_default="auto: obs with data, l2 without",
        rich_help_panel=opt.PRUNING,
    ),
]
ScopeOption = Annotated[
    Scope | None,
    typer.Option(
        "--scope",
        help="How much goes where: the same share of each group; least important channels first "
        "over all groups, or for what they cost; or by what narrower groups are measured to lose.",
        show_default="auto: sensitivity for --macs and --params with data, else uniform",
        rich_help_panel=opt.PRUNING,
    ),
]
MultipleOption = Annotated[
    int | None,
    typer.Option(
        "--multiple",
        min=1,
        help="Channel counts are rounded to it.",
        show_default="the target's",
        rich_help_panel=opt.PRUNING,
    ),
]
ExcludeOption = Annotated[
    list[str] | None, opt.exclude_option("Parameters whose channels all stay", opt.PRUNING)
]
AttentionOption = Annotated[
    Literal["heads", "head_dim"] | None,
    typer.Option(
        "--attention",
        help="What goes in attention: whole heads, or the same part of every head's width.",
        show_default="heads",
        rich_help_panel=opt.PRUNING,
    ),
]
GroupedOption = Annotated[
    Literal["channels", "groups"] | None,
    typer.Option(
        "--grouped",
        help="What goes in grouped convolutions: the same channels of each group, or whole groups.",
        show_default="channels",
        rich_help_panel=opt.PRUNING,
    ),
]
AllowDepthOption = Annotated[
    bool,
    typer.Option(
        "--allow-depth",
        help="Let whole residual branches go, the least important first, in place of channels "
        "inside all of them.",
        rich_help_panel=opt.PRUNING,
    ),
]
NoRecoverOption = Annotated[
    bool,
    typer.Option(
        "--no-recover",
        help="Leave the weights as they are cut; else, where there is data, each layer is fitted "
        "to the dense network's outputs by least squares, without training.",
        rich_help_panel=opt.PRUNING,
    ),
]
