# SPDX-License-Identifier: Apache-2.0
"""Reports and manifests as JSON files: written whole or not at all, equal for equal content."""

import json
import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from edgeprune.errors import EdgepruneError, InputError, OutputError
from edgeprune.report.schema import Manifest, RunReport

__all__ = ["read_manifest", "read_report", "to_json", "write_json"]

T = TypeVar("T", RunReport, Manifest)


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
    text = to_json(content)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: can't be written: {error.strerror}") from None


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


def _read(path: Path, kind: type[T]) -> T:
    name = kind.__name__
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: is no JSON, so no {name}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != 1:
        raise InputError(f"{path}: is no {name} of schema version 1, but of {version}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: is no {name}: {key}: {first['msg']}") from None
