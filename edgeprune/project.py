# SPDX-License-Identifier: Apache-2.0
"""The project file: which models, for which targets, within which budgets.

``edgeprune.toml``, or ``[tool.edgeprune]`` in ``pyproject.toml``. A team commits it beside
``edgeprune.lock.json``, the figures that were accepted last.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeprune.errors import ConfigError, nearest
from edgeprune.gate.judged import Place
from edgeprune.reading import exists
from edgeprune.target import Budgets, Target, find_target
from edgeprune.toml import Config, parse

__all__ = ["LOCK", "NAMES", "Baseline", "ModelEntry", "Project", "ProjectFile", "find_project"]

NAMES = ("edgeprune.toml", "pyproject.toml")
LOCK = "edgeprune.lock.json"
_LARGEST = 2**20
"""Bytes of a project file; it comes from a pull request, so it is read with a limit."""

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

_PERCENT = re.compile(r"\+\s*(\d+(?:\.\d+)?)\s*%")
_POINTS = re.compile(r"-\s*(\d+(?:\.\d+)?)")


def _growth(value: object) -> object:
    """``"+2 %"`` as the factor 1.02."""
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"should be a growth such as '+2 %', not {value!r}")
    return 1 + float(match[1]) / 100


def _loss(value: object) -> object:
    """``"-0.5"`` or ``-0.5`` as 0.5 points that may be lost."""
    match = _POINTS.fullmatch(str(value).strip()) if isinstance(value, str | float | int) else None
    if match is None or isinstance(value, bool):
        raise ValueError(f"should be a loss in points such as -0.5, not {value!r}")
    return float(match[1])


Growth = Annotated[float, BeforeValidator(_growth), Field(ge=1)]
"""A factor, from text such as ``+2 %``."""
Loss = Annotated[float, BeforeValidator(_loss), Field(ge=0, le=100)]
"""Points, from ``-0.5``."""


class Baseline(Config):
    """What may change against the committed baseline; an absent key isn't judged."""

    size: Growth | None = None
    macs: Growth | None = None
    parameters: Growth | None = None
    arena: Growth | None = None
    """Of the activation memory that is estimated from the file."""
    latency: Growth | None = None
    memory: Growth | None = None
    accuracy: Loss | None = None


class ModelEntry(Config):
    """One model."""

    model: Text | None = None
    """What ``compress`` starts from; absent where edgeprune only judges ``artifacts``."""
    arch: Text | None = None
    state_key: Text | None = None
    allow_surplus: bool = False
    input_shape: tuple[Text, ...] | None = None
    data: Text | None = None
    recipe: Text | None = None
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]
    device: Annotated[dict[str, Text], Field(default_factory=dict)]
    """Device by target."""
    out: Text | None = None
    """Where ``compress`` writes and ``check`` reads: ``<out>/<target>/``; absent: ``out/NAME``."""
    artifacts: tuple[Text, ...] = ()
    """Files that edgeprune didn't make, in place of ``out``."""
    budgets: Annotated[dict[str, Budgets], Field(default_factory=dict)]
    """Limits by target, over those of the project and of the target."""
    sizes: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(default_factory=dict)]
    """Of dimensions of the inputs that an artifact leaves open: ``{ height = 320 }``."""
    baseline: Baseline | None = None
    """In place of the project's."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.artifacts and (self.model or self.out):
            raise ValueError(
                "'artifacts' names files that are there; it goes without 'model', 'out'"
            )
        if not self.artifacts and not self.model and not self.out:
            raise ValueError("one of 'model', 'out', 'artifacts' is needed")
        for key in ("budgets", "device"):
            unknown = set(getattr(self, key)) - set(self.targets)
            if unknown:
                raise ValueError(f"'{key}' names {sorted(unknown)[0]}, which isn't in 'targets'")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("'targets' names one twice")
        return self


class Project(Config):
    """The whole file."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    models: Annotated[dict[ModelName, ModelEntry], Field(min_length=1)]
    budgets: Annotated[dict[str, Budgets], Field(default_factory=dict)]
    """Limits by target, over the target's own, for every model."""
    baseline: Baseline = Baseline()

    @model_validator(mode="after")
    def _all_used(self) -> Self:
        used = {target for model in self.models.values() for target in model.targets}
        for target in self.budgets:
            if target not in used:  # a limit that would never be judged
                raise ValueError(
                    f"'budgets' names {target}, which no model has in its 'targets'"
                    f"{nearest(target, used)}"
                )
        return self


@dataclass(frozen=True)
class ProjectFile:
    """A project, and where it stands."""

    path: Path
    project: Project
    lines: dict[tuple[str, ...], int]
    """Line of each key, by its path of names."""

    @property
    def folder(self) -> Path:
        """What the paths in it are relative to."""
        return self.path.parent

    @property
    def lock(self) -> Path:
        """The baseline that is committed beside it."""
        return self.folder / LOCK

    def out(self, name: str) -> Path:
        """The folder of a model's results."""
        return self.folder / (self.project.models[name].out or f"out/{name}")

    def target(self, name: str, target: str) -> Target:
        """A target with the limits that hold for a model there.

        Raises:
            ConfigError: There is no such target.
        """
        own = self.folder / target
        is_own = own.suffix == ".toml" and exists(own)
        found = find_target(str(own) if is_own else target, self.folder)
        limits = found.budgets
        for tables in (self.project.budgets, self.project.models[name].budgets):
            if target in tables:
                limits = limits.model_copy(update=tables[target].model_dump(exclude_none=True))
        return found.model_copy(update={"budgets": limits})

    def asked(self, name: str, target: str) -> frozenset[str]:
        """Which budgets the file itself sets for a model there: not the target's own."""
        tables = (self.project.budgets, self.project.models[name].budgets)
        limits = (table[target] for table in tables if target in table)
        return frozenset(key for each in limits for key in each.model_dump(exclude_none=True))

    def growth(self, name: str) -> Baseline:
        """What may change of a model against the baseline."""
        own = self.project.models[name].baseline
        return self.project.baseline if own is None else own

    def place(self, name: str, rule: str, target: str) -> Place | None:
        """The line that a limit is written in; ``None`` where it is the target's own."""
        kind, _, key = rule.partition("/")
        own, project = self.project.models[name], self.project
        tables: tuple[Config | None, Config | None]
        if kind == "budget":
            within: tuple[str, ...] = ("budgets", target)
            tables = own.budgets.get(target), project.budgets.get(target)
        elif kind == "baseline":
            within, tables = ("baseline",), (own.baseline, project.baseline)
        else:
            return None
        for table, before in zip(tables, (("models", name), ()), strict=True):
            if table is not None and getattr(table, key, None) is not None:
                return self._line((*before, *within, key), len(before))
        return None

    def _line(self, keys: tuple[str, ...], outer: int) -> Place | None:
        """The line of a value; one in an inline table has that of the key the table is for."""
        for length in range(len(keys), outer, -1):
            if keys[:length] in self.lines:
                return Place(file=self.path.as_posix(), line=self.lines[keys[:length]])
        return None


def find_project(folder: Path) -> ProjectFile | None:
    """The project file of ``folder`` or the nearest folder above it, up to a repository's top.

    Raises:
        ConfigError: It can't be read, or has a wrong key or value.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        for name in NAMES:
            found = _read(place / name)
            if found is not None:
                return found
        if (place / ".git").exists():
            return None
    return None


def _read(path: Path) -> ProjectFile | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        if path.name != NAMES[0] and b"tool.edgeprune" not in content:
            return None  # of another tool's making, and not ours at all
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path}: is no TOML: {why}") from None
    if len(content) > _LARGEST:
        raise ConfigError(f"{path}: has more than {_LARGEST} bytes, which no project needs")
    prefix: tuple[str, ...] = ()
    if path.name != NAMES[0]:
        prefix = ("tool", "edgeprune")
        tools = table.get("tool")
        if not isinstance(tools, dict) or not isinstance(tools.get("edgeprune"), dict):
            return None
        table = tools["edgeprune"]
    lines = {
        key[len(prefix) :]: line
        for key, line in key_lines(text).items()
        if key[: len(prefix)] == prefix
    }
    return ProjectFile(path, parse(table, Project, str(path)), lines)


_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Line (from 1) of each ``key =`` under its ``[table]``; inline tables count as their key.

    ``tomllib`` tells no lines. What this can't read has no line, and nothing else is lost by it.
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            table = _names(header[1])
            continue
        key = _KEY.match(line)
        if key is not None:
            found.setdefault((*table, *_names(key[1])), number)
    return found


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
