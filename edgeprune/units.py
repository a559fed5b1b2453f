# SPDX-License-Identifier: Apache-2.0
"""Sizes and times as people write them: ``2MB``, ``512 KiB``, ``25ms``."""

import re

__all__ = ["format_bytes", "parse_bytes", "parse_seconds"]

_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")


def parse_bytes(text: str) -> int:
    """Bytes of ``2MB`` (10^6), ``2MiB`` (2^20) and the like.

    Raises:
        ValueError: The text is no number with one of the units B, kB, MB, GB, KiB, MiB, GiB.
    """
    return round(_parse(text, _BYTES, "B, kB, MB, GB, KiB, MiB, GiB"))


def parse_seconds(text: str) -> float:
    """Seconds of ``25ms``, ``800us``, ``1.5s``.

    Raises:
        ValueError: The text is no number with one of the units us, ms, s.
    """
    return _parse(text, _SECONDS, "us, ms, s")


def format_bytes(count: float) -> str:
    """Three significant digits in decimal units: ``271 kB``, ``1.09 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 999.5 * scale else f"{count / scale:.0f} {unit}"
    return f"{count:.0f} B"


def _parse(text: str, units: dict[str, float] | dict[str, int], allowed: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise ValueError(f"'{text}' is no quantity; write a number with a unit of {allowed}")
    return float(match[1]) * units[match[2].lower()]
