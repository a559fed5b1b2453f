# SPDX-License-Identifier: Apache-2.0
"""Measure artifacts in TensorFlow Lite Micro: the exact tensor arena, and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.device.tflm import Arena, Environment, examine, find
from edgeprune.device.tflm.reference import reference_outputs
from edgeprune.errors import DeviceError, InputError
from edgeprune.figure import Figure, measured
from edgeprune.measure.result import Conditions, Profile
from edgeprune.measure.sizes import size
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.inputs import random_inputs, real_inputs
from edgeprune.profiler.machine import describe
from edgeprune.profiler.runtime import Session, open_session
from edgeprune.progress import Progress, Silent

__all__ = ["SAMPLES", "Drift", "compare", "measure_tflm"]

Array = np.ndarray[Any, Any]
SAMPLES = 8
"""Inputs that each file is run on."""
_ROUNDING = 1e-4
"""Of the largest magnitude: sums of floats in another order are below 1e-6 apart."""
_ROUNDING_STEPS = 2
"""Seen is one: TensorFlow Lite Micro rounds the sums of a fully connected layer twice and LiteRT
once, so what lies at half a step (10.49998) may come out one step apart (11 and 10)."""
_NO_TIME = (
    "latency: TensorFlow Lite Micro was run on this machine, whose time says nothing of a "
    "microcontroller's, and it has no model of its cycles; time the board itself"
)
_NO_SCRATCH = (
    "the scratch buffers of kernels made for a chip (CMSIS-NN, ESP-NN) come on top of the arena: "
    "they were not measured, reference kernels were; leave room, and let the firmware print "
    "MicroInterpreter's arena_used_bytes() once"
)


@dataclass(frozen=True)
class Drift:
    """How far two runtimes' outputs are apart."""

    values: int
    """That were compared."""
    differ: int
    """That aren't equal bit for bit."""
    steps: float | None
    """Largest difference in quantization steps; ``None`` where an output has none."""
    relative: float
    """Largest difference over the largest magnitude of its output."""

    @property
    def wrong(self) -> bool:
        """Whether two runtimes with the same kernels can't be this far apart by rounding."""
        if self.steps is None:
            return self.relative > _ROUNDING
        return self.steps > _ROUNDING_STEPS

    def __str__(self) -> str:
        if not self.differ:
            return f"bit for bit ({self.values} values)"
        size = (
            f"{self.relative:.1g} of the largest magnitude"
            if self.steps is None
            else f"{self.steps:.0f} quantization step{'s' if self.steps != 1 else ''}"
        )
        return f"but for {self.differ} of {self.values} values, which differ by at most {size}"


def measure_tflm(
    files: Mapping[str, Path],
    conditions: Conditions,
    *,
    folder: Path,
    progress: Progress | None = None,
) -> Profile:
    """Find each .tflite file's arena, and hold its outputs against LiteRT's on this machine.

    A file that TensorFlow Lite Micro doesn't take is told in ``not_measured`` with its operator.

    Args:
        files: Artifacts by the name to report them under; of an .onnx only the size is given.
        conditions: Threads of LiteRT's default kernels, seed and inputs; the first sample of real
            ones is the first that is run, the others are random.
        folder: With the environment that ``device.tflm.set_up`` made.
        progress: Where to show the progress.

    Raises:
        DeviceError: The environment isn't there.
        InputError: A file or the inputs can't be used.
        MissingExtra: ai-edge-litert isn't installed.
    """
    environment = find(folder)
    if environment is None:
        raise DeviceError(
            f"{folder}: TensorFlow Lite Micro isn't set up there: edgeprune device add tflm"
        )
    found = _Found(f"{environment.name} (64 bits, reference kernels) on {describe()}")
    with (progress or Silent()).bar("measuring in TensorFlow Lite Micro", len(files)) as bar:
        for name, path in files.items():
            found.figures[name] = {"bytes": size(path)}
            if detect_format(path) == "tflite":
                session = open_session(path, conditions.threads)
                arrays = _samples(session, conditions)
                found.measure(environment, name, path, session, arrays)
            else:
                found.missing.append(f"{name}: arena: TensorFlow Lite Micro reads .tflite only")
            bar.advance()
    measured_any = any("arena" in figures for figures in found.figures.values())
    notes = (*found.notes, _NO_SCRATCH) if measured_any else tuple(found.notes)
    return Profile(found.figures, (*found.missing, _NO_TIME), notes, found.where)


class _Found:
    """What is known so far."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.when = datetime.now(UTC).isoformat(timespec="seconds")
        self.figures: dict[str, dict[str, Figure]] = {}
        self.missing: list[str] = []
        self.notes: list[str] = []

    def measure(
        self,
        environment: Environment,
        name: str,
        path: Path,
        session: Session,
        arrays: dict[str, Array],
    ) -> None:
        """Add one .tflite file's figures, or why there are none."""
        try:
            examined = examine(environment, path, arrays, name=f"{name}: arena")
        except (InputError, DeviceError) as error:
            self.missing.append(str(error))
            return
        self.figures[name]["arena"] = self._arena(examined.arena)
        steps = examined.steps
        exact = compare(examined.outputs, reference_outputs(path, arrays), steps)
        here = compare(examined.outputs, _run(session, arrays), steps)
        warning = "warning: " if exact.wrong else ""
        self.notes.append(
            f"{warning}{name}: outputs of TensorFlow Lite Micro equal those of LiteRT's reference "
            f"kernels {exact}, and those of its default kernels on this machine {here}"
        )

    def _arena(self, arena: Arena) -> Figure:
        how = (
            "smallest tensor arena (the memory of a microcontroller's interpreter) in which "
            f"TensorFlow Lite Micro loads and runs it, to 16 bytes; {arena.refused} B fail; "
            f"{arena.head} B of it hold activations, {arena.tail} B structures that are smaller "
            "where pointers have 32 bits, so the interval starts without them; scratch buffers "
            "of chip-specific kernels come on top"
        )
        return measured(
            arena.bytes,
            "B",
            how,
            where=self.where,
            when=self.when,
            runs=arena.loads,
            low=min(arena.head, arena.bytes),
            high=arena.bytes,
        )


def compare(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], steps: Mapping[str, float | None]
) -> Drift:
    """Hold outputs against others of the same names and shapes.

    Args:
        ours: By name.
        theirs: By name.
        steps: By name: the quantization step, in the outputs' own unit; of integers as they are
            stored it is 1, whatever is said here.
    """
    values = differ = 0
    most: float | None = 0.0
    relative = 0.0
    for name, mine in ours.items():
        one, other = mine.astype(np.float64), theirs[name].astype(np.float64)
        gap = np.abs(one - other)
        values += gap.size
        differ += int(np.count_nonzero(gap))
        largest = float(gap.max(initial=0.0))
        relative = max(relative, largest / (float(np.abs(other).max(initial=0.0)) or 1.0))
        step = steps[name] if mine.dtype.kind == "f" else 1.0
        most = None if most is None or step is None else max(most, float(round(largest / step)))
    return Drift(values, differ, most, relative)


def _samples(session: Session, conditions: Conditions) -> dict[str, Array]:
    """``SAMPLES`` samples of each input, with a sample axis in front."""
    specs = session.inputs
    sizes = dict(conditions.sizes)
    drawn = [random_inputs(specs, conditions.seed + k, sizes) for k in range(SAMPLES)]
    if conditions.inputs is not None:
        drawn[0] = real_inputs(specs, conditions.inputs)
    return {spec.name: np.stack([sample[k] for sample in drawn]) for k, spec in enumerate(specs)}


def _run(session: Session, arrays: Mapping[str, Array]) -> dict[str, Array]:
    feeds = [arrays[spec.name] for spec in session.inputs]
    made = [session.run([array[k] for array in feeds]) for k in range(len(feeds[0]))]
    columns = zip(*made, strict=True)
    return {spec.name: np.stack(c) for spec, c in zip(session.outputs, columns, strict=True)}
