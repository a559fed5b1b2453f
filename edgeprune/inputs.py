# SPDX-License-Identifier: Apache-2.0
"""From what the user named to what a run works on: data, model, judge."""

from __future__ import annotations

from edgeprune.context import Context
from edgeprune.data import Data, open_data
from edgeprune.evaluate import Judge
from edgeprune.job import DataSource, Source
from edgeprune.model import Model, load, runner
from edgeprune.profiler.machine import describe

__all__ = ["load_model", "make_judge", "open_source"]


def open_source(source: DataSource | None, seed: int) -> Data | None:
    """Open the data that the user named, if any.

    Raises:
        DataError: It can't be used.
    """
    if source is None:
        return None
    return open_data(source.name, seed=seed, path=source.path, limit=source.limit)


def load_model(source: Source, data: Data | None) -> Model:
    """Load and capture a model; the data's samples tell its input shapes where nothing else does.

    Raises:
        ModelError: It can't be read or captured.
    """
    return load(
        source.path,
        arch=source.arch,
        input_shapes=source.input_shapes,
        example=None if data is None else data.example(),
        trust_pickle=source.trust_pickle,
    )


def make_judge(dense: Model, context: Context) -> Judge | None:
    """What holds models against ``dense`` on the evaluation data; ``None`` without data."""
    if context.data is None:
        return None
    run = runner(dense, context.threads)
    return Judge(context.data, run, where=describe(), progress=context.progress)
