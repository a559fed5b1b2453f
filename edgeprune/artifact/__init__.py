# SPDX-License-Identifier: Apache-2.0
"""Model files as data: ONNX and TFLite, whoever made them, read without a runtime.

    artifact = read(Path("model.onnx"))
    print(figures(artifact))

For files that nobody vouches for: every length is held against the file, work and memory have
limits (``limits.py``), and whatever is wrong is an ``InputError`` of one line.
"""

from edgeprune.artifact.counts import Counts, Layer, Uncounted
from edgeprune.artifact.graph import Artifact
from edgeprune.artifact.reading import Contents, contents, figures, read
from edgeprune.artifact.source import digest

__all__ = [
    "Artifact",
    "Contents",
    "Counts",
    "Layer",
    "Uncounted",
    "contents",
    "digest",
    "figures",
    "read",
]
