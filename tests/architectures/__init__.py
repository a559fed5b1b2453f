# SPDX-License-Identifier: Apache-2.0
"""The test set: small networks of every family that edgeprune says it prunes."""

from tests.architectures.architecture import Architecture, Built
from tests.architectures.by_hand_cnn import CLASSIFIERS
from tests.architectures.by_hand_dense import DENSE
from tests.architectures.by_hand_other import OTHERS
from tests.architectures.pretrained_families import FAMILIES

__all__ = ["ARCHITECTURES", "Architecture", "Built"]

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry for entry in (*FAMILIES, *CLASSIFIERS, *DENSE, *OTHERS)
}
