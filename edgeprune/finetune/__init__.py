# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on labels, by distillation from the dense model, or both."""

from edgeprune.finetune.loop import Step, train
from edgeprune.finetune.optimise import cosine_with_warmup, make_optimizer
from edgeprune.finetune.stage import finetune
from edgeprune.model.state import read_state, with_state, write_state

__all__ = [
    "Step",
    "cosine_with_warmup",
    "finetune",
    "make_optimizer",
    "read_state",
    "train",
    "with_state",
    "write_state",
]
