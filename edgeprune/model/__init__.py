# SPDX-License-Identifier: Apache-2.0
"""The carrier and its doors: load any format, capture, train/eval mode, run, save."""

from edgeprune.model.capture import capture, recapture
from edgeprune.model.carrier import Event, Input, Model, Output
from edgeprune.model.finite import require_finite, watched
from edgeprune.model.load import Loaded, load
from edgeprune.model.mode import set_training
from edgeprune.model.rebuild import rebuild
from edgeprune.model.run import parameters, runner, state_bytes
from edgeprune.model.shapes import InputShape, Wanted, parse_shape
from edgeprune.model.store import read, save

__all__ = [
    "Event",
    "Input",
    "InputShape",
    "Loaded",
    "Model",
    "Output",
    "Wanted",
    "capture",
    "load",
    "parameters",
    "parse_shape",
    "read",
    "rebuild",
    "recapture",
    "require_finite",
    "runner",
    "save",
    "set_training",
    "state_bytes",
    "watched",
]
