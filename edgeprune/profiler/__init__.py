# SPDX-License-Identifier: Apache-2.0
"""The agent: what runs on the device.

Standard library, numpy and one runtime, Python 3.8 or newer. ``edgeprune.measure`` drives it and
turns its numbers into figures with origins. This file imports nothing, so that a measuring process
stays small.
"""
