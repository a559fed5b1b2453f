# SPDX-License-Identifier: Apache-2.0
"""Which numerics a model gets on a target, and why."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from edgeprune.errors import ConfigError, InputError
from edgeprune.model import Model
from edgeprune.quantize.rules import ATTENTION, FIXED, PRODUCT
from edgeprune.recipe import Format, Numerics, QuantizeOptions
from edgeprune.target import Runtime, Target

__all__ = ["Choice", "candidates", "decide", "has_attention"]

aten = torch.ops.aten

_SOFTMAX = frozenset({aten.softmax.int, aten._softmax.default})
_PASSED = frozenset(
    {
        aten.add.Tensor,
        aten.mul.Tensor,
        aten.div.Tensor,
        aten.mul.Scalar,
        aten.div.Scalar,
        aten.masked_fill.Scalar,
        aten.masked_fill.Tensor,
        aten.where.self,
        aten.where.ScalarSelf,
        aten.view.default,
        aten.reshape.default,
        aten.dropout.default,
        aten.clone.default,
    }
)
"""What may stand between the scores of an attention and its softmax: scale, mask, shape."""

_UNCALIBRATED = "static int8 needs calibration data, and there is none"


class Choice(NamedTuple):
    """A decision and its grounds."""

    numerics: Numerics
    reason: str


def decide(
    model: Model,
    options: QuantizeOptions,
    target: Target,
    *,
    calibrated: bool = True,
    formats: Sequence[Format] | None = None,
) -> Choice:
    """The first of the ``candidates``, which see for arguments and errors."""
    first, *_ = candidates(model, options, target, calibrated=calibrated, formats=formats)
    return first


def candidates(
    model: Model,
    options: QuantizeOptions,
    target: Target,
    *,
    calibrated: bool = True,
    formats: Sequence[Format] | None = None,
) -> tuple[Choice, ...]:
    """The numerics that every runtime of the files to be written accepts, best first.

    ``auto`` takes what a runtime prefers (for models with attention, its ``attention_numerics``),
    the first runtime's preference first; those that follow are for models whose files can't be
    written, or don't pass their checks, in the first. What the user names is the only candidate.

    Args:
        model: Float.
        options: ``numerics`` is used.
        target: Its runtimes' accepted numerics.
        calibrated: Whether there is data to calibrate static int8 with.
        formats: Files to be written; ``None``: all that the target takes.

    Raises:
        InputError: What was asked for is not accepted, or can't be calibrated.
        ConfigError: ``auto``, and no numerics suits all runtimes.
    """
    runtimes = [(form, target.runtime(form)) for form in formats or target.formats]
    if options.numerics != "auto":
        _check(options.numerics, runtimes, target, calibrated)
        return (Choice(options.numerics, "as asked"),)
    attention = has_attention(model.program.graph)
    wishes = [_preferred(runtime, attention) for _, runtime in runtimes]
    common = [
        n
        for n in dict.fromkeys([*wishes, *runtimes[0][1].numerics])
        if all(n in runtime.numerics for _, runtime in runtimes)
    ]
    usable = [n for n in common if calibrated or n != "int8"]
    if not usable:
        raise ConfigError(_nothing(common, runtimes, target))
    return tuple(Choice(n, _grounds(n, wishes, common, attention, target)) for n in usable)


def has_attention(graph: Graph) -> bool:
    """Whether a graph holds attention: the fused operator, or a softmax of a matrix product."""
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target in ATTENTION:
            return True
        if node.target in _SOFTMAX and node.target in FIXED and _from_product(node.args[0]):
            return True
    return False


def _from_product(source: Any, steps: int = 8) -> bool:
    if not isinstance(source, Node) or source.op != "call_function" or not steps:
        return False
    if source.target in PRODUCT or source.target is aten.baddbmm.default:
        return True
    if source.target not in _PASSED:
        return False
    return any(_from_product(a, steps - 1) for a in source.all_input_nodes)


def _preferred(runtime: Runtime, attention: bool) -> Numerics:
    special = runtime.attention_numerics
    return special if attention and special is not None else runtime.numerics[0]


def _check(
    asked: Numerics,
    runtimes: list[tuple[Format, Runtime]],
    target: Target,
    calibrated: bool,
) -> None:
    for form, runtime in runtimes:
        if asked not in runtime.numerics:
            raise InputError(
                f"numerics {asked}: target {target.name} runs {form} with {runtime.name} "
                f"{runtime.version}, which accepts {', '.join(runtime.numerics)}"
            )
    if asked == "int8" and not calibrated:
        raise InputError(f"numerics int8: {_UNCALIBRATED}; give --data, or int8-dynamic")


def _nothing(common: list[Numerics], runtimes: list[tuple[Format, Runtime]], target: Target) -> str:
    takes = "; ".join(f"{r.name} ({f}) accepts {', '.join(r.numerics)}" for f, r in runtimes)
    if common:
        return f"target {target.name}: {_UNCALIBRATED}; give --data ({takes})"
    return f"target {target.name}: no numerics suits all of its runtimes: {takes}"


def _grounds(
    chosen: Numerics,
    wishes: list[Numerics],
    common: list[Numerics],
    attention: bool,
    target: Target,
) -> str:
    kind = "models with attention" if attention else "models without attention"
    if chosen == wishes[0]:
        return f"what {target.name} prefers for {kind}"
    if common[0] != chosen:
        return f"{_UNCALIBRATED}; {chosen} needs none"
    return f"{wishes[0]} is preferred for {kind}, but not every runtime of {target.name} takes it"
