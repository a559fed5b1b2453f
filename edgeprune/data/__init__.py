# SPDX-License-Identifier: Apache-2.0
"""With what: training, held-out, calibration and evaluation batches from a spec or a path."""

from edgeprune.data.batches import Batch, Data
from edgeprune.data.sources import open_data
from edgeprune.data.spec import Augment, DataSpec, find_spec, list_specs
from edgeprune.data.tree import checksum

__all__ = [
    "Augment",
    "Batch",
    "Data",
    "DataSpec",
    "checksum",
    "find_spec",
    "list_specs",
    "open_data",
]
