# SPDX-License-Identifier: Apache-2.0
"""Outputs for given inputs, so that what a file computes can be checked where it runs.

Runs on the device: standard library, numpy and one runtime, Python 3.8 or newer.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import OutputError
from edgeprune.profiler.inputs import job_inputs, real_inputs
from edgeprune.profiler.runtime import open_session

if TYPE_CHECKING:
    import numpy as np

__all__ = ["count_runs", "run_once", "write_npz"]


def run_once(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run all samples of the job's ``inputs`` and write ``outputs``, an ``.npz`` by output name.

    Raises:
        InputError: The file or its inputs can't be used, or ``outputs`` can't be written.
        DeviceError: The runtime failed.
    """
    session = open_session(Path(job["path"]), job["threads"])
    results = session.run(real_inputs(session.inputs, Path(job["inputs"]), whole=True))
    named = {spec.name: results[index] for index, spec in enumerate(session.outputs)}
    write_npz(Path(job["outputs"]), named)
    yield {
        "runtime": session.runtime,
        "outputs": [
            {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in named.items()
        ],
    }


def count_runs(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a file between marker system calls, for a counter outside of this process.

    Raises:
        InputError: The file or its inputs can't be used.
        DeviceError: The runtime failed.
    """
    from edgeprune.profiler.count import count

    session = open_session(Path(job["path"]), job["threads"])
    yield count(session, job_inputs(session.inputs, job), job["runs"])


def write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays of any names; a reader sees the whole file or none.

    Raises:
        OutputError: ``path`` can't be written.
    """
    from numpy.lib import format as npy

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        try:
            with zipfile.ZipFile(part, "w", allowZip64=True) as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                        npy.write_array(file, array, allow_pickle=False)
            part.replace(path)
        finally:
            if part.exists():
                part.unlink()
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}") from None
