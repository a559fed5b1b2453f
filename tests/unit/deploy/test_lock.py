# SPDX-License-Identifier: Apache-2.0
"""One client at a time."""

import os
import threading
import time
from pathlib import Path

import pytest

from edgeprune.deploy import lock as locks
from edgeprune.deploy.board import LockLost
from edgeprune.deploy.lock import STALE, age, held, is_dead, owner
from edgeprune.errors import DeviceError
from tests.unit.deploy.boards import ask, board, bring, current, is_tidy, release

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def text(seconds_ago: float, machine: str = "elsewhere", process: int = 1, start: int = 2) -> str:
    return f"edgeprune-0a-{int(time.time() - seconds_ago)}-{machine}.{process}.{start}-desk"


def hold(folder: Path, lock: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "lock").symlink_to(lock)


def test_a_second_client_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    folder, inside, refused = tmp_path / "board", threading.Event(), threading.Event()

    def slow(remote: str, inputs: Path, outputs: Path) -> str:
        inside.set()
        assert refused.wait(60)
        return ask(remote, inputs, outputs)

    first = threading.Thread(
        target=bring, args=(folder, release(tmp_path, A)), kwargs={"check": slow}
    )
    first.start()
    assert inside.wait(60)
    with pytest.raises(DeviceError, match=r"is at work there \(renewed [0-9]+ s ago\); wait"):
        bring(folder, release(tmp_path, B))
    refused.set()
    first.join(60)
    assert current(folder) == A
    assert is_tidy(folder)


def test_many_at_once_get_it_one_after_the_other(tmp_path: Path) -> None:
    inside = most = done = 0
    guard = threading.Lock()

    def client() -> None:
        nonlocal inside, most, done
        for _ in range(200):
            try:
                with held(board(tmp_path)):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0.02)
                    with guard:
                        inside -= 1
                        done += 1
                return
            except DeviceError:
                time.sleep(0.01)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    assert (most, done) == (1, 4)
    assert not any(tmp_path.iterdir())


def test_a_lock_left_behind_is_broken_in_time(tmp_path: Path) -> None:
    hold(tmp_path / "board", text(STALE - 30))
    with pytest.raises(DeviceError, match=r"desk is at work there.*--force-unlock"):
        bring(tmp_path / "board", release(tmp_path, A))
    (tmp_path / "board" / "lock").unlink()
    hold(tmp_path / "board", text(STALE + 5))
    bring(tmp_path / "board", release(tmp_path, A))
    assert is_tidy(tmp_path / "board")


@pytest.mark.parametrize(
    "lock", [text(1), "somebody else's", text(-1e6)], ids=["new", "other", "ahead"]
)
def test_any_lock_is_broken_by_force(tmp_path: Path, lock: str) -> None:
    folder = tmp_path / "board"
    hold(folder, lock)
    (folder / "lock.changing").mkdir()
    with pytest.raises(DeviceError, match="is at work there"):
        bring(folder, release(tmp_path, A))
    bring(folder, release(tmp_path, A), force_unlock=True)
    assert current(folder) == A
    assert is_tidy(folder)


def test_of_this_machine_a_dead_process_is_told_from_a_living_one(tmp_path: Path) -> None:
    with held(board(tmp_path)):
        own = (tmp_path / "lock").readlink().name
    assert not is_dead(own)
    assert is_dead(own.replace(f".{os.getpid()}.", f".{2**22 + 1}."))
    assert is_dead(own.replace(f".{os.getpid()}.", ".1."))  # a number that is used again
    assert not is_dead(text(0))
    assert not is_dead("rubbish")


def test_whoever_lost_the_lock_stops_before_the_next_change(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    bring(folder, release(tmp_path, A))

    def robbed(remote: str, inputs: Path, outputs: Path) -> str:
        if not (folder / "lock").readlink().name.endswith("-thief"):
            (folder / "lock").unlink()
            hold(folder, text(0) + "-thief")
        return ask(remote, inputs, outputs)

    with pytest.raises(LockLost, match="another deploy took over the lock"):
        bring(folder, release(tmp_path, B), check=robbed)
    assert current(folder) == A
    assert (folder / "lock").readlink().name.endswith("-thief")


def test_a_held_lock_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW", 0.05)
    now = time.time()
    monkeypatch.setattr(locks.time, "time", lambda: now)
    with held(board(tmp_path)) as lock:
        first = (tmp_path / "lock").readlink().name
        now += 1000
        end = time.monotonic() + 30
        while (tmp_path / "lock").readlink().name == first and time.monotonic() < end:
            time.sleep(0.02)
        renewed = (tmp_path / "lock").readlink().name
        assert age(renewed, now) == pytest.approx(0, abs=1.0)
        (tmp_path / "lock").unlink()
        while time.monotonic() < end:
            try:
                lock.check()
            except LockLost:
                break
            time.sleep(0.02)
        with pytest.raises(LockLost):
            lock.check()


def test_the_text_tells_who_and_when() -> None:
    assert owner(text(0)) == "desk"
    assert owner("rubbish") == "somebody"
    assert age("rubbish", 0.0) is None
    assert age("edgeprune-0a-100-x.1.2-desk", 130.0) == 30.0
