# SPDX-License-Identifier: Apache-2.0
"""The one way that a TOML file becomes a frozen, validated object."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeprune.errors import ConfigError, nearest

__all__ = ["Config", "load", "parse"]


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
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: can't be read as TOML: {reason}") from None
    return parse(table, kind, str(path))


def parse(table: dict[str, Any], kind: type[T], where: str) -> T:
    """Validate ``table`` as ``kind``; ``where`` is named in the error.

    Raises:
        ConfigError: A wrong key or value, in one line.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(part) for part in first["loc"])
        key = ".".join(keys)
        if first["type"] == "extra_forbidden":
            allowed = _fields_at(kind, keys[:-1])
            hint = nearest(keys[-1], allowed)
            text = f"unknown key '{key}'{hint}; allowed: {', '.join(sorted(allowed))}"
        elif first["type"] == "missing":
            text = f"key '{key}' is missing"
        else:
            message = first["msg"].removeprefix("Value error, ")
            text = f"key '{key}': {message}" if key else message
        raise ConfigError(f"{where}: {text}") from None


def _fields_at(kind: type[BaseModel], keys: tuple[str, ...]) -> list[str]:
    for key in keys:
        field = kind.model_fields.get(key)
        if field is None:
            return []
        options = (field.annotation, *get_args(field.annotation))
        nested = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not nested:
            return []
        kind = nested[0]
    return list(kind.model_fields)
