# SPDX-License-Identifier: Apache-2.0
"""What measuring gives, whatever the device."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.figure import Figure

__all__ = ["Conditions", "Profile"]


@dataclass(frozen=True)
class Conditions:
    """Under which artifacts are run, whatever the device."""

    threads: int = 1
    """Compute threads of the runtime."""
    seed: int = 0
    """Of the order of rounds and of random inputs."""
    inputs: Path | None = None
    """Real inputs, an ``.npz``; ``None``: random ones."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of dimensions of random inputs that a file leaves open, by their names."""

    memory_limit: float | None = None
    """GiB that a measuring process may take; ``None``: the agent's own limit."""

    @property
    def kind(self) -> str:
        """``random`` or ``real`` inputs, for the origin of a figure."""
        return "random" if self.inputs is None else "real"

    def options(self, **others: Any) -> dict[str, Any]:
        """These and ``others`` as options of the agent."""
        given: dict[str, Any] = {"threads": self.threads, "seed": self.seed}
        if self.inputs is not None:
            given["inputs"] = self.inputs
        elif self.sizes:
            given["sizes"] = json.dumps(dict(self.sizes))
        if self.memory_limit is not None:
            given["memory_limit"] = self.memory_limit
        return given | others


@dataclass(frozen=True)
class Profile:
    """Figures of each file, and what could not be had."""

    figures: dict[str, dict[str, Figure]]
    """By file, then ``bytes``, ``memory_peak``, ``memory_model``, ``memory_wasm``, ``arena`` (B);
    ``load``, ``first_run``, ``latency_p50``, ``latency_p90``, ``latency_p99``, of a phone also
    ``latency_mean``, ``latency_p95`` (s); ``latency_ratio`` (x): the file's latency over that of
    the dense file of its format, so 0.5 is twice as fast; ``energy`` (J an inference);
    ``instructions`` (an inference); ``drift``: largest difference from this machine's outputs."""
    not_measured: tuple[str, ...]
    notes: tuple[str, ...]
    machine: str
    """What it was measured on."""
    refused: str | None = None
    """Why this is no evidence for the target, where it isn't."""
