# SPDX-License-Identifier: Apache-2.0
"""Sizes and times as people write them: ``2MB``, ``512 KiB``, ``25ms``."""

import math
import re
from collections.abc import Mapping

__all__ = ["format_bytes", "format_seconds", "parse_bytes", "parse_seconds"]

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Zµ]+)\s*")


def parse_bytes(text: str) -> int:
    """Bytes of ``2MB`` (10^6), ``2MiB`` (2^20) and the like.

    Raises:
        ValueError: The text is no number with one of the units B, kB, MB, GB, KiB, MiB, GiB.
    """
    return round(_parse(text, _BYTES, "B, kB, MB, GB, KiB, MiB, GiB", "2MB"))


def parse_seconds(text: str) -> float:
    """Seconds of ``25ms``, ``800us``, ``1.5s``.

    Raises:
        ValueError: The text is no number with one of the units us, ms, s.
    """
    return _parse(text, _SECONDS, "us, ms, s", "25ms")


def format_bytes(count: float) -> str:
    """Three significant digits in decimal units: ``271 kB``, ``1.09 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * scale:
            return f"{_short(count / scale)} {unit}"
    return f"{count:.0f} B"


def format_seconds(seconds: float) -> str:
    """Three significant digits: ``812 us``, ``25 ms``, ``1.5 s``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * scale:
            return f"{_short(seconds / scale)} {unit}"
    return f"{_short(seconds / 1e-6)} us"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def _parse(text: str, units: Mapping[str, float], allowed: str, example: str) -> float:
    match = _QUANTITY.fullmatch(text)
    scale = units.get(match[2].lower()) if match is not None else None
    value = float(match[1]) * scale if match is not None and scale is not None else math.inf
    if not math.isfinite(value):
        raise ValueError(
            f"'{text}' is no quantity; write a number with a unit of {allowed}, such as {example}"
        )
    return value
