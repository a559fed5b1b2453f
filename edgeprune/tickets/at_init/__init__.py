# SPDX-License-Identifier: Apache-2.0
"""Masks that are chosen before any training: prune first, train then."""
