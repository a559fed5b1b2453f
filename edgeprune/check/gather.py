# SPDX-License-Identifier: Apache-2.0
"""From paths and a project file to cases. Reads manifests, and decides what is judged by what."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from edgeprune.artifact.source import regular
from edgeprune.check.case import MANIFEST, Baselined, Case, Limits, Result, is_there, told
from edgeprune.errors import InputError
from edgeprune.gate.budgets import merge
from edgeprune.gate.judged import Place, Rule
from edgeprune.gate.lock import Lock
from edgeprune.project import ProjectFile
from edgeprune.report.files import read_sealed
from edgeprune.report.text import plain
from edgeprune.target import Budgets, Target, find_target, hiding

__all__ = ["Request", "found_in", "gather"]

_SUFFIXES = (".onnx", ".tflite")
_DEPTH = 2
"""Folders below the one that is named in which results are looked for: ``out/NAME/TARGET``."""
_MOST = 10_000
"""Entries of folders that are looked at."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    paths: tuple[Path, ...] = ()
    """Folders and files; none: all of the project."""
    targets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    """Of the project; none: all."""
    budgets: Budgets = field(default_factory=Budgets)
    """Over all others."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Of dimensions that artifacts leave open, over those of the project file."""


def gather(
    request: Request, here: Path, project: ProjectFile | None, lock: Lock | None
) -> tuple[Case, ...]:
    """What is to be judged.

    A path that belongs to the project is judged by the project's limits. A manifest that the
    project names and that isn't there has a case without a result.

    Args:
        request: Paths, targets, limits.
        here: Where the command was run; what paths are relative to.
        project: The project file, where there is one.
        lock: The baseline beside it.

    Raises:
        InputError: A path, a target or a manifest can't be used, or nothing is left to judge.
        ConfigError: A target's file is wrong.
    """
    finder = _Finder(request, here, project, lock)
    if request.paths:
        cases = list(finder.named())
    elif project is None:
        raise InputError(
            "nothing to check: name folders or files, or write an edgeprune.toml (`edgeprune init`)"
        )
    else:
        cases = list(finder.of_project())
    if not cases:
        asked = ", ".join((*request.models, *request.targets))
        raise InputError(f"nothing to check: there is nothing for {asked or 'these paths'}")
    return tuple(cases)


class _Finder:
    def __init__(
        self, request: Request, here: Path, project: ProjectFile | None, lock: Lock | None
    ) -> None:
        self._request = request
        self._here = here
        self._project = project
        self._lock = lock
        self._targets: dict[str, Target] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._was_there = project is not None and lock is None and _committed(project.lock)

    def of_project(self) -> Iterator[Case]:
        """All cases of the project that were asked for."""
        assert self._project is not None
        models = self._project.project.models
        unknown = set(self._request.models) - set(models)
        if unknown:
            raise InputError(
                f"{self._project.path}: has no model '{sorted(unknown)[0]}'; "
                f"its models: {', '.join(models)}"
            )
        for name, entry in models.items():
            if self._request.models and name not in self._request.models:
                continue
            for key in entry.targets:
                yield from self._of_model(name, key)
        if not (self._request.models or self._request.targets or self._request.paths):
            yield from self._left_over()

    def _left_over(self) -> Iterator[Case]:
        """What only the baseline has; to be called after the project's own cases."""
        assert self._project is not None
        for model, targets in {} if self._lock is None else self._lock.models.items():
            for target, accepted in targets.items():
                if (model, target) not in self._names:
                    limits = Limits(accepted=accepted)
                    yield Case(self._project.lock, limits, model=model, left_over=target)

    def named(self) -> Iterator[Case]:
        """The cases of the paths that were given, each once."""
        owned: dict[Path, list[Case]] = {}
        if self._project is not None:
            for case in self.of_project():
                owned.setdefault(case.path.resolve(), []).append(case)
        seen = set()
        for given in self._request.paths:
            for path in self._at(self._here / given, owned):
                where = path.resolve()
                whole_result = where.parent / MANIFEST  # a file of a result stands for all of it
                key = whole_result if whole_result in owned else where
                if key in seen:
                    continue
                seen.add(key)
                yield from owned.get(key) or self._foreign(path)

    def _at(self, whole: Path, owned: Iterable[Path]) -> Iterator[Path]:
        """What a path has; in a folder of the project also what should be there and isn't."""
        if not is_there(whole) or not whole.is_dir():
            yield from found_in(whole, told(whole, self._here))
            return
        top = whole.resolve()
        below = [path for path in owned if path.is_relative_to(top)]
        yield from _inside(whole) if below else found_in(whole, told(whole, self._here))
        yield from below

    def _of_model(self, name: str, key: str) -> Iterator[Case]:
        project = self._project
        assert project is not None
        target = project.target(name, key)
        if self._names.setdefault((name, target.name), key) != key:
            raise InputError(
                f"{project.path}: model '{name}' has the targets "
                f"'{self._names[name, target.name]}' and '{key}', which are both {target.name}"
            )
        if self._request.targets and not {key, target.name} & set(self._request.targets):
            return
        entry = project.project.models[name]
        own = hiding(key, project.folder)
        limits, sizes = self._limits(name, key, target), {**entry.sizes, **self._request.sizes}
        case = Case(Path(), limits, target, name, key, hiding=own, sizes=sizes)
        if not entry.artifacts:
            folder = project.out(name) / target.name
            yield self._loaded(replace(case, path=folder / MANIFEST))
            return
        for each, short in zip(entry.artifacts, _names(entry.artifacts), strict=True):
            yield replace(case, path=project.folder / each, name=short)

    def _loaded(self, case: Case) -> Case:
        """The case with its manifest, where it is there."""
        if not is_there(case.path) and not case.path.is_symlink():
            return case
        result = self._read(case.path)
        assert case.target is not None
        if result.manifest.target != case.target.name:
            raise InputError(
                f"{told(case.path, self._here)}: is a result for "
                f"{plain(result.manifest.target)}, and the project has {case.target.name} there"
            )
        return replace(case, result=result)

    def _limits(self, name: str, key: str, target: Target) -> Limits:
        project = self._project
        assert project is not None
        entry = project.project.models[name]
        places = {rule: self._place(project.place(name, rule, key)) for rule in get_args(Rule)}
        given = self._request.budgets
        own = {f"budget/{each}" for each in given.model_dump(exclude_none=True)}
        models = {} if self._lock is None else self._lock.models
        lock = Baselined(
            None if self._lock is None else self._lock.schema_version,
            self._was_there,
            tuple(model for model, targets in models.items() if target.name in targets),
            frozenset(_names(entry.artifacts)) if entry.artifacts else None,
        )
        return Limits(
            merge(target.budgets, given),
            project.asked(name, key) | self._asked(),
            project.growth(name),
            models.get(name, {}).get(target.name, {}),
            lock,
            {rule: at for rule, at in places.items() if at is not None and rule not in own},
        )

    def _asked(self) -> frozenset[str]:
        return frozenset(self._request.budgets.model_dump(exclude_none=True))

    def _place(self, place: Place | None) -> Place | None:
        if place is None:
            return None
        return place.model_copy(update={"file": told(Path(place.file), self._here)})

    def _foreign(self, path: Path) -> Iterator[Case]:
        """The cases of a path that is no project's."""
        if path.name == MANIFEST:
            yield from self._foreign_result(path)
            return
        asked, own = self._asked(), self._request.budgets
        if not self._request.targets:
            yield Case(path, Limits(own, asked), name=path.name, sizes=self._request.sizes)
        for each in self._request.targets:
            target = self._target(each)
            limits = Limits(merge(target.budgets, own), asked)
            yield Case(path, limits, target, name=path.name, sizes=self._request.sizes)

    def _foreign_result(self, path: Path) -> Iterator[Case]:
        result = self._read(path)
        wanted = {self._target(each).name: each for each in self._request.targets}
        name = result.manifest.target
        if wanted and name not in wanted:
            return
        try:
            target = self._target(wanted.get(name, name))
        except InputError as error:
            hint = "" if wanted else "; for a target of your own give its file: --target FILE"
            raise InputError(
                f"{plain(told(path, self._here))}: {plain(str(error))}{hint}"
            ) from None
        limits = Limits(merge(target.budgets, self._request.budgets), self._asked())
        yield Case(path, limits, target, result=result, sizes=self._request.sizes)

    def _read(self, path: Path) -> Result:
        manifest, fits = read_sealed(path)
        return Result(path.parent, manifest, fits)

    def _target(self, name: str) -> Target:
        if name not in self._targets:
            near = Path() if self._project is None else self._project.folder
            self._targets[name] = find_target(name, near)
        return self._targets[name]


def _names(artifacts: Sequence[str]) -> list[str]:
    """What a baseline calls files: by their names, or by their paths where two have one name."""
    names = Counter(Path(each).name for each in artifacts)
    return [
        Path(each).name if names[Path(each).name] == 1 else Path(each).as_posix()
        for each in artifacts
    ]


def _committed(lock: Path) -> bool:
    """Whether a lock file that isn't there stands in the last commit or the one before it."""
    from edgeprune.git import git

    for revision in ("HEAD", "HEAD^"):
        try:
            git(lock.parent, "cat-file", "-e", f"{revision}:./{lock.name}")
        except InputError:  # no git, no repository, no such commit, or no such file in it
            continue
        return True
    return False


def found_in(path: Path, label: str) -> Iterator[Path]:
    """Manifests and model files at a path, in order.

    Args:
        path: A file, or a folder with results, folders of them, or model files.
        label: How it is called in an error.

    Raises:
        InputError: There is nothing.
    """
    name = plain(label)
    if not is_there(path) or not path.is_dir():
        regular(path, name)
        yield path
        return
    found = _inside(path)
    if not found:
        raise InputError(f"{name}: has no {MANIFEST} and no .onnx or .tflite file")
    yield from found


def _inside(folder: Path) -> Sequence[Path]:
    manifests = sorted(_manifests(folder, _DEPTH, iter(range(_MOST))))
    return manifests or sorted(each for each in _entries(folder) if each.suffix in _SUFFIXES)


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{plain(str(folder))}: can't be read: {error.strerror}") from None


def _manifests(folder: Path, depth: int, left: Iterator[int]) -> Sequence[Path]:
    """Of the folder itself, else of those in it; hidden ones (work in progress) are left out."""
    own = folder / MANIFEST
    if own.exists() or own.is_symlink():
        return [own]
    found: list[Path] = []
    for entry in sorted(_entries(folder)) if depth else ():
        if next(left, None) is None:
            raise InputError(f"{plain(str(folder))}: has more than {_MOST} entries; name fewer")
        if not entry.name.startswith(".") and entry.is_dir() and not entry.is_symlink():
            found += _manifests(entry, depth - 1, left)
    return found
