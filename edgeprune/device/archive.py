# SPDX-License-Identifier: Apache-2.0
"""The agent as one file, which any Python from 3.8 on runs: ``python3 edgeprune-agent-....pyz``.

It is made from the installed package, so that the host and what it sends can't be of two versions.
"""

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

__all__ = ["build", "name"]

_PACKAGE = Path(__file__).parents[1]
_MAIN = "profiler/__main__.py"
_NEVER_CHANGES = (1980, 1, 1, 0, 0, 0)


@cache
def build() -> bytes:
    """Give the bytes of the archive, the same for the same code on every machine.

    It isn't compressed: a Python without zlib runs it, and no zlib's version changes its hash.
    """
    sources = [
        _PACKAGE / "__init__.py",
        _PACKAGE / "errors.py",
        *(_PACKAGE / "profiler").glob("*.py"),
    ]
    files = {f"edgeprune/{path.relative_to(_PACKAGE).as_posix()}": path for path in sources}
    files["__main__.py"] = _PACKAGE / _MAIN
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for inside in sorted(files):
            entry = zipfile.ZipInfo(inside, _NEVER_CHANGES)
            entry.create_system = 3  # Unix, wherever it is made
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[inside].read_bytes())
    return whole.getvalue()


def name() -> str:
    """Give the archive's file name, which has the start of its hash in it."""
    return f"edgeprune-agent-{hashlib.sha256(build()).hexdigest()[:12]}.pyz"
