# SPDX-License-Identifier: Apache-2.0
"""Which layers of a model changed. Pure.

Exporters number their layers, so one layer more renames all that follow. Layers that are equal in
type and sizes are therefore taken for the same first, in order; names decide between the rest.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from edgeprune.gate.lock import LayerSize
from edgeprune.report.text import count, plain
from edgeprune.units import format_bytes

__all__ = ["Change", "blame", "changes"]

By = Literal["bytes", "macs"]

_TOLD = 3
_LONGEST = 80
"""Characters of a layer's name, from its end."""
_ALIGNED = 1000
"""Layers up to which two files are aligned, which takes their product in the worst case."""


class Change(NamedTuple):
    """One layer before and after; ``None`` where it isn't there."""

    before: LayerSize | None
    after: LayerSize | None

    @property
    def name(self) -> str:
        """The layer's name, the present one if it is still there; of a long one the end."""
        layer = self.after or self.before
        assert layer is not None
        return f"{_short(plain(layer.name))} ({plain(layer.type)})"

    def growth(self, by: By) -> int:
        """By how much it grew; below zero where it shrank."""
        return _size(self.after, by) - _size(self.before, by)

    @property
    def text(self) -> str:
        """What changed: ``new: 9.2 k parameters, 590 k MACs, 9.4 kB``."""
        if self.before is None or self.after is None:
            layer = self.after or self.before
            assert layer is not None
            macs = "" if layer.macs is None else f", {count(layer.macs)} MACs"
            sizes = f"{count(layer.parameters)} parameters{macs}, {format_bytes(layer.bytes)}"
            return f"{'new' if self.before is None else 'gone'}: {sizes}"
        return ", ".join(
            part
            for part in (
                _pair("parameters", self.before.parameters, self.after.parameters, count),
                _pair("MACs", self.before.macs, self.after.macs, count),
                _pair("bytes", self.before.bytes, self.after.bytes, format_bytes),
            )
            if part
        )


def changes(before: Sequence[LayerSize], after: Sequence[LayerSize]) -> tuple[Change, ...]:
    """The layers that changed, in the order of ``after``; those that are gone last."""
    if len(before) > _ALIGNED or len(after) > _ALIGNED:
        return _by_name(before, after)
    found: list[Change] = []
    for a, b in _gaps(before, after, lambda layer: layer):
        for c, d in _gaps(a, b, _sizes):
            found += _by_name(c, d)
    return tuple(sorted(found, key=lambda change: change.after is None))


def blame(
    before: Sequence[LayerSize], after: Sequence[LayerSize], by: By = "bytes"
) -> tuple[str, ...]:
    """The layers that grew most, each with its sizes; at most three."""
    grown = [change for change in changes(before, after) if change.growth(by) > 0]
    grown.sort(key=lambda change: -change.growth(by))
    return tuple(f"{change.name}: {change.text}" for change in grown[:_TOLD])


Layers = Sequence[LayerSize]


def _sizes(layer: LayerSize) -> Hashable:
    return layer.type, layer.parameters, layer.macs, layer.bytes


def _gaps(
    before: Layers, after: Layers, key: Callable[[LayerSize], Hashable]
) -> list[tuple[Layers, Layers]]:
    """What lies between the layers that are equal by ``key``."""
    matcher = SequenceMatcher(
        None, [key(layer) for layer in before], [key(layer) for layer in after], autojunk=False
    )
    return [
        (before[i:j], after[k:m]) for tag, i, j, k, m in matcher.get_opcodes() if tag != "equal"
    ]


def _by_name(before: Layers, after: Layers) -> tuple[Change, ...]:
    """Match by name and type; then, in order, by type alone; the rest came or went."""
    left = list(before)
    partner: dict[int, LayerSize] = {}
    for same in (_named, _typed):
        waiting: dict[Hashable, list[LayerSize]] = {}
        for layer in left:
            waiting.setdefault(same(layer), []).append(layer)
        for place, layer in enumerate(after):
            if place not in partner and waiting.get(same(layer)):
                partner[place] = waiting[same(layer)].pop(0)
        taken = Counter(map(id, partner.values()))
        left = [layer for layer in left if not taken[id(layer)]]
    changed = [
        Change(partner.get(place), layer)
        for place, layer in enumerate(after)
        if place not in partner or _sizes(partner[place]) != _sizes(layer)
    ]
    return (*changed, *(Change(layer, None) for layer in left))


def _named(layer: LayerSize) -> Hashable:
    return layer.name, layer.type


def _typed(layer: LayerSize) -> Hashable:
    return layer.type


def _short(name: str) -> str:
    """TFLite's converter joins the names of all that it fused; the last is the layer's own."""
    if len(name) <= _LONGEST:
        return name
    own = name.rpartition(";")[2]
    return f"…{own[-_LONGEST:]}"


def _size(layer: LayerSize | None, by: By) -> int:
    return 0 if layer is None else (getattr(layer, by) or 0)


def _pair(name: str, before: int | None, after: int | None, text: Callable[[float], str]) -> str:
    if before == after:
        return ""
    old, new = (("unknown" if each is None else text(each)) for each in (before, after))
    if old == new and before is not None and after is not None:
        old, new = f"{before:,}", f"{after:,}"
    return f"{name} {old} -> {new}"
