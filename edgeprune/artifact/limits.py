# SPDX-License-Identifier: Apache-2.0
"""How much of a file is believed. One table: each limit with its reason.

A file comes from a pull request, so all that it says of itself is a claim. The limits are far above
what any model for a small device has, and low enough that the worst file costs seconds and a few
hundred megabytes. They count work, not time: the same file is refused on every machine.
"""

from __future__ import annotations

__all__ = [
    "CALLS",
    "DIMENSION",
    "ELEMENTS",
    "FIELDS",
    "FILE",
    "LISTED",
    "NESTING",
    "OPERATORS",
    "PLANNING",
    "RANK",
    "TENSORS",
    "TEXT",
    "TEXTS",
    "VALUES",
    "WHOLE",
]

FILE = 2**31 - 1
"""Bytes of a model file. Protobuf and flatbuffers end here, offsets being signed 32-bit; what
is larger keeps its weights in files beside it, which aren't read."""

WHOLE = 2**24
"""Bytes up to which a file is read as a whole; of a larger one only the parts that are needed."""

FIELDS = 2_000_000
"""Protobuf fields, or flatbuffer tables and vector elements, looked at: some seconds of work. A
network of 10 000 operators has about 300 000."""

OPERATORS = 50_000
"""Operators of a file, all sub-graphs together; the largest language models have about 20 000."""

TENSORS = 200_000
"""Tensors of a file: four for each operator."""

CALLS = 100_000
"""Operators walked, those of a function once for each call (functions that call each other twice
grow as 2^n); eight inputs cost as much as an operator."""

NESTING = 16
"""Sub-graphs inside sub-graphs, functions inside functions; each level is a level of recursion."""

TEXT = 2**16
"""Bytes of one name. Exporters write paths of modules: hundreds."""

TEXTS = 2**26
"""Bytes of all names together, which are kept in memory."""

RANK = 32
"""Dimensions of a tensor. Models use up to 8."""

DIMENSION = 2**40
"""Size of one dimension: beyond any memory."""

ELEMENTS = 2**60
"""Elements of one tensor: products of two stay exact, and sums of them fit a float."""

VALUES = 128
"""Elements of a constant that is followed for its values: shapes, axes, scales of a resize, and
two paddings for each of ``RANK`` dimensions."""

LISTED = 4096
"""Elements of an attribute that are kept; the long ones (trees, vocabularies) give no shape."""

PLANNING = 5_000_000
"""Pairs of tensors compared for the plan of the memory; above it there is no estimate."""
