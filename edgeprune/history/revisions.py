# SPDX-License-Identifier: Apache-2.0
"""Every version of the lock file that git has, told by the ``git`` program.

Commits come along the first parents, so that each is a state that the branch itself was in, and
renames of the file are followed. Only blobs are read; nothing is checked out, and no hook, filter
or pager of the repository runs.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import ConfigError, InputError
from edgeprune.gate.lock import Lock, parse_lock
from edgeprune.git import commit_of, git
from edgeprune.report.text import plain

__all__ = ["MOST_COMMITS", "History", "Version", "read_history"]

MOST_COMMITS = 2000
_MOST_BYTES, _MOST_IN_ALL = 16 * 2**20, 256 * 2**20
"""Of one version, and of all: 200 artifacts with 100 layers each take about 4 MB."""
_SHORT = 10
_RAW = re.compile(rb"\n?:\d+ (\d+) [0-9a-f]+ ([0-9a-f]+) ([A-Z])\d*")
_FILE = (b"100644", b"100755")


@dataclass(frozen=True)
class Version:
    """The lock file as one commit had it."""

    commit: str
    """Its whole name."""
    when: str
    """Of the commit; ISO 8601."""
    subject: str
    """First line of the commit's message."""
    path: str
    """Of the file, from the repository's top."""
    lock: Lock


@dataclass(frozen=True)
class History:
    """What was found, from the oldest to the newest."""

    versions: tuple[Version, ...]
    notes: tuple[str, ...]
    """What was skipped, or is not there, and why."""


@dataclass(frozen=True)
class _Change:
    commit: str
    when: str
    subject: str
    path: str
    mode: bytes
    blob: str
    status: str

    @property
    def name(self) -> str:
        return f"{self.commit[:_SHORT]} ({self.when[:10]})"


def read_history(lock: Path, *, rev: str = "HEAD", most: int = 100) -> History:
    """Read the newest ``most`` versions of ``lock`` up to ``rev``.

    A version that is no lock file, or too large, is skipped and told in the notes. The file itself
    need not be there any more; its folder must.

    Raises:
        InputError: There is no git, no repository, no such revision, or no version of the file.
    """
    folder = lock.parent
    if not folder.is_dir():
        raise InputError(f"{lock}: there is no folder {folder}")
    commit = commit_of(folder, rev)
    if commit is None:
        raise InputError(
            f"revision {plain(rev)!r}: there is no such commit in the repository of {folder}"
        )
    changes = _changes(_log(folder, commit, lock.name, most + 1))
    if not changes:
        raise InputError(
            f"{lock}: no commit up to {plain(rev)} has it; `edgeprune baseline accept` writes it, "
            "then commit it"
        )
    notes = _limits(folder, changes, most)
    kept = changes[:most]
    contents = _contents(folder, [each for each in kept if _readable(each)])
    versions: list[Version] = []
    for change in reversed(kept):
        found = contents.get(change.blob, "is no regular file there")
        if change.status == "D":
            notes.append(f"{change.name}: {change.path} was removed")
            continue
        version = found if isinstance(found, str) else _version(change, found)
        if isinstance(version, str):
            notes.append(f"{change.name}: {version}; skipped")
        else:
            versions.append(version)
    return History(tuple(versions), tuple(notes))


def _version(change: _Change, content: bytes) -> Version | str:
    try:
        lock = parse_lock(content, change.path)
    except ConfigError as error:
        return plain(str(error)).partition("; `edgeprune")[0]
    return Version(change.commit, change.when, change.subject, change.path, lock)


def _readable(change: _Change) -> bool:
    return change.status != "D" and change.mode in _FILE


def _log(folder: Path, commit: str, name: str, most: int) -> bytes:
    return git(
        folder,
        *("log", "--follow", "--first-parent", "-m", "--raw", "-z", "--no-abbrev"),
        *("--no-show-signature", "--no-ext-diff", "--no-textconv", "--no-color", "--no-notes"),
        *("--encoding=UTF-8", "--format=%x01%H%x00%cI%x00%s", f"--max-count={most}"),
        *(commit, "--", name),
    )


def _changes(log: bytes) -> list[_Change]:
    """The log's records, from the newest to the oldest: three fields of the commit, one of the
    change, and the file's name, or its old one and its new one."""
    fields = log.split(b"\0")
    changes: list[_Change] = []
    at = 0
    while at + 4 < len(fields):
        raw = _RAW.fullmatch(fields[at + 3])
        if raw is None or not fields[at].startswith((b"\1", b"\n\1")):
            at += 1  # the end, or a merge that changed nothing against its first parent
            continue
        commit, when, subject = (_text(field) for field in fields[at : at + 3])
        mode, blob, status = raw[1], raw[2].decode("ascii"), raw[3].decode("ascii")
        at += 5 + (status in "RC")
        changes.append(_Change(commit, when, subject, _text(fields[at - 1]), mode, blob, status))
    return changes


def _text(value: bytes) -> str:
    return plain(value.decode("utf-8", "replace"))


def _limits(folder: Path, changes: Sequence[_Change], most: int) -> list[str]:
    """What of the history isn't there to be read."""
    notes = []
    if len(changes) > most:
        notes.append(f"only the newest {most} versions are read; --limit reads more")
    if git(folder, "rev-parse", "--is-shallow-repository").strip() == b"true":
        notes.append(
            "the clone is shallow, so older versions are missing: git fetch --unshallow "
            "(in GitHub's checkout action: fetch-depth: 0)"
        )
    return notes


def _contents(folder: Path, changes: Sequence[_Change]) -> dict[str, bytes | str]:
    """The content of each blob, or why it isn't read."""
    blobs = list(dict.fromkeys(change.blob for change in changes))
    if not blobs:
        return {}
    asked = "".join(f"{blob}\n" for blob in blobs).encode("ascii")
    sizes = git(folder, "cat-file", "--batch-check", given=asked).decode("ascii").splitlines()
    found: dict[str, bytes | str] = {}
    wanted, total = [], 0
    for blob, line in zip(blobs, sizes, strict=True):
        _, kind, *rest = line.split(" ")
        if kind != "blob" or not rest:
            found[blob] = "isn't in this repository"
        elif int(rest[0]) > _MOST_BYTES:
            found[blob] = f"is {int(rest[0]):,} B, more than any lock file"
        elif total + int(rest[0]) > _MOST_IN_ALL:
            found[blob] = f"all versions together are more than {_MOST_IN_ALL:,} B"
        else:
            wanted.append(blob)
            total += int(rest[0])
    found.update(_blobs(folder, wanted))
    return found


def _blobs(folder: Path, blobs: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    asked = "".join(f"{blob}\n" for blob in blobs).encode("ascii")
    answer = git(folder, "cat-file", "--batch", given=asked)
    at = 0
    for blob in blobs:
        end = answer.index(b"\n", at)
        size = int(answer[at:end].split(b" ")[2])
        yield blob, answer[end + 1 : end + 1 + size]
        at = end + size + 2
