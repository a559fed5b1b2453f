# SPDX-License-Identifier: Apache-2.0
"""Bringing a result to devices: whole versions, one link, checked there, undone where it fails."""
