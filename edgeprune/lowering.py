# SPDX-License-Identifier: Apache-2.0
"""From the trained model to its files: the best numerics in which every file passes its checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgeprune.errors import CheckFailed, EdgepruneError, InputError, MissingExtra, OutputError
from edgeprune.export import export
from edgeprune.quantize import Choice, quantize
from edgeprune.recipe import Numerics, Recipe
from edgeprune.report.text import KEPT
from edgeprune.step import Run, Step

__all__ = ["lower"]


@dataclass(frozen=True)
class _Tried:
    """Numerics, and what came of them: two steps, or an error."""

    numerics: Numerics
    small: Step | None = None
    final: Step | None = None
    error: EdgepruneError | None = None

    @property
    def files(self) -> int:
        return 0 if self.final is None else len(self.final.report.artifacts)

    @property
    def shortfall(self) -> str:
        """Which files it lacks and why, or nothing."""
        if self.final is None:
            return str(self.error)
        return "; ".join(f"{each.file}: {each.reason}" for each in self.final.report.missing)


def lower(
    run: Run, recipe: Recipe, candidates: Sequence[Choice], trained: Step
) -> tuple[Step, Step]:
    """Quantize and export in the first of the candidates in which every file passes.

    Where none does, the one with the most files counts; its report says which are missing.

    Args:
        run: What the steps share.
        recipe: Options of both stages.
        candidates: Numerics, best first.
        trained: The float model.

    Returns:
        The quantized and the exported step.

    Raises:
        CheckFailed: No file of any candidate does what its model does.
        InputError: No candidate suits the model.
    """
    tried: list[_Tried] = []
    for choice in candidates:
        tried.append(_try(run, recipe, choice, tried, trained))
        if not tried[-1].shortfall:
            break
    best = max(tried, key=lambda each: each.files)  # the first of equals
    if best.small is None or best.final is None:
        assert best.error is not None
        best.error.args = (f"{best.error}; {KEPT}",)
        raise best.error
    return best.small, best.final


def _try(
    run: Run, recipe: Recipe, choice: Choice, before: Sequence[_Tried], trained: Step
) -> _Tried:
    # The first keeps the plain names of its folders: a run is resumed by them.
    variant = choice.numerics if before else ""
    if before:
        reasons = "; ".join(f"{each.numerics}: {each.shortfall}" for each in before)
        choice = Choice(choice.numerics, f"tried before it: {reasons}")
        run.context.progress.say(f"> {reasons}; trying {choice.numerics}")
    try:
        stage = partial(quantize, choice=choice)
        small = run.step("quantize", stage, recipe.quantize, trained, variant=variant)
        against = partial(export, reference=trained.model)
        final = run.step("export", against, recipe.export, small, variant=variant)
    except (OutputError, MissingExtra):  # no other numerics would help
        raise
    except (CheckFailed, InputError) as error:
        return _Tried(choice.numerics, error=error)
    return _Tried(choice.numerics, small, final)
