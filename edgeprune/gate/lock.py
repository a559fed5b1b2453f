# SPDX-License-Identifier: Apache-2.0
"""The baseline that a team commits: ``edgeprune.lock.json``, the figures that were accepted last.

Latency means nothing without its machine: it is kept as a ratio to a reference model that was
measured in the same run, and the absolute figure only for people to read.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from edgeprune.artifact.source import opened
from edgeprune.errors import ConfigError
from edgeprune.figure import Figure

__all__ = ["Accepted", "Edge", "LayerSize", "Lock", "Machine", "read_lock"]


_LARGEST = 2**24
"""Bytes; a model of 100 layers takes 20 thousand."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LayerSize(_Frozen):
    """What one layer of an artifact had, so that the one that grew can be named later."""

    name: str
    type: str
    parameters: int
    macs: int | None
    bytes: int


class Machine(_Frozen):
    """On what something was measured; never a host name."""

    description: str
    fingerprint: str
    """Of all that makes latencies comparable: processor, cores, kernel, governor, runtime."""


def _ordered(figure: Figure) -> Figure:
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    if not low <= figure.value <= high:
        raise ValueError("the value isn't in its own interval")
    return figure


class Edge(_Frozen):
    """An input or output of an artifact."""

    name: str
    shape: tuple[int | None, ...] | None
    """``None`` is a size that is left open; as a whole: not even the rank is known."""
    dtype: str


class Accepted(_Frozen):
    """One artifact as it was accepted."""

    sha256: str
    figures: dict[str, Annotated[Figure, AfterValidator(_ordered)]]
    """``bytes``, ``parameters``, ``macs``, ``arena_estimate``, ``score``; where it was measured
    also ``latency_p50``, ``memory_peak`` ... and ``latency_reference`` (x): its latency over that
    of the reference model, round by round."""
    inputs: tuple[Edge, ...] | None = None
    outputs: tuple[Edge, ...] | None = None
    """``None``: not known then, as in files of schema version 1."""
    layers: tuple[LayerSize, ...] = ()
    machine: Machine | None = None


class Lock(_Frozen):
    """The whole file."""

    schema_version: Literal[1, 2] = 2
    """1 is read and never written: it has no ``inputs`` and ``outputs``."""
    accepted: str
    """When; ISO 8601, UTC."""
    reason: str
    """Why this was accepted, in the words of who did."""
    edgeprune: str
    models: dict[str, dict[str, dict[str, Accepted]]]
    """By model, target, and name of the artifact's file."""


def read_lock(path: Path) -> Lock | None:
    """Read a lock file; ``None`` where there is none.

    Raises:
        ConfigError: It isn't one.
        InputError: It can't be read.
    """
    if not path.exists() and not path.is_symlink():
        return None
    with opened(path) as content:
        if len(content) > _LARGEST:
            raise ConfigError(f"{path}: has more than {_LARGEST} bytes, which no lock file has")
        return parse_lock(content[0 : len(content)], str(path))


def parse_lock(text: bytes, where: str) -> Lock:
    """Read a lock file's content, of any commit.

    Raises:
        ConfigError: It isn't one; ``where`` is named.
    """
    try:
        return Lock.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"{where}: is no lock file of this edgeprune: {key}: {first['msg']}; "
            "`edgeprune baseline accept` writes a new one once it is removed"
        ) from None
