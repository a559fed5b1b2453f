# SPDX-License-Identifier: Apache-2.0
"""What the outputs of a model are: what they are trained on, and by what they are judged.

One file a kind of output, each a ``Kind``; ``reading`` tells which output is which.
"""

from edgeprune.tasks.classes import Classes
from edgeprune.tasks.endings import Ending, endings, logits
from edgeprune.tasks.kind import ACCURACY, AGREEMENT, FIDELITY, Arrays, Kind, Metric, Runner
from edgeprune.tasks.probabilities import Probabilities
from edgeprune.tasks.reading import Task, read
from edgeprune.tasks.values import Values

__all__ = [
    "ACCURACY",
    "AGREEMENT",
    "FIDELITY",
    "Arrays",
    "Classes",
    "Ending",
    "Kind",
    "Metric",
    "Probabilities",
    "Runner",
    "Task",
    "Values",
    "endings",
    "logits",
    "read",
]
