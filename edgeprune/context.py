# SPDX-License-Identifier: Apache-2.0
"""What a stage may use besides its model and options."""

from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.data import Data
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.progress import Progress, Silent
from edgeprune.target import Target

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """The surroundings of a run; the same for all its stages but for ``folder``."""

    target: Target
    folder: Path
    """The stage's own, for checkpoints and files; emptied by nobody but the pipeline."""
    data: Data | None = None
    dense: Model | None = None
    """The model before any stage: teacher and yardstick."""
    seed: int = 0
    threads: int = 1
    progress: Progress = field(default_factory=Silent)
    mask: Mask | None = None
    """What stays zero while the model is trained."""
