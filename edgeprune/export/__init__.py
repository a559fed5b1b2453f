# SPDX-License-Identifier: Apache-2.0
"""From a model to the files that a device runs, each checked against the model."""

from edgeprune.export.export import export
from edgeprune.export.feed import artifact_runner

__all__ = ["artifact_runner", "export"]
