# SPDX-License-Identifier: Apache-2.0
"""A number with its origin. Nothing is reported that isn't one of these.

What was not measured is absent: there is no figure with a made-up value.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Figure", "Origin", "counted", "measured"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Origin(_Frozen):
    """Where a number comes from.

    ``counted`` is exact (bytes of a file, MACs of a graph); ``measured`` has a machine, a date and
    a number of runs; ``estimated`` names in ``how`` what it was made from.
    """

    kind: Literal["counted", "measured", "estimated"]
    how: str
    where: str | None = None
    when: str | None = None
    runs: int | None = None


class Figure(_Frozen):
    """A value, its unit, the interval [low, high] that it is known to, and its origin."""

    value: float
    unit: str
    origin: Origin
    low: float | None = None
    high: float | None = None


def counted(value: float, unit: str, how: str) -> Figure:
    """An exact figure, read off a file or a graph."""
    return Figure(value=value, unit=unit, origin=Origin(kind="counted", how=how))


def measured(  # noqa: PLR0913 - the parts of an origin belong together
    value: float,
    unit: str,
    how: str,
    *,
    where: str,
    when: str,
    runs: int,
    low: float | None = None,
    high: float | None = None,
) -> Figure:
    """A measured figure; ``runs`` is the number of samples behind it."""
    origin = Origin(kind="measured", how=how, where=where, when=when, runs=runs)
    return Figure(value=value, unit=unit, origin=origin, low=low, high=high)
