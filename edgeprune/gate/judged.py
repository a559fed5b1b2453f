# SPDX-License-Identifier: Apache-2.0
"""What `edgeprune check` found, as data: the one input of every output format."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeprune.figure import Figure
from edgeprune.gate.verdict import Outcome

__all__ = ["ON_DEVICE", "CheckReport", "Judged", "Place", "Rule"]

Rule = Literal[
    "budget/size",
    "budget/latency",
    "budget/memory",
    "budget/drop",
    "baseline/size",
    "baseline/latency",
    "baseline/memory",
    "baseline/accuracy",
    "baseline/macs",
    "baseline/parameters",
    "baseline/arena",
    "baseline/shapes",
    "baseline/missing",
    "target/format",
    "target/numerics",
    "target/operators",
    "target/memory",
    "integrity/missing",
    "integrity/hash",
    "integrity/edited",
    "integrity/origin",
]
"""What was judged: a limit of its own (``budget``), a limit against the committed baseline
(``baseline``), whether the target's runtime takes the file (``target``), or whether the manifest
and its files belong together (``integrity``)."""

ON_DEVICE: frozenset[Rule] = frozenset(
    {"budget/latency", "budget/memory", "baseline/latency", "baseline/memory"}
)
"""Rules whose figures only a device gives, so that they may be missing where there is none."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Place(_Frozen):
    """A line of a file that a person can change."""

    file: str
    """Relative to where the command was run, with ``/``."""
    line: Annotated[int, Field(ge=1)]
    """From 1."""


class Judged(_Frozen):
    """One rule applied to one artifact."""

    rule: Rule
    model: str | None
    """Its name in the project file; absent for a file that was named on the command line."""
    target: str | None
    artifact: str
    """Path of the file, relative to where the command was run."""
    outcome: Outcome
    reason: str
    """One sentence a person can act on: figure, limit, origin, what to do."""
    unit: str = ""
    figure: Figure | None = None
    limit: float | None = None
    baseline: Figure | None = None
    blame: tuple[str, ...] = ()
    """The layers that grew most against the baseline, each with by how much."""
    place: Place | None = None
    """The line of the budget; absent where it wasn't written in a file."""

    @property
    def name(self) -> str:
        """What this is about: ``classifier for rpi4: budget/size of model.onnx``."""
        owner = " for ".join(part for part in (self.model, self.target) if part)
        return f"{owner + ': ' if owner else ''}{self.rule} of {self.artifact}"


class CheckReport(_Frozen):
    """All that one `edgeprune check` judged."""

    schema_version: Literal[1] = 1
    judged: tuple[Judged, ...]
    strict: bool = False
    """Whether what is inconclusive or not measured counts as a failure."""
    allow_unmeasured: bool = False
    """Whether latency and memory that no device measured are a warning only, with ``strict`` too.
    Nothing else is waived by it: a file or its manifest tells all the rest."""
    notes: tuple[str, ...] = ()
    when: str
    """ISO 8601, UTC."""
    edgeprune: str
    """Version."""

    @property
    def failed(self) -> tuple[Judged, ...]:
        """What makes the exit code 1."""
        return tuple(each for each in self.judged if self._fails(each))

    @property
    def warnings(self) -> tuple[Judged, ...]:
        """What is neither passed nor failed."""
        return tuple(
            each for each in self.judged if each.outcome != "pass" and not self._fails(each)
        )

    def _fails(self, judged: Judged) -> bool:
        if judged.outcome == "not measured":
            # What a device must keep isn't passed by not looking.
            waived = self.allow_unmeasured and judged.rule in ON_DEVICE
            return (self.strict or judged.rule.startswith("budget/")) and not waived
        return judged.outcome == "fail" or (self.strict and judged.outcome == "inconclusive")
