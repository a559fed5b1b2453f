# SPDX-License-Identifier: Apache-2.0
"""The first project file: what a folder suggests, and the text made of the answers."""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from edgeprune.errors import ConfigError
from edgeprune.project import LOCK, NAMES, Project
from edgeprune.target import Budgets, find_target
from edgeprune.toml import parse

__all__ = [
    "ARTIFACTS",
    "MODELS",
    "Answers",
    "Found",
    "appended",
    "limit",
    "look",
    "model_name",
    "text",
]

MODELS = (".pt2", ".safetensors", ".pth", ".pt")
"""What ``compress`` can start from; the first needs no ``arch``."""
ARTIFACTS = (".onnx", ".tflite")
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SKIPPED = frozenset({"__pycache__", "build", "dist", "node_modules", "out", "venv"})
_DEPTH, _ENTRIES, _SHOWN = 3, 20_000, 20
_TABLE = ("tool", "edgeprune")


@dataclass(frozen=True)
class Answers:
    """What a first project file says."""

    name: str
    targets: tuple[str, ...]
    model: str | None = None
    arch: str | None = None
    state_key: str | None = None
    allow_surplus: bool = False
    input_shape: tuple[str, ...] = ()
    data: str | None = None
    out: str | None = None
    artifacts: tuple[str, ...] = ()
    """Finished files, in place of ``model``."""
    budgets: Mapping[str, Mapping[str, str | float]] = field(default_factory=dict)
    """By target, then by key of its table: ``{"rpi4": {"size": "2MB"}}``."""


@dataclass(frozen=True)
class Found:
    """What a folder holds that a project file may name, the nearest first."""

    models: tuple[str, ...]
    artifacts: tuple[str, ...]
    data: tuple[str, ...]
    """Folders with a folder of images for each class, and ``.npz`` files."""


def look(folder: Path) -> Found:
    """Look for models and data three folders deep; hidden ones, results and links are left out."""
    files: list[str] = []
    folders: set[str] = set()
    for name in _walk(folder):
        files.append(name)
        if Path(name).suffix.lower() in _IMAGES:
            folders.add(_data_folder(name))
    ranked = sorted(files, key=lambda name: (name.count("/"), name))
    models = [name for kind in MODELS for name in ranked if Path(name).suffix.lower() == kind]
    artifacts = [name for name in ranked if Path(name).suffix.lower() in ARTIFACTS]
    arrays = [name for name in ranked if Path(name).suffix.lower() == ".npz"]
    data = [f"{name}/" for name in sorted(folders - {""})] + arrays
    return Found(tuple(models[:_SHOWN]), tuple(artifacts[:_SHOWN]), tuple(data[:_SHOWN]))


def _walk(folder: Path) -> Iterator[str]:
    """Names of files below the folder, with ``/``; so many at most."""
    left = _ENTRIES
    for place, inner, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        deep = len(below.parts) >= _DEPTH
        inner[:] = [] if deep else sorted(i for i in inner if i[0] != "." and i not in _SKIPPED)
        for name in sorted(names):
            left -= 1
            if left < 0:
                return
            yield (below / name).as_posix()


def _data_folder(image: str) -> str:
    """The folder whose folders are classes, or the one with ``train/`` in it."""
    parts = image.split("/")[:-2]
    if parts and parts[-1].lower() in ("train", "training", "test", "val", "validation"):
        parts = parts[:-1]
    return "/".join(parts)


def model_name(file: str) -> str:
    """A name that a project file takes, from that of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(file).stem).strip("_.-") or "model"


def text(answers: Answers, *, table: tuple[str, ...] = ()) -> str:
    """The project file, with every further key as a comment.

    Args:
        answers: What it says.
        table: Within which table it stands: ``("tool", "edgeprune")`` in a pyproject.toml.

    Raises:
        ConfigError: A target isn't known, or an answer can't be taken.
    """
    lines = [*_head(answers), ""]
    lines += [f"[{_key(*table)}]"] if table else []
    lines += ["schema_version = 1", "", *_model(answers, table), ""]
    for target in answers.targets:
        lines += [*_budgets(answers, target, table), ""]
    written = "\n".join([*lines, *_baseline(answers, table)]) + "\n"
    content = tomllib.loads(written)
    for name in table:
        content = content[name]
    parse(content, Project, "command line")
    return written


def appended(before: str, answers: Answers) -> str:
    """A pyproject.toml with the table behind all that it had, which stays as it was.

    Raises:
        ConfigError: It is no TOML, has the table already, or has a ``tool`` that is no table.
    """
    old = _loaded(before)
    tools = old.get("tool", {})
    if not isinstance(tools, dict):
        raise ConfigError(f"{NAMES[1]}: 'tool' is no table there")
    if "edgeprune" in tools:
        raise ConfigError(f"{NAMES[1]}: has [tool.edgeprune] already; edit it there")
    gap = "" if not before.strip() else "\n" if before.endswith("\n") else "\n\n"
    added = gap + text(answers, table=_TABLE)
    if "\r\n" in before:
        added = added.replace("\n", "\r\n")
    after = _loaded(before + added)
    del after["tool"]["edgeprune"]
    if after != {**old, "tool": tools}:
        raise ConfigError(f"{NAMES[1]}: a table can't be added at its end; do it by hand")
    return before + added


def _loaded(content: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{NAMES[1]}: is no TOML, or can't take a table: {error}") from None


def _head(answers: Answers) -> list[str]:
    steps = [
        ('edgeprune baseline accept --reason "first"', f"remember their figures in {LOCK}"),
        (
            "edgeprune check",
            "hold the artifacts against them and the limits below; exit code 1 if they fail",
        ),
    ]
    if answers.model is not None:
        steps.insert(0, ("edgeprune compress", "make the artifacts of every model and target"))
    width = max(len(command) for command, _ in steps)
    return [
        "# What edgeprune holds this project's models to. Paths are relative to this file.",
        "#",
        *(f"#   {command:<{width}}   {purpose}" for command, purpose in steps),
        "#",
        f"# Commit this file and {LOCK}. A line that is a comment shows a further key.",
    ]


def _model(answers: Answers, table: tuple[str, ...]) -> list[str]:
    lines = [
        "# One table for each model; the name is yours.",
        f"[{_key(*table, 'models', answers.name)}]",
    ]
    if answers.artifacts:
        lines += ["# Finished files that are only judged.", _set("artifacts", answers.artifacts)]
    else:
        lines += [
            _set("model", answers.model),
            "# What builds the network that a state dict belongs to, and the shape of its input.",
            _set("arch", answers.arch, "package.module:factory"),
            *([_set("state_key", answers.state_key)] if answers.state_key else []),
            *(["allow_surplus = true"] if answers.allow_surplus else []),
            _set("input_shape", answers.input_shape, ["1x3x224x224"]),
            "# Images, arrays or a spec to calibrate, train and evaluate with.",
            _set("data", answers.data, "photos/"),
            _set("recipe", None, "recipe.toml"),
            "# Results go to and are read from <out>/<target>/.",
            _set("out", answers.out, f"out/{answers.name}"),
        ]
    device = {answers.targets[0]: "ssh://pi@board"}
    return [
        *lines,
        "# Devices that the artifacts are for: `edgeprune targets list`, or a file of your own.",
        _set("targets", answers.targets),
        "# The one at hand that stands for a target.",
        f"# device = {{ {_key(*device)} = {_value(*device.values())} }}",
    ]


def _budgets(answers: Answers, target: str, table: tuple[str, ...]) -> list[str]:
    own = find_target(target).budgets
    given = answers.budgets.get(target, {})
    examples: dict[str, Any] = {
        "size": limit(own, "size") or "2MB",
        "latency": limit(own, "latency") or "25ms",
        "memory": limit(own, "memory") or "64MB",
    }
    if not answers.artifacts:
        examples["drop"] = 1.0 if own.drop is None else own.drop
    return [
        f"# Limits in place of the target's own{_told(own, examples)}.",
        f"[{_key(*table, 'budgets', target)}]",
        *(_set(key, given.get(key), example) for key, example in examples.items()),
    ]


def limit(own: Budgets, key: str) -> str | None:
    """A limit as a project file writes it, such as ``16MB``; none where the target has none."""
    value = getattr(own, key)
    if value is None:
        return None
    if key == "latency":
        return f"{1e3 * value:g}ms"
    return f"{value:.1f}" if key == "drop" else _bytes(value)


def _told(own: Budgets, keys: Iterable[str]) -> str:
    """What a target holds its artifacts to by itself."""
    limits = {key: limit(own, key) for key in keys}
    found = [f"{key} {text}" for key, text in limits.items() if text]
    return f", which are: {', '.join(found)}" if found else ", which has none"


def _baseline(answers: Answers, table: tuple[str, ...]) -> list[str]:
    # A file alone has no latency: a limit on it would be a warning of every check.
    measured = None if answers.artifacts else "+5 %"
    lines = [
        f"# What may change against the figures that were accepted last, in {LOCK}. Latency is",
        "# judged by `edgeprune check --measure`, as a ratio to a reference model beside it.",
        f"[{_key(*table, 'baseline')}]",
        _set("size", "+2 %"),
        _set("latency", measured, "+5 %"),
        _set("memory", None, "+5 %"),
    ]
    return lines if answers.artifacts else [*lines, _set("accuracy", -0.5)]


def _set(key: str, value: Any, example: Any = None) -> str:
    """``key = value``; without a value a comment with the example."""
    given = value is not None and value != ()
    return f"{'' if given else '# '}{key} = {_value(value if given else example)}"


def _value(value: Any) -> str:
    """As TOML writes it, on one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"k": value}).removeprefix("k = ").rstrip("\n")


def _key(*names: str) -> str:
    """A dotted key, its parts quoted where TOML asks for it."""
    return ".".join(tomli_w.dumps({name: 0}).removesuffix(" = 0\n") for name in names)


def _bytes(count: int | None) -> str | None:
    """Exactly so many, in the largest unit that has a whole number of them."""
    if count is None:
        return None
    units = (("MB", 10**6), ("MiB", 2**20), ("kB", 10**3), ("KiB", 2**10))
    found = (f"{count // scale}{unit}" for unit, scale in units if count % scale == 0)
    return next(found, f"{count}B")
