# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import numpy as np

from edgeprune.channels import Branch, Groups
from edgeprune.prune.criteria import Scores


def drawn(groups: Groups, seed: int, branches: Sequence[Branch] = ()) -> Scores:
    """Scores by chance."""
    return np.random.default_rng(seed).random(groups.channels + len(branches))
