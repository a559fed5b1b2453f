# SPDX-License-Identifier: Apache-2.0
"""Whether a manifest and its files belong together, and its figures say where they are from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from edgeprune.artifact import contents, digest, limits, read
from edgeprune.artifact.source import regular
from edgeprune.check.case import Case, Result, told
from edgeprune.errors import InputError
from edgeprune.figure import Figure
from edgeprune.gate.judged import Judged, Rule
from edgeprune.report.schema import Artifact
from edgeprune.report.text import plain

__all__ = ["Integrity", "absent", "inspect"]

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
    findings = list(_files(case, result, hashes, here))
    genuine = {name for name, found in hashes.items() if found == result.manifest.files[name]}
    findings += _edited(case, result, genuine)
    findings += [
        _Finding("integrity/origin", case.path, f"{plain(name)}: {reason}")
        for name, reason in _origins(result)
    ]
    return Integrity(tuple(_summed(case, here, findings)), hashes, frozenset(genuine))


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
        return f"{plain(str(error))}."
    except OSError as error:
        return f"It can't be read: {error.strerror}."
    return None


def _edited(case: Case, result: Result, genuine: set[str]) -> Iterator[_Finding]:
    def finding(reason: str) -> _Finding:
        return _Finding("integrity/edited", case.path, reason)

    manifest = result.manifest
    if manifest.seal is None:
        yield finding("It has no seal: it was written by an edgeprune that made none, or edited.")
    elif not result.sealed:
        yield finding("Its seal doesn't fit: it was edited after it was written.")
    for artifact in manifest.artifacts:
        name = plain(artifact.file)
        if manifest.files.get(artifact.file) != artifact.sha256:
            yield finding(f"{name}: its artifact isn't the file that it lists under that name.")
        elif artifact.file in genuine:
            path = _inside(result.folder, artifact.file, "")
            for what, said, found in _recounted(artifact, manifest.figures, path):
                yield finding(f"{name}: {what} is {found} in the file and {said} in the manifest.")
    for name, key, figure in _figures(result):
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        if not low <= figure.value <= high:
            yield finding(f"{plain(name)}: {plain(key)}: {figure.value} isn't in its interval.")


def _recounted(
    artifact: Artifact, figures: Mapping[str, Mapping[str, Figure]], path: Path
) -> Iterator[tuple[str, object, object]]:
    """What the manifest says otherwise than the file: name, said, found."""
    size = path.stat().st_size
    pairs: list[tuple[str, object, object]] = [("bytes", artifact.bytes, size)]
    stated = figures.get(artifact.file, {}).get("bytes")
    if stated is not None:
        pairs.append(("bytes (figure)", int(stated.value), size))
    if artifact.format == "tflite":
        # An ONNX file's counts are of what its runtime makes of it, which isn't in the file.
        counts = contents(read(path)).counts
        pairs += [
            ("int8 operators", artifact.check.int8_ops, counts.int8),
            ("float operators", artifact.check.float_ops, counts.floating),
            ("operators", dict(sorted(artifact.check.op_counts.items())), dict(counts.kinds)),
        ]
    yield from (pair for pair in pairs if pair[1] != pair[2])


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


def _origins(result: Result) -> Iterator[tuple[str, str]]:
    for name, key, figure in _figures(result):
        lacking = list(_lacking(figure))
        if lacking:
            yield name, f"{plain(key)} is {figure.origin.kind} without {', '.join(lacking)}."


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
