# SPDX-License-Identifier: Apache-2.0
"""``edgeprune init``: the first project file, by asking or from options."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from edgeprune import starter
from edgeprune.cli import options as opt
from edgeprune.errors import InputError, OutputError
from edgeprune.project import NAMES, find_project
from edgeprune.report.text import plain
from edgeprune.target import Budgets, find_target, list_targets
from edgeprune.toml import parse
from edgeprune.writing import check_place, save

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune init

  edgeprune init --model model.pt2 --data photos/ --target rpi4 --target stm32h7

  edgeprune init --artifacts detector.onnx --target rpi4 --max-size 2MB

  edgeprune init --model model.pt2 --target host --pyproject
"""
_LIMITS = "Limits, of every target that is named"
_STATE_DICTS = (".pt", ".pth", ".safetensors")

T = TypeVar("T")


@dataclass(frozen=True)
class _Given:
    """What the command line says."""

    model: str | None
    arch: str | None
    state_key: str | None
    allow_surplus: bool
    input_shape: tuple[str, ...]
    data: str | None
    out: str | None
    artifacts: tuple[str, ...]
    targets: tuple[str, ...]
    name: str | None
    limits: dict[str, str | float]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(init)


def init(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="What `edgeprune compress` starts from: .pt2 or a state dict.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="DATA", help="Its data, as compress takes it."),
    ] = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Where compress puts its results, and check finds them.",
            show_default="out/NAME",
        ),
    ] = None,
    artifacts: Annotated[
        list[str] | None,
        typer.Option(
            "--artifacts",
            metavar="FILE",
            help="A finished .onnx or .tflite file to judge, in place of --model; may be repeated "
            "for further files of the same model.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="TARGET",
            help="A device (`edgeprune targets list`) or a .toml file; may be repeated.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The model's name.", show_default="the file's"),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="2MB", help="Of each file.", rich_help_panel=_LIMITS),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency",
            metavar="25ms",
            help="Median of one inference; judged where it was measured.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            metavar="64MB",
            help="Peak of a fresh process, or a microcontroller's tensor arena.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            help="That may be lost against the dense model.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    pyproject: Annotated[
        bool,
        typer.Option(
            "--pyproject",
            help=r"Add \[tool.edgeprune] to the pyproject.toml that is here; the rest of it stays.",
        ),
    ] = False,
    overwrite: opt.OverwriteOption = False,
) -> None:
    """Write edgeprune.toml: which models, for which devices, within which limits.

    On a terminal it asks for what is missing; elsewhere a model or artifacts, and a target are
    needed.
    """
    path = _place(pyproject=pyproject, overwrite=overwrite)
    before = _text_of(path) if pyproject else ""
    limits = {"size": max_size, "latency": max_latency, "memory": max_memory, "drop": max_drop}
    given = _Given(
        model=model,
        arch=arch,
        state_key=state_key,
        allow_surplus=allow_surplus,
        input_shape=tuple(input_shape or ()),
        data=data,
        out=out,
        artifacts=tuple(dict.fromkeys(artifacts or ())),
        targets=tuple(dict.fromkeys(target or ())),
        name=name,
        limits={key: value for key, value in limits.items() if value is not None},
    )
    _check(given)
    answers = _answers(given)
    if pyproject:
        _save_beside(path, starter.appended(before, answers))
    else:
        save(path, starter.text(answers))
    _tell(path, answers)


def _place(*, pyproject: bool, overwrite: bool) -> Path:
    """Where the text goes; two project files in one folder would hide one another."""
    own, shared = map(Path, NAMES)
    if not pyproject:
        check_place(own, overwrite=overwrite)
        found = None
        with suppress(InputError):  # what is wrong with a file above is `check`'s to tell
            found = find_project(Path())
        if found is not None and found.path.absolute() == shared.absolute():
            raise OutputError(f"{shared}: has [tool.edgeprune] already; edit it there")
        return own
    if overwrite:
        raise InputError("--overwrite replaces edgeprune.toml; with --pyproject nothing is")
    if own.exists():
        raise OutputError(f"{own}: is there already, and would go before {shared}")
    if not shared.is_file():
        raise OutputError(f"{shared}: isn't here; without --pyproject {own} is written")
    return shared


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise OutputError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OutputError(f"{path}: is no text in UTF-8") from None


def _save_beside(path: Path, text: str) -> None:
    """Replace a file that is somebody's own: a link stays one, and so do its permissions."""
    file = path.resolve()
    mode = file.stat().st_mode
    save(file, text)
    with suppress(OSError):
        file.chmod(mode)


def _check(given: _Given) -> None:
    """Refuse what can't be right before anything is asked."""
    of_a_model = {
        "--model": given.model,
        "--data": given.data,
        "--arch": given.arch,
        "--state-key": given.state_key,
        "--allow-surplus": given.allow_surplus,
        "--input-shape": given.input_shape,
        "--out": given.out,
        "--max-drop": given.limits.get("drop"),
    }
    if given.artifacts:
        for option, value in of_a_model.items():
            if value:
                raise InputError(f"{option} is about a model to compress; it goes without "
                                 "--artifacts")  # fmt: skip
    if given.model is not None and _is_artifact(given.model):
        raise InputError(f"--model {given.model}: a finished file goes to --artifacts")
    for file in given.artifacts:
        if not _is_artifact(file):
            raise InputError(f"--artifacts {file}: should end in .onnx or .tflite")
    for target in given.targets:
        find_target(target)
    for key, value in given.limits.items():
        parse({key: value}, Budgets, f"command line, --max-{key}")


def _answers(given: _Given) -> starter.Answers:
    found = starter.look(Path())
    asking = not (given.targets and (given.model or given.artifacts))
    if asking:
        _can_ask(given, found)
        given = _asked(given, found)
    model, artifacts = given.model, given.artifacts
    name = given.name or starter.model_name(model or artifacts[0])
    budgets = {target: dict(given.limits) for target in given.targets}
    if asking and not given.limits:
        budgets = {target: _ask_limits(target) for target in given.targets}
    return starter.Answers(
        name=name,
        targets=tuple(map(_near, given.targets)),
        model=None if model is None else _near(model),
        arch=given.arch,
        state_key=given.state_key,
        allow_surplus=given.allow_surplus,
        input_shape=given.input_shape,
        data=None if given.data is None else _near(given.data),
        out=None if given.out is None else _near(given.out),
        artifacts=tuple(map(_near, artifacts)),
        budgets={_near(target): limits for target, limits in budgets.items()},
    )


def _can_ask(given: _Given, found: starter.Found) -> None:
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        return
    missing = [] if given.model or given.artifacts else ["--model or --artifacts"]
    missing += [] if given.targets else ["--target"]
    here = (*found.models, *found.artifacts)[:5]
    hint = f" (here: {', '.join(map(plain, here))})" if here and len(missing[0]) > 9 else ""
    verb = "are" if missing[1:] else "is"
    raise InputError(
        f"there is no terminal to ask on, so {' and '.join(missing)} {verb} needed{hint}"
    )


def _asked(given: _Given, found: starter.Found) -> _Given:
    if not given.model and not given.artifacts:
        _list("Models here", (*found.models, *found.artifacts))
        default = next(iter((*found.models, *found.artifacts)), None)
        file = _ask("Model to compress, or finished .onnx or .tflite file", _file, default)
        if _is_artifact(file):
            given = replace(given, artifacts=(file,))
        else:
            given = replace(given, model=file)
    if given.model:
        if not given.arch and Path(given.model).suffix.lower() in _STATE_DICTS:
            question = "What builds its network (package.module:factory; empty: the file does)"
            given = replace(given, arch=_ask(question, _any, "") or None)
        if not given.data:
            _list("Data here", found.data)
            default = next(iter(found.data), "")
            given = replace(given, data=_ask("Data (empty: none)", _any, default) or None)
    if not given.targets:
        typer.echo(f"Devices: {', '.join(list_targets())}")
        given = replace(given, targets=_ask("Targets, with commas between", _targets, "host"))
    return given


def _ask_limits(target: str) -> dict[str, str | float]:
    own = find_target(target).budgets
    limits: dict[str, str | float] = {}
    for key, example in (("size", "2MB"), ("latency", "25ms")):
        shown = starter.limit(own, key)
        kept = "none" if shown is None else f"the target's own, {shown}"

        def limit(value: str, key: str = key) -> str:
            if value:
                parse({key: value}, Budgets, key)
            return value

        value = _ask(f"Most {key} on {target}, such as {example} (empty: {kept})", limit, "")
        if value:
            limits[key] = value
    return limits


def _ask(question: str, read: Callable[[str], T], default: str | None) -> T:
    """Ask until the answer can be taken; Ctrl-C and the end of input leave."""
    while True:
        answer = typer.prompt(question, default=default, show_default=bool(default))
        try:
            return read(str(answer).strip())
        except InputError as error:
            typer.echo(f"  {plain(str(error))}")


def _any(answer: str) -> str:
    return answer


def _file(answer: str) -> str:
    suffix = Path(answer).suffix.lower()
    if suffix not in (*starter.MODELS, *starter.ARTIFACTS):
        allowed = ", ".join((*starter.MODELS, *starter.ARTIFACTS))
        raise InputError(f"'{answer}' should end in one of {allowed}")
    return answer


def _targets(answer: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in answer.split(",") if name.strip()))
    if not names:
        raise InputError("at least one is needed")
    for name in names:
        find_target(name)
    return names


def _list(title: str, names: Sequence[str]) -> None:
    if names:
        typer.echo(f"{title}: {', '.join(map(plain, names))}")


def _is_artifact(file: str) -> bool:
    return Path(file).suffix.lower() in starter.ARTIFACTS


def _near(name: str) -> str:
    """A path in this folder is written relative to it, so that it holds on other machines."""
    path = Path(name)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    return name


def _is_there(file: str) -> bool:
    try:
        return Path(file).exists()
    except OSError:  # a name that is too long
        return False


def _tell(path: Path, answers: starter.Answers) -> None:
    typer.echo(f"{path}: written; model {answers.name} for {', '.join(answers.targets)}")
    for file in (*([answers.model] if answers.model else ()), *answers.artifacts):
        if not _is_there(file):
            typer.echo(f"note: {plain(file)} isn't there yet")
    names = {starter.model_name(file) for file in answers.artifacts}
    if len(names) > 1 and answers.name in names:
        typer.echo(
            f"note: {plain(', '.join(answers.artifacts))} are taken for one model, "
            f"{answers.name}; give another model a table of its own"
        )
    typer.echo("Next:")
    if answers.model:
        typer.echo("  edgeprune compress           make the artifacts")
    typer.echo('  edgeprune baseline accept --reason "first"')
    typer.echo("  edgeprune check              hold them against these and the limits")
