# SPDX-License-Identifier: Apache-2.0
"""Measuring artifacts where they run.

``formats``, ``runtime``, ``inputs``, ``stats``, ``memory``, ``machine`` and ``child`` run on the
device: standard library, numpy and one runtime, Python 3.8 or newer. ``profile`` drives them from
the host and turns their numbers into figures with origins. This file imports nothing, so that the
child stays small.
"""
