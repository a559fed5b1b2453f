# SPDX-License-Identifier: Apache-2.0
"""The lock file over a repository's commits: how an artifact came to be what it is."""

from edgeprune.history.page import page
from edgeprune.history.revisions import History, Version, read_history
from edgeprune.history.series import Series, series

__all__ = ["History", "Series", "Version", "page", "read_history", "series"]
