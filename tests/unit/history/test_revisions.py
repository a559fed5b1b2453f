# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.history import History, read_history, revisions
from tests.unit.history.locks import NAME, Repository, accepted, lock


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "team's work é")


def sizes(found: History) -> list[float]:
    """Of the one artifact, from the oldest to the newest."""
    return [
        next(iter(version.lock.models["classifier"]["rpi4"].values())).figures["bytes"].value
        for version in found.versions
    ]


def test_versions_come_from_the_oldest_to_the_newest(repository: Repository) -> None:
    commits = [repository.commit(lock(size), message=f"size {size}") for size in (10, 30, 20)]
    repository.commit("x", "other.txt")
    found = read_history(repository.folder / NAME)
    assert sizes(found) == [10, 30, 20]
    assert [version.commit for version in found.versions] == commits
    assert found.versions[0].subject == "size 10"
    assert found.versions[0].when.startswith("2026-01-0")
    assert found.notes == ()


def test_a_rename_is_followed_and_so_is_a_file_that_is_gone(repository: Repository) -> None:
    many = {f"model{i}.onnx": accepted(10) for i in range(9)}
    repository.commit(lock(**many), "old/name.json")
    (repository.folder / "a b").mkdir()
    repository.git("mv", "old/name.json", "a b/--näme*.json")
    repository.keep("moved")
    moved = repository.folder / "a b" / "--näme*.json"
    found = read_history(moved)
    assert [version.path for version in found.versions] == ["old/name.json", "a b/--näme*.json"]
    moved.unlink()
    repository.keep("removed")
    moved.parent.mkdir(exist_ok=True)
    found = read_history(moved)
    assert len(found.versions) == 2
    assert len(found.notes) == 1
    assert "a b/--näme*.json was removed" in found.notes[0]


def test_only_what_the_branch_itself_had_counts(repository: Repository) -> None:
    repository.commit(lock(10))
    repository.git("checkout", "-qb", "side")
    repository.commit(lock(99))
    repository.commit(lock(12))
    repository.git("checkout", "-q", "main")
    repository.commit("x", "other.txt")
    repository.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    repository.commit(lock(13))
    found = read_history(repository.folder / NAME)
    assert sizes(found) == [10, 12, 13]
    assert found.versions[1].subject == "merged"
    assert sizes(read_history(repository.folder / NAME, rev="side")) == [10, 99, 12]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is no lock file"),
        ("{", "is no lock file"),
        ("[" * 100_000, "is no lock file"),
        ('{"schema_version": 3}', "schema_version"),
        (b"\xff\xfe\x00", "is no lock file"),
        (" " * (revisions._MOST_BYTES + 1), "more than any lock file"),
    ],
    ids=["empty", "cut off", "deep", "another version", "no text", "huge"],
)
def test_a_broken_version_is_told_and_skipped(
    repository: Repository, content: str | bytes, told: str
) -> None:
    repository.commit(lock(10))
    broken = repository.commit(content)
    repository.commit(lock(20))
    found = read_history(repository.folder / NAME)
    assert sizes(found) == [10, 20]
    assert len(found.notes) == 1
    assert found.notes[0].startswith(broken[:10])
    assert told in found.notes[0]
    assert found.notes[0].endswith("; skipped")
    assert "\n" not in found.notes[0]


def test_a_link_is_no_version(repository: Repository) -> None:
    repository.commit(lock(10))
    file = repository.folder / NAME
    file.unlink()
    file.symlink_to("/etc/passwd")
    repository.keep("a link")
    file.unlink()
    repository.commit(lock(20))
    found = read_history(file)
    assert sizes(found) == [10, 20]
    assert any("no regular file" in note for note in found.notes)


def test_all_together_are_bounded(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (10, 20, 30):
        repository.commit(lock(size))
    one = (repository.folder / NAME).stat().st_size
    monkeypatch.setattr(revisions, "_MOST_IN_ALL", 2 * one)
    found = read_history(repository.folder / NAME)
    assert sizes(found) == [20, 30]
    assert "all versions together" in found.notes[0]


def test_the_newest_are_read_where_there_are_more(repository: Repository) -> None:
    for size in (10, 20, 30):
        repository.commit(lock(size))
    found = read_history(repository.folder / NAME, most=2)
    assert sizes(found) == [20, 30]
    assert "only the newest 2" in found.notes[0]
    assert read_history(repository.folder / NAME, most=3).notes == ()


def test_a_shallow_clone_says_so(repository: Repository, tmp_path: Path) -> None:
    for size in (10, 20):
        repository.commit(lock(size))
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--depth", "1", f"file://{repository.folder}", str(clone))
    found = read_history(clone / NAME)
    assert sizes(found) == [20]
    assert "shallow" in found.notes[0]


def test_a_hostile_message_changes_nothing(repository: Repository) -> None:
    message = "\x01:100644 100644 0000 1111 M\x1b[31m <script>"
    repository.commit(lock(10), message=message)
    repository.commit(lock(20), message=":000000 100644 00 11 A")
    found = read_history(repository.folder / NAME)
    assert sizes(found) == [10, 20]
    assert found.versions[0].subject.isprintable()


def test_the_repository_runs_nothing(repository: Repository, tmp_path: Path) -> None:
    """Not its pager, diff programs or filters, nor its check of signatures."""
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    repository.commit(f"{NAME} diff=trap filter=trap\n", ".gitattributes")
    repository.commit(lock(10))
    repository.commit(lock(20))
    for key in ("core.pager", "diff.external", "diff.trap.textconv", "diff.trap.command",
                "filter.trap.smudge", "gpg.program", "core.fsmonitor"):  # fmt: skip
        repository.git("config", key, str(trap))
    repository.git("config", "log.showSignature", "true")
    assert sizes(read_history(repository.folder / NAME)) == [10, 20]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("rev", "told"),
    [
        ("nowhere", "no such commit"),
        ("--output=x", "no such commit"),
        ("main..main", "no such commit"),
        ("", "no such commit"),
        ("a\0b", "no such commit"),
    ],
)
def test_a_revision_that_is_none_is_refused(repository: Repository, rev: str, told: str) -> None:
    repository.commit(lock(10))
    with pytest.raises(InputError, match=told):
        read_history(repository.folder / NAME, rev=rev)


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        read_history(tmp_path / "none" / NAME)
    with pytest.raises(InputError, match=r"(?i)not a git repository"):
        read_history(tmp_path / NAME)
    repository = Repository(tmp_path / "repository")
    with pytest.raises(InputError, match="no such commit"):  # not even a first one
        read_history(repository.folder / NAME)
    repository.commit("x", "other.txt")
    with pytest.raises(InputError, match=r"no commit up to HEAD has it.*baseline accept"):
        read_history(repository.folder / NAME)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(InputError, match="no git on this machine"):
        read_history(repository.folder / NAME)
