# SPDX-License-Identifier: Apache-2.0
"""Reports and manifests as JSON files: written whole or not at all, equal for equal content."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgeprune.artifact.source import opened, shown
from edgeprune.errors import EdgepruneError, InputError
from edgeprune.report.schema import Manifest, RunReport
from edgeprune.report.seal import seal_of
from edgeprune.report.text import plain
from edgeprune.writing import save

__all__ = ["read_manifest", "read_report", "read_sealed", "to_json", "write_json"]

T = TypeVar("T", RunReport, Manifest)

_LARGEST = 2**23
"""Bytes; reports have some ten thousand. As JSON the worst text takes 30 times that in memory."""


def to_json(content: BaseModel) -> str:
    """JSON with sorted keys, so that equal content is equal text.

    Raises:
        EdgepruneError: A stage put something into its ``details`` that JSON can't hold.
    """
    try:
        data = content.model_dump(mode="json")
        return (
            json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        )
    except ValueError as error:
        raise EdgepruneError(
            f"{type(content).__name__} can't be written as JSON: {error}"
        ) from None


def write_json(content: RunReport | Manifest, path: Path) -> None:
    """Write ``to_json`` of ``content``; ``path`` is there whole or as it was.

    Raises:
        OutputError: It can't be written.
    """
    save(path, to_json(content))


def read_report(path: Path) -> RunReport:
    """Read a ``report.json``.

    Raises:
        InputError: It isn't there, or is no report of a known schema version.
    """
    return _read(path, RunReport)


def read_manifest(path: Path) -> Manifest:
    """Read a ``manifest.json``.

    Raises:
        InputError: It isn't there, or is no manifest of a known schema version.
    """
    return _read(path, Manifest)


def read_sealed(path: Path) -> tuple[Manifest, bool]:
    """Read a ``manifest.json``; with whether its seal is there and fits.

    Raises:
        InputError: It isn't there, or is no manifest of a known schema version.
    """
    data = _load(path, Manifest)
    manifest = _parse(path, data, Manifest)
    try:
        return manifest, manifest.seal == seal_of(data)
    except ValueError:
        return manifest, False


def _read(path: Path, kind: type[T]) -> T:
    return _parse(path, _load(path, kind), kind)


def _load(path: Path, kind: type[T]) -> dict[str, Any]:
    """The JSON object in a file that nobody vouches for."""
    name = kind.__name__
    with opened(path) as content:
        if len(content) > _LARGEST:
            raise InputError(
                f"{plain(str(path))}: {len(content)} bytes; a {name} has at most {_LARGEST}"
            )
        text = content[0 : len(content)]
    try:
        data = json.loads(text.decode())
        json.dumps(data, ensure_ascii=False).encode()  # half a character is no text anywhere
    except (ValueError, RecursionError):
        raise InputError(f"{plain(str(path))}: is no JSON, so no {name}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(data, dict) or version != 1:
        told = shown(str(version))
        raise InputError(f"{plain(str(path))}: is no {name} of schema version 1, but of {told}")
    return data


def _parse(path: Path, data: dict[str, Any], kind: type[T]) -> T:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = shown(".".join(map(str, first["loc"])))
        raise InputError(
            f"{plain(str(path))}: is no {kind.__name__}: {key}: {first['msg']}"
        ) from None
