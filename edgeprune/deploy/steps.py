# SPDX-License-Identifier: Apache-2.0
"""Deploying to one board, and going back there.

The order is what makes it safe: nothing reads a version before it is whole, checked and flushed;
``current`` is then replaced in one step; and what isn't found healthy there is taken back.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deploy.board import Board, LockLost
from edgeprune.deploy.check import Ask, Checked, check_command, check_outputs, require_health
from edgeprune.deploy.listing import Listing
from edgeprune.deploy.lock import Lock, held
from edgeprune.deploy.plan import Plan, candidates, make_plan
from edgeprune.deploy.release import SUMS, Release
from edgeprune.errors import CheckFailed, DeviceError, EdgepruneError, InputError
from edgeprune.progress import Progress, Silent

__all__ = ["Outcome", "Wishes", "deploy", "preview", "roll_back"]


@dataclass(frozen=True)
class Wishes:
    """How to deploy."""

    keep: int = 5
    """Versions that may stay on the board."""
    command: str | None = None
    """To be run there after the switch; it must end with 0."""
    command_timeout: float = 120.0
    """Seconds for it."""
    force_unlock: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it on one board."""

    board: str
    version: str
    """What is current now."""
    before: str | None
    """What was current before."""
    sent: int = 0
    """Bytes uploaded."""
    seconds: float = 0.0
    checked: tuple[Checked, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Work:
    board: Board
    release: Release
    wishes: Wishes
    ask: Ask | None
    progress: Progress
    lock: Lock


def preview(board: Board, release: Release, *, keep: int) -> tuple[Listing, Plan]:
    """What is there, and what ``deploy`` would do; changes nothing.

    Raises:
        InputError: The folder there can't be used.
        DeviceError: The board can't be reached, or lacks a program.
    """
    listing = board.look(*candidates(release))
    return listing, make_plan(listing, release, keep=keep)


def deploy(
    board: Board, release: Release, wishes: Wishes, *, ask: Ask | None, progress: Progress
) -> Outcome:
    """Bring ``release`` to ``board`` and make it current.

    Run again after it was interrupted at any point, it goes on and finishes.

    Args:
        board: Where.
        release: What.
        wishes: How.
        ask: Runs an artifact there for the health check; ``None``: nothing is checked.
        progress: Where to show the progress.

    Raises:
        CheckFailed: It isn't healthy there; what was current before is current again.
        DeviceError: The board can't be reached, is full, can't be written, or somebody else is
            at work there.
        InputError: The folder there, or what was recorded for the health check, can't be used.
    """
    start = time.monotonic()
    if ask is not None:
        require_health(release)
    preview(board, release, keep=wishes.keep)  # what can't be is refused before anything changes
    with held(board, force=wishes.force_unlock) as lock:
        board.prepare(lock.token)
        _, plan = preview(board, release, keep=wishes.keep)
        work = _Work(board, release, wishes, ask, progress, lock)
        if plan.upload:
            _bring(work, plan)
        if plan.switch:
            _check_before(work, plan)
        try:
            checked = _switch_and_check(work, plan)
        except EdgepruneError as error:
            raise _taken_back(work, plan, error) from error
        except BaseException as error:
            raise _taken_back(work, plan, DeviceError(f"{board.name}: interrupted")) from error
        _finish(work, plan)
    return Outcome(
        board=board.name,
        version=plan.version,
        before=plan.before,
        sent=plan.sent,
        seconds=time.monotonic() - start,
        checked=checked,
        removed=plan.remove,
    )


def roll_back(board: Board, wishes: Wishes, progress: Progress) -> Outcome:
    """Make the version current that was so before the current one.

    The hashes of its files are compared; its outputs were when it was deployed.

    Raises:
        InputError: There is none.
        CheckFailed: Its files are damaged, or the health command failed with it: then the version
            that was current is so again.
        DeviceError: The board can't be reached or written, or somebody else is at work there.
    """
    start = time.monotonic()
    _former(board, board.look())
    with held(board, force=wishes.force_unlock) as lock:
        listing = board.look()
        now, target = listing.current, _former(board, listing)
        assert now is not None
        if not board.look(target).whole.get(target, False):
            raise CheckFailed(
                f"{board.name}: {target} is damaged there, so {now} stays; deploy it anew"
            )
        progress.say(f"> {board.name}: switch current back to {target}")
        board.go_back(lock.token, target, now)
        if wishes.command is not None:
            try:
                check_command(board, wishes.command, wishes.command_timeout)
            except EdgepruneError as error:
                board.go_back(lock.token, now, target)
                raise _kind(error)(f"{error}; {now} is current again") from error
    return Outcome(board.name, target, now, seconds=time.monotonic() - start)


def _former(board: Board, listing: Listing) -> str:
    if listing.previous is None:
        what = "nothing is deployed there" if listing.current is None else "none came before it"
        raise InputError(f"{board.name}: no version to go back to: {what}")
    return listing.previous


def _bring(work: _Work, plan: Plan) -> None:
    """Upload all files, hash them there, and make a version of them."""
    board, lock = work.board, work.lock
    work.progress.say(f"> {board.name}: upload {plan.version}")
    names = [piece.name for piece in work.release.pieces]
    for piece in work.release.pieces:
        lock.check()
        board.upload(piece.path, plan.version, piece.name, work.progress)
    sums = work.release.sums()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        path = Path(folder) / SUMS
        path.write_text(sums, encoding="utf-8", newline="\n")
        board.upload(path, plan.version, SUMS, Silent())
    board.verify(lock.token, plan.version, names, sums)
    board.promote(lock.token, plan.version)


def _check_before(work: _Work, plan: Plan) -> None:
    """Check a version that isn't current yet: what fails here never becomes it."""
    try:
        _check(work, f"versions/{plan.version}")
    except EdgepruneError as error:
        stays = f"{plan.before} stays current" if plan.before else "nothing is current, as before"
        raise _kind(error)(f"{error}; {stays}") from error


def _switch_and_check(work: _Work, plan: Plan) -> tuple[Checked, ...]:
    board, wishes = work.board, work.wishes
    work.lock.check()
    if plan.switch:
        work.progress.say(f"> {board.name}: switch current to {plan.version}")
        board.switch(work.lock.token, plan.version, plan.before)
    checked = _check(work, "current")
    if wishes.command is not None:
        work.progress.say(f"> {board.name}: {wishes.command}")
        check_command(board, wishes.command, wishes.command_timeout)
    return checked


def _finish(work: _Work, plan: Plan) -> None:
    """Note that it is healthy, and remove what is too much."""
    gone = (*plan.remove, *plan.drop)
    try:
        work.board.confirm(work.lock.token)
        if gone:
            work.board.prune(work.lock.token, gone)
    except DeviceError as error:
        left = f"{plan.version} is current and healthy, but the end is missing"
        raise _kind(error)(f"{error}; {left}: run the command again") from error


def _check(work: _Work, place: str) -> tuple[Checked, ...]:
    """The outputs of the artifacts in ``place``, unless nothing is to be checked."""
    if work.ask is None:
        return ()
    work.progress.say(f"> {work.board.name}: health check of {place}")
    return check_outputs(work.board, work.release, place, work.ask)


def _taken_back(work: _Work, plan: Plan, error: EdgepruneError) -> EdgepruneError:
    """Undo the switch; the error that tells of both."""
    board, kind = work.board, _kind(error)
    if isinstance(error, LockLost):  # what is there now is the other one's work
        return error
    if not plan.undo:
        stays = "it was current before and stays so; --rollback goes back"
        return kind(f"{error}; {stays}")
    try:
        now = board.look().current
        if now == plan.version:
            board.go_back(work.lock.token, plan.fallback, now)
    except EdgepruneError as second:
        return DeviceError(
            f"{error}; and going back to {plan.fallback or 'nothing'} failed too: {second}; "
            "current leads to a whole version all the same: look with --list, run the command again"
        )
    back = f"{plan.fallback} is current again" if plan.fallback else "nothing is current, as before"
    return kind(f"{error}; {back}")


def _kind(error: EdgepruneError) -> type[EdgepruneError]:
    """What can be raised anew with a longer text, and the same exit code."""
    for kind in (CheckFailed, DeviceError, InputError):
        if isinstance(error, kind):
            return kind
    return EdgepruneError
