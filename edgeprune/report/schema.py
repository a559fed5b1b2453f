# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself, as data: one report a stage, one for the run, one manifest a result.

Pure data without torch; ``report.json`` and ``manifest.json`` are these objects' JSON.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgeprune.deploy.health import Health
from edgeprune.figure import Figure
from edgeprune.gate.verdict import Verdict
from edgeprune.recipe import Format, Numerics

__all__ = [
    "Artifact",
    "Check",
    "Closeness",
    "DeviceReport",
    "Manifest",
    "Missing",
    "Reference",
    "RunReport",
    "StageReport",
    "TensorInfo",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorInfo(_Frozen):
    """An input or output of an artifact."""

    name: str
    shape: tuple[int | str, ...]
    """A string names a dynamic dimension."""
    dtype: str
    layout: Literal["NCHW", "NHWC", "other"] = "other"


Reference = Literal["model", "float", "dense"]
"""What outputs are compared with: those of the model that the file was made from, of the float
model before quantization, of the dense model before any stage."""


class Closeness(_Frozen):
    """One output of an artifact, or a part of it that has a range of its own, beside a model's."""

    reference: Reference
    output: str
    part: str | None = None
    """Slices along an axis, such as ``4 to 6 of axis 1``; absent: the whole output."""
    sqnr_db: float | None
    """Signal to noise; absent where the error is zero, or all values are, and for integers."""
    max_abs_error: float
    agreement: float | None = None
    """Integers: share of equal values."""


class Check(_Frozen):
    """An artifact held against the model that it came from, on real or generated inputs.

    The errors and ``sqnr_db`` are against that model; ``closeness`` tells the other ones too.
    """

    samples: int
    inputs: Literal["evaluation data", "random"]
    max_abs_error: float
    mean_abs_error: float
    sqnr_db: float | None
    """Signal to quantization noise of all outputs, in dB; absent where the error is zero."""
    top1_agreement: float | None
    """Share of samples with the same largest output; absent where the output has no class axis."""
    int8_ops: int
    float_ops: int
    """Compute operators of the artifact as the runtime runs it, by the type they compute in."""
    op_counts: dict[str, int]
    closeness: tuple[Closeness, ...] = ()
    """By reference, output and part; absent in reports of earlier versions."""

    def least_db(self, reference: Reference) -> float | None:
        """The worst signal to noise of any output or part; ``None``: nothing differs, or there is
        no such comparison."""
        found = [c.sqnr_db for c in self.closeness if c.reference == reference]
        return min((ratio for ratio in found if ratio is not None), default=None)

    def compared(self, reference: Reference) -> bool:
        """Whether there is such a comparison."""
        return any(c.reference == reference for c in self.closeness)


class Artifact(_Frozen):
    """One file for the device."""

    format: Format
    file: str
    """Relative to the result's folder."""
    sha256: str
    bytes: int
    numerics: Numerics
    runtime: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    check: Check
    notes: tuple[str, ...] = ()


class Missing(_Frozen):
    """A file that was to be written and wasn't."""

    format: Format
    file: str
    numerics: Numerics
    reason: str
    """Why its converter refused the model, or in what the file differed from it."""


class StageReport(_Frozen):
    """What a stage did. ``figures`` are keyed by ``parameters``, ``macs``, ``score`` ..."""

    stage: str
    seconds: float
    figures: dict[str, Figure] = {}
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = {}
    artifacts: tuple[Artifact, ...] = ()
    missing: tuple[Missing, ...] = ()
    """Of an export: the other files that were to be written."""


class DeviceReport(_Frozen):
    """What was measured on the target's device, apart from what the machine of the run took."""

    machine: str
    figures: dict[str, dict[str, Figure]]
    """By file, as in ``RunReport.profile``."""
    not_measured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refused: str | None = None
    """Why the figures are no evidence for the target, where they aren't."""


class RunReport(_Frozen):
    """A whole run."""

    schema_version: Literal[1] = 1
    model: str
    target: str
    data: str | None
    metric: str | None
    """``accuracy`` with labels; without ``agreement with the dense model`` where the outputs are
    evidently classes, else ``fidelity to the dense model``; absent without data."""
    seed: int
    stages: tuple[StageReport, ...]
    """Those that made the result, in order; then what else took time, with ``seconds`` alone."""
    seconds: float | None = None
    """From the start to this report, which is the sum over ``stages``; what an interrupted run
    spent on them counts. Absent in reports of earlier versions."""
    artifacts: tuple[Artifact, ...]
    missing: tuple[Missing, ...] = ()
    """Files that were to be written and weren't; with any the run fails."""
    profile: dict[str, dict[str, Figure]] = {}
    """Figures of each profiled file (``dense.onnx``, ``model.tflite`` ...) on the machine named in
    their origins."""
    device: DeviceReport | None = None
    """Absent where no device was reached."""
    verdicts: tuple[Verdict, ...] = ()
    not_measured: tuple[str, ...] = ()
    """What this run could not measure, and why."""
    machine: str
    versions: dict[str, str]


class Manifest(_Frozen):
    """What stands beside the artifacts, for whoever ships or checks them."""

    schema_version: Literal[1] = 1
    run: str
    """Names the run: the hash of all that went into it, equal for equal inputs and options."""
    target: str
    files: dict[str, str]
    """sha256 by file name."""
    artifacts: tuple[Artifact, ...]
    missing: tuple[Missing, ...] = ()
    """Files of the target's formats that could not be made, so aren't here."""
    preprocessing: dict[str, Any] | None
    figures: dict[str, dict[str, Figure]]
    """By file name, each with its origin."""
    device: DeviceReport | None = None
    verdicts: tuple[Verdict, ...]
    versions: dict[str, str]
    health: Health | None = None
    """What each artifact answers to one batch; absent in manifests of earlier versions."""
    seal: str | None = None
    """``seal_of`` all the rest: shows an edit, and is no signature; absent in manifests of earlier
    versions."""
