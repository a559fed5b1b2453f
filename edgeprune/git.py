# SPDX-License-Identifier: Apache-2.0
"""What the ``git`` program tells of a repository; none of its hooks, filters or pagers runs."""

import re
import subprocess
from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.report.text import plain

__all__ = ["commit_of", "git"]

_OPTIONS = ("--no-pager", "--no-replace-objects", "--literal-pathspecs")
_SECONDS = 120.0
"""For one call of git; a clone without its blobs fetches them now."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git prints in ``folder``, with ``given`` on its standard input.

    Raises:
        InputError: It isn't installed, refuses, or takes too long.
    """
    command = ["git", *_OPTIONS, "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, check=False, timeout=_SECONDS
        )
    except FileNotFoundError:
        raise InputError("this is told by git, and there is no git on this machine") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{folder}: git {arguments[0]} took more than {_SECONDS:.0f} s") from None
    except ValueError:  # a zero byte, which no argument can hold
        raise InputError(f"{plain(str(folder))}: no name of a file or revision") from None
    if done.returncode:
        told = plain(done.stderr.decode("utf-8", "replace"))[:300]
        raise InputError(f"{folder}: git {arguments[0]}: {told or f'exit code {done.returncode}'}")
    return done.stdout


def commit_of(folder: Path, revision: str) -> str | None:
    """The whole name of the commit that ``revision`` names in the repository of ``folder``.

    Args:
        folder: A folder in the repository.
        revision: Whatever names a commit: ``main``, ``HEAD~3``, ``v1.0``.

    Returns:
        None where it names none.

    Raises:
        InputError: There is no git, or no repository.
    """
    try:
        told = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^0")
    except InputError:
        git(folder, "rev-parse", "--git-dir")  # says so itself where there is no repository
        return None
    found = told.decode("ascii", "replace").strip()
    return found if _COMMIT.fullmatch(found) else None
