# SPDX-License-Identifier: Apache-2.0
"""``edgeprune deploy``: bring a result to boards, go back, and see what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgeprune.cli import options as opt
from edgeprune.cli import show
from edgeprune.cli.console import progress
from edgeprune.cli.deployed import (
    line,
    listing_json,
    outcome_json,
    outcome_printer,
    plan_json,
    print_listing,
    print_plan,
    result_json,
)
from edgeprune.cli.places import places
from edgeprune.errors import InputError

if TYPE_CHECKING:
    from edgeprune.deploy.board import Board
    from edgeprune.deploy.check import Ask
    from edgeprune.deploy.fleet import Result
    from edgeprune.deploy.listing import Listing
    from edgeprune.deploy.plan import Plan
    from edgeprune.deploy.release import Release
    from edgeprune.deploy.steps import Outcome, Wishes
    from edgeprune.progress import Progress

__all__ = ["add_to"]

T = TypeVar("T")

_EXAMPLES = """Examples:

  edgeprune deploy out/rpi4 --to ssh://pi@board:/opt/models/classifier

  edgeprune deploy out/rpi4 --to kitchen:/opt/models/classifier --dry-run

  edgeprune deploy out/rpi4 --inventory boards.toml --health-command 'systemctl restart cam'

  edgeprune deploy --list --to ssh://pi@board:/opt/models/classifier

  edgeprune deploy --rollback --to ssh://pi@board:/opt/models/classifier

In boards.toml each board is a table: \\[kitchen] with to = "ssh://pi@kitchen:/opt/models/classifier".

Programs on the board read FOLDER/current/model.onnx; `current` always leads to a whole version.
The board needs sh, cat, ln, ls, mkdir, mv (with -T), rm, sha256sum, sync and wc, and for the
health check Python with numpy and a runtime.
"""

ResultFolder = Annotated[
    Path | None,
    typer.Argument(
        metavar="RESULT",
        show_default=False,
        help="The folder that `edgeprune compress` wrote, such as out/rpi4.",
    ),
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="DEVICE:/FOLDER",
        show_default=False,
        help="ssh://USER@HOST:/folder, NAME:/folder of an added device, or local:/folder; may be "
        "repeated.",
    ),
]
Inventory = Annotated[
    Path | None,
    typer.Option(
        "--inventory", metavar="FILE", show_default=False, help="Boards as TOML, a table each."
    ),
]
Rollback = Annotated[
    bool, typer.Option("--rollback", help="Make the version before the current one current again.")
]
List = Annotated[bool, typer.Option("--list", help="Show the versions that are there.")]
Keep = Annotated[
    int,
    typer.Option(
        "--keep",
        metavar="N",
        min=2,
        help="Versions that stay; the current one and the one before it always do.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done; change nothing there.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="onnx|tflite",
        help="Artifacts to bring; may be repeated.",
        show_default="all of the result",
    ),
]
NoHealth = Annotated[
    bool,
    typer.Option("--no-health", help="Don't run the artifacts there and compare what they answer."),
]
HealthCommand = Annotated[
    str | None,
    typer.Option(
        "--health-command",
        metavar="CMD",
        show_default=False,
        help="Shell command that is run in FOLDER/current after the switch; if it fails, the "
        "version before is current again.",
    ),
]
HealthTimeout = Annotated[
    float, typer.Option("--health-timeout", min=1.0, help="Seconds for --health-command.")
]
ForceUnlock = Annotated[
    bool,
    typer.Option(
        "--force-unlock", help="Break a lock that was left behind, at once instead of later."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(deploy)


def deploy(
    result: ResultFolder = None,
    to: To = None,
    inventory: Inventory = None,
    rollback: Rollback = False,
    list_: List = False,
    keep: Keep = 5,
    dry_run: DryRun = False,
    formats: Formats = None,
    no_health: NoHealth = False,
    health_command: HealthCommand = None,
    health_timeout: HealthTimeout = 120.0,
    force_unlock: ForceUnlock = False,
    json: opt.JsonOption = False,
) -> None:
    """Bring a result to boards: whole versions, switched at once, checked there, undone if unfit.

    What was uploaded before isn't uploaded again, so a command that was interrupted is just
    given again. Ends with 0 only if all went well on all boards.
    """
    from edgeprune.deploy.steps import Wishes

    _check_asked(result, rollback, list_, dry_run)
    stations = _stations(to or (), inventory, health_command)
    wishes = Wishes(keep, None, health_timeout, force_unlock)
    asked = _Asked(stations, json)
    if list_:
        asked.show(_listed, print_listing, listing_json)
    elif rollback:
        asked.show(_back(wishes), outcome_printer("not checked again"), outcome_json)
    else:
        assert result is not None
        with _opened(result, formats or ()) as release:
            if not no_health:
                from edgeprune.deploy.check import require_health

                require_health(release)
            if dry_run:
                asked.show(_planned(release, keep), print_plan, plan_json)
            else:
                printer = outcome_printer("not checked (--no-health)")
                asked.show(_deployed(release, wishes, not no_health), printer, outcome_json)


@dataclass(frozen=True)
class _Station:
    """A board that was asked for."""

    name: str
    to: str
    command: str | None


@dataclass(frozen=True)
class _Reached:
    """A board, and what runs artifacts there."""

    station: _Station
    board: Board
    ask: Ask


Work = Callable[[_Reached, "Progress"], T]


@dataclass(frozen=True)
class _Asked:
    stations: Sequence[_Station]
    json: bool

    def show(
        self,
        work: Work[T],
        printer: Callable[[Sequence[Result[T]]], None],
        as_data: Callable[[T], dict[str, Any]],
    ) -> None:
        """Do the work on all boards, print what came of it, and leave with the exit code."""
        from edgeprune.deploy.fleet import each

        by_name = {station.name: station for station in self.stations}

        def one(name: str, shown: Progress) -> T:
            with _reach(by_name[name]) as reached:
                return work(reached, shown)

        results = each(list(by_name), one, progress())
        if self.json:
            show.as_json({"boards": [result_json(result, as_data) for result in results]})
        else:
            if len(results) == 1 and results[0].error is not None:
                raise results[0].error
            printer(results)
            failed = [r for r in results if r.error is not None]
            show.lines(f"{r.name}: {line(r.error)}" for r in failed)
        errors = [result.error for result in results if result.error is not None]
        raise typer.Exit(max((error.exit_code for error in errors), default=0))


def _check_asked(result: Path | None, rollback: bool, list_: bool, dry_run: bool) -> None:
    if list_ and rollback:
        raise InputError("--list and --rollback: give one of them")
    alone = "--list" if list_ else "--rollback" if rollback else None
    if alone and result is not None:
        raise InputError(f"{alone} is about what is on the boards; it takes no result ({result})")
    if alone is None and result is None:
        raise InputError("which result? give its folder, such as out/rpi4 (or --list, --rollback)")
    if rollback and dry_run:
        raise InputError("--rollback has no --dry-run; --list shows where it would lead")


def _stations(to: Sequence[str], inventory: Path | None, command: str | None) -> list[_Station]:
    from edgeprune.deploy.fleet import read_inventory

    stations = [_Station(text, text, command) for text in to]
    if inventory is not None:
        boards = read_inventory(inventory)
        stations += [_Station(n, b.to, b.health_command or command) for n, b in boards.items()]
    if not stations:
        raise InputError("to which board? --to ssh://USER@HOST:/folder, or --inventory FILE")
    for what, values in (
        ("board", [s.name for s in stations]),
        ("folder", [s.to for s in stations]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise InputError(f"{what} '{twice[0]}' is given twice")
    for station in stations:
        _folder(station.to)
    return stations


def _folder(text: str) -> tuple[Any, str]:
    """The device and its folder.

    Raises:
        InputError: It is no device with a folder, or one that can't be deployed to.
    """
    from edgeprune.device.settings import find_device

    named = find_device(text, places(), takes_path=True)
    address = named.address
    if address.kind not in ("local", "ssh"):
        raise InputError(
            f"'{text}': can't be deployed to; local:/folder and ssh://HOST:/folder can"
        )
    folder = (address.path or "").rstrip("/")
    if not folder:
        raise InputError(f"'{text}': lacks a folder of its own: {address}:/opt/models/NAME")
    if "\x00" in folder or ".." in folder.split("/"):
        raise InputError(f"'{text}': the folder must be a plain absolute path, without '..'")
    return named, folder


@contextmanager
def _reach(station: _Station) -> Iterator[_Reached]:
    from edgeprune.deploy.board import Board
    from edgeprune.device.open import open_agent

    named, folder = _folder(station.to)
    with open_agent(named, places()) as agent:

        def ask(remote: str, inputs: Path, outputs: Path) -> str:
            return str(agent.run(remote, inputs, outputs)["runtime"])

        yield _Reached(station, Board(agent.shell, folder), ask)


@contextmanager
def _opened(folder: Path, formats: Sequence[str]) -> Iterator[Release]:
    """The release of a result's folder, or of a folder with somebody else's files.

    Raises:
        InputError: There is nothing of these formats in it, or it can't be used.
    """
    from edgeprune.deploy.release import MANIFEST, foreign_release, make_release
    from edgeprune.report.files import read_manifest

    unknown = sorted(set(formats) - {"onnx", "tflite"})
    if unknown:
        raise InputError(f"--format '{unknown[0]}': allowed are onnx, tflite")
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give one that `edgeprune compress` wrote")
    if not (folder / MANIFEST).exists():
        with foreign_release(folder, formats) as release:
            yield release
        return
    manifest = read_manifest(folder / MANIFEST)
    hashes = {artifact.file: artifact.sha256 for artifact in manifest.artifacts}
    chosen = [a.file for a in manifest.artifacts if not formats or a.format in formats]
    yield make_release(manifest.run, folder, hashes, chosen, manifest.health)


def _deployed(release: Release, wishes: Wishes, check: bool) -> Work[Outcome]:
    def work(reached: _Reached, shown: Progress) -> Outcome:
        from edgeprune.deploy.steps import deploy as bring

        ask = reached.ask if check else None
        own = _own(wishes, reached)
        return bring(reached.board, release, own, ask=ask, progress=shown)

    return work


def _back(wishes: Wishes) -> Work[Outcome]:
    def work(reached: _Reached, shown: Progress) -> Outcome:
        from edgeprune.deploy.steps import roll_back

        return roll_back(reached.board, _own(wishes, reached), shown)

    return work


def _own(wishes: Wishes, reached: _Reached) -> Wishes:
    from dataclasses import replace

    return replace(wishes, command=reached.station.command)


def _planned(release: Release, keep: int) -> Work[tuple[Listing, Plan]]:
    def work(reached: _Reached, shown: Progress) -> tuple[Listing, Plan]:
        from edgeprune.deploy.steps import preview

        return preview(reached.board, release, keep=keep)

    return work


def _listed(reached: _Reached, shown: Progress) -> Listing:
    return reached.board.look()
