# SPDX-License-Identifier: Apache-2.0
"""A fine-tuning run in a process of its own: ``child.py FOLDER RESULT CHECKPOINT_SECONDS PAUSE``.

It prints a line before it starts and after each step. The saved result is the trained state.
"""

import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from edgeprune.finetune import finetune, run
from edgeprune.recipe import FinetuneOptions
from tests.unit.finetune.toy import cnn, context, data


class Printing:
    """Tells the parent of each step, and gives it time to kill."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.said = []

    @contextmanager
    def bar(self, title, total):
        yield self

    def say(self, text):
        self.said.append(text)

    def advance(self, steps=1, **figures):
        print(steps, flush=True)
        time.sleep(self.pause)


def main(folder: str, result: str, seconds: str, pause: str) -> None:
    torch.set_num_threads(1)
    run.CHECKPOINT_SECONDS = float(seconds)
    options = FinetuneOptions(epochs=3, batch_size=16, learning_rate=0.05, patience=2)
    progress = Printing(float(pause))
    surroundings = context(Path(folder), data=data(), dense=cnn(1, width=8), progress=progress)
    new, report = finetune(cnn(), options, surroundings)
    epochs = report.details["epochs"]
    torch.save({"state": dict(new.program.state_dict), "epochs": epochs}, result)
    print("\n".join(progress.said))


if __name__ == "__main__":
    main(*sys.argv[1:])
