# SPDX-License-Identifier: Apache-2.0
"""Whether a manifest and its files belong together, and its figures say where they are from."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from edgeprune.artifact import Artifact as Model
from edgeprune.artifact import contents, digest, limits, read
from edgeprune.artifact.source import opened, regular
from edgeprune.artifact.tflite_file import MAGIC
from edgeprune.check.case import Case, Result, told
from edgeprune.errors import InputError
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged, Rule
from edgeprune.report.schema import Artifact
from edgeprune.report.text import plain

__all__ = ["Integrity", "absent", "inspect"]

_ELSEWHERE = b"location"
"""Stands in an ONNX file that has weights in other files, as the key before their names."""
_TOLD = 10
"""Findings of one rule of one manifest; the others are counted."""


@dataclass(frozen=True)
class _Finding:
    rule: Rule
    path: Path
    reason: str


@dataclass(frozen=True)
class Integrity:
    """What was found of one manifest."""

    judged: tuple[Judged, ...]
    hashes: Mapping[str, str]
    """sha256 of each of its files that could be read."""
    genuine: frozenset[str]
    """Files that are the ones the manifest is about."""
    sizes: Mapping[str, int]
    """Bytes of each genuine artifact, those of files with its weights among them."""


def absent(case: Case, here: Path) -> Judged:
    """The verdict on a file that the project names and that isn't there."""
    made = "edgeprune compress makes it" if not case.name else "the project file names it"
    return _judged(case, here, "integrity/missing", case.path, f"It isn't there; {made}.")


def inspect(case: Case, here: Path) -> Integrity:
    """Hold the files of a result against its manifest, and the manifest against itself.

    Raises:
        InputError: The manifest names a file outside its folder.
    """
    result = case.result
    assert result is not None
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    findings = [*_nothing(case, result), *_files(case, result, hashes, here)]
    genuine = {name for name, found in hashes.items() if found == result.manifest.files[name]}
    findings += _edited(case, result, genuine, sizes)
    findings += [
        _Finding("integrity/origin", case.path, f"{plain(name)}: {reason}")
        for name, reason in _origins(result)
    ]
    return Integrity(tuple(_summed(case, here, findings)), hashes, frozenset(genuine), sizes)


_RULES: dict[Rule, str] = {
    "integrity/missing": "Its {files} files are there.",
    "integrity/hash": "Its {files} files have the sha256 that it names.",
    "integrity/edited": "Its seal fits, and it says of its {artifacts} artifacts what they have.",
    "integrity/origin": "All its figures say where they come from.",
}


def _summed(case: Case, here: Path, findings: list[_Finding]) -> Iterator[Judged]:
    """The findings of each rule, or that there are none."""
    assert case.result is not None
    manifest = case.result.manifest
    for rule, text in _RULES.items():
        mine = [each for each in findings if each.rule == rule]
        for each in mine[:_TOLD]:
            yield _judged(case, here, rule, each.path, each.reason)
        if len(mine) > _TOLD:
            yield _judged(case, here, rule, case.path, f"... and {len(mine) - _TOLD} more.")
        if not mine:
            reason = text.format(files=len(manifest.files), artifacts=len(manifest.artifacts))
            yield _judged(case, here, rule, case.path, reason, passed=True)


def _judged(
    case: Case, here: Path, rule: Rule, path: Path, reason: str, *, passed: bool = False
) -> Judged:
    return Judged(
        rule=rule,
        model=case.model,
        target=None if case.target is None else case.target.name,
        artifact=told(path, here),
        outcome="pass" if passed else "fail",
        reason=reason,
    )


def _nothing(case: Case, result: Result) -> Iterator[_Finding]:
    """A result without artifacts would pass, since there would be nothing to judge; one that
    lacks a file is no whole result."""
    if not result.manifest.artifacts:
        reason = "It names no artifact, so there is nothing that could be judged."
        yield _Finding("integrity/missing", case.path, reason)
        return
    named = {artifact.file for artifact in result.manifest.artifacts}
    for name in result.manifest.files:
        if name not in named and PurePosixPath(name).suffix in (".onnx", ".tflite"):
            reason = f"It lists {plain(name)} and names no artifact of it, so nothing judges that."
            yield _Finding("integrity/missing", case.path, reason)
    for lacking in result.manifest.missing:
        reason = f"It could not be made in {lacking.numerics}: {plain(lacking.reason)}"
        yield _Finding("integrity/missing", result.folder / plain(lacking.file), reason)


def _files(case: Case, result: Result, hashes: dict[str, str], here: Path) -> Iterator[_Finding]:
    claimed = {artifact.file: artifact.bytes for artifact in result.manifest.artifacts}
    for name, wanted in result.manifest.files.items():
        path = _inside(result.folder, name, told(case.path, here))
        reason = _unreadable(result.folder, path)
        if reason is not None:
            yield _Finding("integrity/missing", path, reason)
            continue
        size = path.stat().st_size
        if size != claimed.get(name, size) or size > limits.FILE:
            about = (
                f"the manifest is about one of {claimed[name]:,}"
                if name in claimed
                else (f"more than {limits.FILE:,} aren't hashed")
            )
            yield _Finding("integrity/hash", path, f"It has {size:,} bytes; {about}.")
            continue
        try:
            hashes[name] = digest(path)
        except InputError as error:
            yield _Finding("integrity/missing", path, f"{plain(str(error))}.")
            continue
        if hashes[name] != wanted:
            reason = f"Its sha256 is {hashes[name][:12]}...; the manifest is about another file, "
            yield _Finding("integrity/hash", path, f"{reason}{plain(wanted)[:12]}...")


def _inside(folder: Path, name: str, manifest: str) -> Path:
    """The path of a file that a manifest names; what others wrote must not lead elsewhere."""
    parts = PurePosixPath(name).parts
    odd = not parts or ".." in parts or PurePosixPath(name).is_absolute()
    if odd or "\\" in name or "\0" in name:
        raise InputError(
            f"{plain(manifest)}: names the file '{plain(name)[:80]}', which is outside its folder"
        )
    return folder.joinpath(*parts)


def _unreadable(folder: Path, path: Path) -> str | None:
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return "It is a link out of the manifest's folder."
        regular(path, "It")
    except (InputError, RuntimeError) as error:  # RuntimeError: links in a circle
        told = plain(str(error)).removeprefix("It: ")
        return f"It {'is ' if told.startswith('a ') else ''}{told}."
    except OSError as error:
        return f"It can't be read: {error.strerror}."
    return None


def _edited(
    case: Case, result: Result, genuine: set[str], sizes: dict[str, int]
) -> Iterator[_Finding]:
    manifest = result.manifest
    if manifest.seal is None:
        yield _lie(case, "It has no seal: an edgeprune wrote it that made none, or it was edited.")
    elif not result.sealed:
        yield _lie(case, "Its seal doesn't fit: it was edited after it was written.")
    for artifact in manifest.artifacts:
        name = plain(artifact.file)
        if manifest.files.get(artifact.file) != artifact.sha256:
            yield _lie(case, f"{name}: its artifact isn't the file that it lists under that name.")
        elif artifact.file in sizes:
            yield _lie(case, f"{name}: stands among its artifacts more than once.")
        elif artifact.file in genuine:
            path = _inside(result.folder, artifact.file, "")
            known = None if artifact.format == "onnx" and _is_alone(path) else read(path)
            sizes[artifact.file] = path.stat().st_size if known is None else known.bytes
            for lie in _lies(artifact, path, known, result):
                yield _lie(case, f"{name}: {lie}.")
    for name, key, figure in _figures(result):
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        if not low <= figure.value <= high:
            yield _lie(case, f"{plain(name)}: {plain(key)}: {figure.value} isn't in its interval.")


def _lie(case: Case, reason: str) -> _Finding:
    return _Finding("integrity/edited", case.path, reason)


def _is_alone(path: Path) -> bool:
    """Whether a file is ONNX with all weights in itself, told without the time to read its graph.

    Its counts are of what its runtime makes of it, so they aren't in the file to be compared.
    """
    with opened(path) as content:
        small = len(content) <= limits.WHOLE and content[4:8] != MAGIC
        return small and _ELSEWHERE not in content[0 : len(content)]


def _lies(artifact: Artifact, path: Path, known: Model | None, result: Result) -> Iterator[str]:
    """What the manifest says of an artifact and its files deny."""
    size, stated = path.stat().st_size, result.manifest.figures.get(artifact.file, {}).get("bytes")
    pairs: list[tuple[str, object, object]] = [("bytes", artifact.bytes, size)]
    if stated is not None:
        pairs.append(("bytes (figure)", int(stated.value), size))
    if known is not None:
        pairs += _recounted(artifact, known)
    for what, said, found in pairs:
        if said != found:
            yield f"{what} is {found} in the file and {said} in the manifest"
    for weights in () if known is None else _unlisted(known, result):
        yield f"keeps weights in {weights}, which it doesn't list"


def _unlisted(known: Model, result: Result) -> Iterator[str]:
    """Files with weights of an artifact that the manifest has no hash of."""
    listed = {PurePosixPath(name) for name in result.manifest.files}
    for file in known.files:
        inside = PurePosixPath(os.path.relpath(file, result.folder))
        if file != known.path and inside not in listed:
            yield plain(str(inside))


def _recounted(artifact: Artifact, known: Model) -> Iterator[tuple[str, object, object]]:
    """Name, said, found of all that the manifest says of a file's content."""
    yield "format", artifact.format, known.format
    if known.format == "tflite":
        counts = contents(known).counts
        yield "int8 operators", artifact.check.int8_ops, counts.int8
        yield "float operators", artifact.check.float_ops, counts.floating
        yield "operators", dict(sorted(artifact.check.op_counts.items())), dict(counts.kinds)


def _figures(result: Result) -> Iterator[tuple[str, str, Figure]]:
    manifest = result.manifest
    on_device = {} if manifest.device is None else manifest.device.figures
    for table in (manifest.figures, on_device):
        for name, figures in table.items():
            for key, figure in figures.items():
                yield name, key, figure
    for verdict in manifest.verdicts:
        if verdict.figure is not None:
            yield verdict.artifact, verdict.budget, verdict.figure


_JUDGED: dict[str, tuple[str, tuple[str, ...]]] = {
    "bytes": ("B", ("counted",)),
    "drop": ("points", ("measured",)),
    "score": ("%", ("measured",)),
    "latency_p50": ("s", ("measured",)),
    "latency_reference": ("x", ("measured",)),
    "memory_peak": ("B", ("measured",)),
    "memory_wasm": ("B", ("measured",)),
    "arena": ("B", ("measured", "counted")),
}
"""Unit and origin of each figure that a limit may be about: a limit on milliseconds isn't kept by
hours, nor a limit on what was measured by an estimate."""


def _origins(result: Result) -> Iterator[tuple[str, str]]:
    for name, key, figure in _figures(result):
        lacking = list(_lacking(figure))
        if lacking:
            yield name, f"{plain(key)} is {figure.origin.kind} without {', '.join(lacking)}."
        unit, kinds = _JUDGED.get(key, (figure.unit, (figure.origin.kind,)))
        if figure.unit != unit:
            yield name, f"{key} is in '{plain(figure.unit)}', and only '{unit}' can be judged."
        if figure.origin.kind not in kinds:
            yield name, f"{key} is {figure.origin.kind}, and only {' or '.join(kinds)} counts."


def _lacking(figure: Figure) -> Iterator[str]:
    origin = figure.origin
    if not origin.how.strip():
        yield "how"
    if origin.kind == "measured":
        if not (origin.where or "").strip():
            yield "a machine"
        if not _is_date(origin.when):
            yield "a date"
        if not origin.runs or origin.runs < 1:
            yield "a number of runs"


def _is_date(text: str | None) -> bool:
    try:
        datetime.fromisoformat(text or "")
    except ValueError:
        return False
    return True
