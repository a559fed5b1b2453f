# SPDX-License-Identifier: Apache-2.0
"""What a method costs: operations as they are done here, and as sparse hardware would do them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from edgeprune.mask import Mask, Network
from edgeprune.profiler import memory

__all__ = ["Ledger"]

_BACKWARD = 2
"""Passes over the multiply-accumulates that a gradient costs: one for the inputs, one for the
weights; the convention of Evci et al. 2020 (RigL), appendix H."""
_SUMS = ("dense", "sparse", "steps", "samples", "seconds", "peak_bytes")


@dataclass
class Ledger:
    """Costs added up. An operation is a multiplication or an addition: two make a MAC.

    ``dense`` counts what this machine does, zeros included; ``sparse`` leaves out what has a zero
    weight for an operand, or a masked gradient for a result. Norms, activations and the optimizer
    aren't counted.
    """

    network: Network
    dense: float = 0.0
    """FLOPs."""
    sparse: float = 0.0
    """FLOPs."""
    steps: int = 0
    """Updates of the weights."""
    samples: int = 0
    """That those saw."""
    seconds: float = 0.0
    """Of clocks that have ended; ``state`` adds those of the one that runs."""
    peak_bytes: int | None = None
    """The most memory that the process held while a clock ran; absent where no system says it."""
    _since: float | None = field(default=None, init=False, repr=False, compare=False)
    """When the outermost clock that runs was started, as ``perf_counter`` says it."""

    def forward(self, samples: int, mask: Mask | None = None) -> None:
        """Count samples that were only looked at."""
        self.dense += 2.0 * samples * self.network.macs
        self.sparse += 2.0 * samples * self.kept_macs(mask)

    def gradient(
        self, samples: int, mask: Mask | None = None, *, dense_weights: bool = False
    ) -> None:
        """Count one forward and one backward pass.

        Args:
            samples: In the batch.
            mask: In force; ``None``: none.
            dense_weights: The gradients of masked weights are needed too, as growing does.
        """
        kept, whole = self.kept_macs(mask), self.network.macs
        self.dense += 2.0 * samples * (1 + _BACKWARD) * whole
        self.sparse += 2.0 * samples * (2 * kept + (whole if dense_weights else kept))

    def step(self, samples: int, mask: Mask | None = None, *, dense_weights: bool = False) -> None:
        """Count an update of the weights: a gradient, a step and its samples."""
        self.gradient(samples, mask, dense_weights=dense_weights)
        self.steps += 1
        self.samples += samples

    def kept_macs(self, mask: Mask | None) -> float:
        """Multiply-accumulates of one sample whose weight lives."""
        if mask is None:
            return float(self.network.macs)
        densities = mask.densities
        return self.network.fixed + sum(
            layer.macs * densities.get(layer.name, 1.0) for layer in self.network.layers
        )

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Add the seconds of what is done inside, and watch the memory.

        A clock inside another one adds nothing: the outer one counts these seconds already.
        """
        if self._since is not None:
            yield
            return
        memory.reset_peak()
        self._since = perf_counter()
        try:
            yield
        finally:
            self._read()
            self._since = None

    def relative(self, samples: int) -> tuple[float, float]:
        """``dense`` and ``sparse`` as multiples of one dense training on so many samples."""
        whole = 2.0 * samples * (1 + _BACKWARD) * self.network.macs
        return self.dense / whole, self.sparse / whole

    def state(self) -> dict[str, Any]:
        """The sums, for a checkpoint; those of a clock that runs are in them, up to now."""
        self._read()
        return {name: getattr(self, name) for name in _SUMS}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from such sums; a clock that runs counts from now on."""
        for name, value in state.items():
            setattr(self, name, value)
        if self._since is not None:
            self._since = perf_counter()

    def _read(self) -> None:
        """Bring the sums up to date with the clock, if one runs."""
        if self._since is None:
            return
        now = perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now
        peak = memory.read_status().get("VmHWM") if memory.available() else None
        if peak is not None:
            self.peak_bytes = max(peak, self.peak_bytes or 0)
