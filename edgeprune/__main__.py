# SPDX-License-Identifier: Apache-2.0
"""``python -m edgeprune``: the same as the ``edgeprune`` command."""

import sys

from edgeprune.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
