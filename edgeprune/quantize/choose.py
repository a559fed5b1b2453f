# SPDX-License-Identifier: Apache-2.0
"""Which numerics a model gets on a target, and why."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from edgeprune.errors import ConfigError, InputError
from edgeprune.model import Model
from edgeprune.quantize.blockers import static_blockers
from edgeprune.quantize.rules import ATTENTION, FIXED, PRODUCT
from edgeprune.recipe import NUMERICS, Format, Numerics, QuantizeOptions
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

_NONE_IN_COMMON = "no numerics suits all of its runtimes"
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
        InputError: What was asked for is not accepted, or can't be calibrated, or its files can't
            be right (``static_blockers``).
        ConfigError: ``auto``, and no numerics suits all runtimes.
    """
    runtimes = [(form, target.runtime(form)) for form in formats or target.formats]
    if options.numerics != "auto":
        _check(options.numerics, runtimes, target, calibrated)
        return (Choice(options.numerics, _as_asked(model, options.numerics, runtimes)),)
    attention = has_attention(model.program.graph)
    wishes = [_preferred(runtime, attention) for _, runtime in runtimes]
    common = [
        n
        for n in dict.fromkeys([*wishes, *runtimes[0][1].numerics])
        if all(n in runtime.numerics for _, runtime in runtimes)
    ]
    if not common:
        raise ConfigError(f"target {target.name}: {_NONE_IN_COMMON}: {_takes(runtimes)}")
    # What stands behind the best is a way out; why it was passed over is told with it.
    against = ""
    if common[0] == "int8" or len(common) == 1:
        against = _listed(_blocked(model, runtimes)) if calibrated else _UNCALIBRATED
    usable = common if calibrated and not against else [n for n in common if n != "int8"]
    if not usable:
        way = _ways_out(runtimes) if calibrated else "give --data"
        raise ConfigError(f"target {target.name}: {against}; {way} ({_takes(runtimes)})")
    return tuple(Choice(n, _grounds(n, wishes, against, attention, target)) for n in usable)


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


def _as_asked(model: Model, asked: Numerics, runtimes: list[tuple[Format, Runtime]]) -> str:
    """Grounds of what the user named: files that can't be right may have others beside them.

    Raises:
        InputError: No file can be right.
    """
    reasons = _blocked(model, runtimes) if asked == "int8" else {}
    if reasons and len(reasons) == len(runtimes):
        raise InputError(f"numerics int8: {_listed(reasons)}; {_ways_out(runtimes)}")
    return f"as asked, though not for {_listed(reasons)}" if reasons else "as asked"


def _blocked(model: Model, runtimes: list[tuple[Format, Runtime]]) -> dict[Format, str]:
    """Why static int8 files of the model can't be right."""
    return static_blockers(model, [form for form, _ in runtimes])


def _listed(reasons: dict[Format, str]) -> str:
    return "; ".join(f"{form}: {reason}" for form, reason in reasons.items())


def _ways_out(runtimes: list[tuple[Format, Runtime]]) -> str:
    others = [n for n in NUMERICS if n != "int8" and all(n in r.numerics for _, r in runtimes)]
    return f"choose --numerics {', '.join(others)}" if others else "choose another --target"


def _takes(runtimes: list[tuple[Format, Runtime]]) -> str:
    return "; ".join(f"{r.name} ({f}) accepts {', '.join(r.numerics)}" for f, r in runtimes)


def _grounds(
    chosen: Numerics,
    wishes: list[Numerics],
    against: str,
    attention: bool,
    target: Target,
) -> str:
    kind = "models with attention" if attention else "models without attention"
    if against:
        return f"not int8: {against}"
    if chosen == wishes[0]:
        return f"what {target.name} prefers for {kind}"
    return f"{wishes[0]} is preferred for {kind}, but not every runtime of {target.name} takes it"
