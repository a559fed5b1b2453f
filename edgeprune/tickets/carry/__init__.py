# SPDX-License-Identifier: Apache-2.0
"""A ticket carried to another network: of other data, or of another depth."""
