# SPDX-License-Identifier: Apache-2.0
"""The one way that a TOML file becomes a frozen, validated object.

Validation is strict: ``threads = "4"`` and ``threads = true`` are errors, not the number 4 or 1.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from edgeprune.errors import ConfigError, InputError, nearest
from edgeprune.reading import regular, shown

__all__ = ["Config", "load", "parse"]

_LARGEST = 2**20
"""Bytes; a repository may hold a link to what has no end."""
_AROUND = re.compile(r"^\w+ should | after validation, not \d+$")


class Config(BaseModel):
    """Base of everything read from TOML: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


T = TypeVar("T", bound=Config)


def load(path: Path, kind: type[T]) -> T:
    """Read ``path`` as ``kind``.

    Raises:
        ConfigError: The file can't be read, is no TOML, or has a wrong key or value; the message
            names the file and the key.
    """
    try:
        regular(path)
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except InputError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise ConfigError(f"{path}: has more than {_LARGEST} bytes, which no such file needs")
    try:
        table = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no TOML: it is not text in UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{path}: is no TOML: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    return parse(table, kind, str(path))


def parse(table: dict[str, Any], kind: type[T], where: str) -> T:
    """Validate ``table``, as TOML or the command line gives it, as ``kind``.

    Args:
        table: Nested dictionaries, lists, strings, numbers, booleans.
        kind: What it must be.
        where: The file, or ``command line``; named in the error.

    Raises:
        ConfigError: A wrong key or value, in one line.
    """
    try:
        # by way of JSON, since only there pydantic is strict and yet takes a list for a tuple
        return kind.model_validate_json(json.dumps(table, default=str), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        keys = _keys(kind, found[0]["loc"])
        same = [other for other in found if _along(keys, _keys(kind, other["loc"]))]
        rest = {_keys(kind, other["loc"]) for other in found if other not in same}
        more = f" (and {len(rest)} more wrong key{'s' * (len(rest) > 1)})" if rest else ""
        raise ConfigError(f"{where}: {_explain(kind, keys, same)}{more}") from None


def _explain(kind: type[BaseModel], keys: tuple[str, ...], errors: Sequence[ErrorDetails]) -> str:
    """One line on what is wrong with one key; a union gives one error for each of its members."""
    key, first = shown(".".join(keys)), errors[0]
    got = first["input"]
    if first["type"] == "json_invalid":  # tomllib takes none, but a command line may hold it
        return "a text has bytes that are no UTF-8"
    if first["type"] == "extra_forbidden":
        allowed = sorted(_fields_at(kind, keys[:-1]))
        return f"unknown key '{key}'{nearest(keys[-1], allowed)}; allowed: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    if first["type"] == "value_error":
        text = first["msg"].removeprefix("Value error, ")
        return f"key '{key}': {text}" if key else text
    if first["type"] == "model_type":
        return f"key '{key}' should be a table, [{key}], got {shown(json.dumps(got, default=str))}"
    if key == "schema_version":
        return (
            f"schema_version is {shown(str(got))}; this edgeprune reads {first['msg'].split()[-1]}"
        )
    telling = [error for error in errors if error["type"] != "too_short"] or errors
    wanted = dict.fromkeys(_AROUND.sub("", error["msg"]) for error in telling)
    expected = ", or ".join(wanted)
    hint = nearest(got, re.findall(r"'([^']+)'", expected)) if isinstance(got, str) else ""
    return f"key '{key}' should {expected}, got {shown(json.dumps(got, default=str))}{hint}"


def _along(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two errors are about the same value, or one inside the other's."""
    return all(a == b for a, b in zip(one, other, strict=False))


def _keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys of the TOML file on the way to an error, without pydantic's own union labels."""
    keys: list[str] = []
    for part in location:
        known = _table_at(kind, tuple(keys)) is not None
        if known or isinstance(part, int) or not keys:
            keys.append(str(part))
    return tuple(keys)


def _fields_at(kind: type[BaseModel], keys: tuple[str, ...]) -> list[str]:
    """The keys that a table may have; empty where ``keys`` lead to something else."""
    found = _table_at(kind, keys)
    return list(found.model_fields) if isinstance(found, type) else []


def _table_at(kind: type[BaseModel], keys: tuple[str, ...]) -> type[BaseModel] | _Named | None:
    """What ``keys`` lead to, where that is a table: of known keys, or of names to tables."""
    found: type[BaseModel] | _Named | None = kind
    for key in keys:
        if isinstance(found, _Named):
            found = found.kind
        else:
            field = None if found is None else found.model_fields.get(key)
            found = None if field is None else _table(field.annotation)
    return found


@dataclass(frozen=True)
class _Named:
    """A table whose keys are the user's names."""

    kind: type[BaseModel] | _Named | None
    """``None``: it holds values, not tables."""


def _table(annotation: object) -> type[BaseModel] | _Named | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
        if get_origin(option) is dict:
            return _Named(_table(get_args(option)[1]))
    return None
