# SPDX-License-Identifier: Apache-2.0
"""The ``edgeprune`` command: its sub-commands, and the one place where errors become exit codes."""

import errno
import gc
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.main import get_command

from edgeprune import __version__
from edgeprune.errors import EdgepruneError, InputError, MissingExtra
from edgeprune.reading import reason, shown

__all__ = ["application", "main", "program"]

_MODULES: dict[str, tuple[str, ...]] = {
    "compress": ("compress",),
    "stages": ("prune", "finetune", "quantize", "export"),
    "profile": ("profile",),
    "check": ("check",),
    "diff": ("diff",),
    "history": ("history",),
    "rendered": ("badge", "render"),
    "deploy": ("deploy",),
    "init": ("init",),
    "inspect": ("inspect",),
    "demo": ("demo",),
}
"""The modules of ``edgeprune.cli`` that have commands, in the order of the help, and which; each
with ``add_to(app)``. Only the one whose command is called is imported: a check starts fast."""
_GROUPS = ("baseline", "device", "targets", "ticket")
"""Modules with an ``app`` of their own, named like it."""

_USAGE = typer.BadParameter.__mro__[1]
"""The base of everything that is wrong with a command line itself."""

_INTERRUPTED = 130
"""What typer, too, makes of Ctrl-C."""
_UNREAD = 141
"""What a shell says of a program that SIGPIPE ended: no verdict was wrong."""

_EXTRA = {
    "ai_edge_litert": "device",
    "ai_edge_quantizer": "compress",
    "datasets": "datasets",
    "litert_torch": "compress",
    "onnx": "compress",
    "onnxruntime": "device",
    "onnxscript": "compress",
    "PIL": "compress",
    "safetensors": "compress",
    "scipy": "compress",
    "sklearn": "compress",
    "torch": "compress",
    "torchao": "compress",
}


def application(command: str = "") -> typer.Typer:
    """The command line; of the module that has ``command`` only, where there is such a one."""
    app = typer.Typer(
        name="edgeprune",
        help="Trained PyTorch models onto small devices: prune, fine-tune, quantize, export, and "
        "measured proof.",
        epilog="Exit codes: 0 done, every budget met; 1 a budget or a check failed; 2 bad usage or "
        "input; 3 an internal error, or a device that could not be reached. `--debug` after any "
        "command shows the traceback of an error.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback(invoke_without_command=True)(_version)
    modules = [module for module, commands in _MODULES.items() if command in commands]
    groups = [group for group in _GROUPS if group == command]
    if not modules and not groups:
        modules, groups = list(_MODULES), list(_GROUPS)
    for module in modules:
        import_module(f"edgeprune.cli.{module}").add_to(app)
    for group in groups:
        app.add_typer(import_module(f"edgeprune.cli.{group}").app, name=group)
    return app


def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        typer.echo(f"edgeprune {__version__}")
        raise typer.Exit


def _unfolded(command: Any) -> Any:
    """The command whose help has each paragraph on a line: the terminal folds it at its width."""
    for each in getattr(command, "commands", {}).values():
        _unfolded(each)
    for name in ("help", "epilog"):
        paragraphs = re.split(r"\n[ \t]*\n", getattr(command, name) or "")
        folded = (re.sub(r"(?<=\S)[ \t]*\n[ \t]*(?=\S)", " ", part) for part in paragraphs)
        setattr(command, name, "\n\n".join(folded) or None)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (``sys.argv`` where none is given); the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    _end_orderly()
    if sys.stdout is None:  # closed by who called
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        _look_around()
        command = _unfolded(get_command(application(given[0] if given else "")))
        code = command.main(
            args=[argument for argument in given if argument != "--debug"],
            prog_name="edgeprune",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as left:
        # Both click and rich make 1 of it, which means a broken budget here.
        if not isinstance(left.__context__ or left, BrokenPipeError):
            print(f"error: code that was loaded ended Python (SystemExit: {left})", file=sys.stderr)
            return 2
        _forget_output()  # its reader has left
        return _UNREAD
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BaseException as error:  # the user's code raises anything
        if debug:
            traceback.print_exc()
        line, code = _explain(error)
        if _is_full(error):
            _forget_output()
        if line:
            print(line, file=sys.stderr)
    if code == _INTERRUPTED:
        print(_interrupted(given), file=sys.stderr)
    return code if isinstance(code, int) else 0


def program() -> NoReturn:
    """``edgeprune`` as a process of its own."""
    code = main()
    # Python searches all that torch and the exporters made for cycles before it ends: seconds.
    gc.freeze()
    sys.exit(code)


def _look_around() -> None:
    """Refuse to start in a folder that was removed: relative paths lead nowhere there."""
    try:
        os.getcwd()  # noqa: PTH109 - the same call
    except OSError as error:
        raise InputError(
            f"the working folder can't be used: {error.strerror}; change into another one"
        ) from None


def _end_orderly() -> None:
    """Let a terminal that closes, or a service that stops, do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup's is left as it is
            signal.signal(number, signal.default_int_handler)


def _forget_output() -> None:
    """Nothing more can be said on standard output, nor be tried when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_full(error: BaseException) -> bool:
    """Whether standard output is a file without space: what a run writes itself names its file."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None


def _interrupted(given: list[str]) -> str:
    """One line that says how to go on."""
    resumes = given[:1] == ["compress"] or given[:2] in (["ticket", "find"], ["ticket", "train"])
    if not resumes:
        return "interrupted"
    again = [argument for argument in given if argument != "--resume"]
    return f"interrupted; go on with: {shlex.join(['edgeprune', *again, '--resume'])}"


def _explain(error: BaseException) -> tuple[str, int]:
    """What to tell the user about an error, in one line, and the exit code; nothing where typer
    has shown the help instead."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        if package in _EXTRA:
            error = MissingExtra(package, _EXTRA[package])
    if isinstance(error, EdgepruneError):
        return f"error: {' '.join(str(error).split())}", error.exit_code
    if isinstance(error, _USAGE):
        message = " ".join(getattr(error, "format_message", error.__str__)().split())
        context = getattr(error, "ctx", None)
        called = "edgeprune" if context is None else context.command_path
        return f"error: {message} (see `{called} --help`)" if message else "", 2
    text = " ".join(str(error).split())
    if _is_full(error):
        return "error: standard output can't be written: no space left on its device", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"error: {shown(os.fsdecode(error.filename))}: {reason(error)}", 2
    if isinstance(error, MemoryError):
        return f"error: there isn't enough memory{f': {text}' if text else ''}", 2
    return (
        f"error: internal: {type(error).__name__}: {text}; "
        "run again with --debug for the traceback",
        3,
    )
