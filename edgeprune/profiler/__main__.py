# SPDX-License-Identifier: Apache-2.0
"""``python3 -m edgeprune.profiler`` and ``python3 edgeprune-agent.pyz``: see ``agent``.

Every Python can read this file, so that one that is too old gets told so.
"""

import sys

if sys.version_info < (3, 8):  # noqa: UP036 - what the project needs is for the host, this isn't
    print(
        '{"schema": 1, "agent": null, "task": null, "exit_code": 2, "error": "Python '
        + ".".join(map(str, sys.version_info[:2]))
        + ' is too old for the agent: it needs 3.8 or newer; name another one for this device"}'
    )
    sys.exit(2)

from edgeprune.profiler.agent import main

if __name__ == "__main__":
    sys.exit(main())
