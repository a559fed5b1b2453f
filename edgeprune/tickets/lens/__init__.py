# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel of a network and of its tickets: computed, read and drawn."""
