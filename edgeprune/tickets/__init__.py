# SPDX-License-Identifier: Apache-2.0
"""Sparse training: finding tickets, training them, carrying them over, and looking at them."""
