# SPDX-License-Identifier: Apache-2.0
"""``python -m edgeprune``: the same as the ``edgeprune`` command."""

from edgeprune.cli.main import program

if __name__ == "__main__":
    program()
