# SPDX-License-Identifier: Apache-2.0
"""What measuring gives, whatever the device."""

from dataclasses import dataclass

from edgeprune.figure import Figure

__all__ = ["Profile"]


@dataclass(frozen=True)
class Profile:
    """Figures of each file, and what could not be had."""

    figures: dict[str, dict[str, Figure]]
    """By file, then ``bytes``, ``memory_peak``, ``memory_model``, ``arena`` (B); ``load``,
    ``first_run``, ``latency_p50``, ``latency_p90``, ``latency_p99`` (s); ``latency_ratio`` (x): the
    file's latency over that of the dense file of its format, so 0.5 is twice as fast; ``energy``
    (J an inference); ``instructions`` (an inference)."""
    not_measured: tuple[str, ...]
    notes: tuple[str, ...]
    machine: str
    """What it was measured on."""
