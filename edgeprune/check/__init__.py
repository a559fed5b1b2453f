# SPDX-License-Identifier: Apache-2.0
"""The gate itself: what a folder, a file or a project has, judged by budgets and a baseline.

    cases = gather(Request((Path("out"),)), Path.cwd(), project=None, lock=None)
    report = check(cases, Path.cwd(), Rules())

Nothing here needs torch or a runtime, unless it measures.
"""

from edgeprune.check.gather import Request, gather
from edgeprune.check.run import Rules, check

__all__ = ["Request", "Rules", "check", "gather"]
