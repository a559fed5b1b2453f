# SPDX-License-Identifier: Apache-2.0
"""How close an artifact's outputs are to a model's, whole and by parts of unlike range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import CheckFailed
from edgeprune.report.schema import Closeness, Reference

__all__ = ["Part", "Row", "parts", "rows", "sqnr_db"]

Array = np.ndarray[Any, Any]

_UNLIKE = 8.0
"""Factor between the magnitudes of two slices from which each is judged by itself."""
_NOTHING = 1e-6
"""Share of the largest slice's magnitude below which a slice is taken for the rounding of zeros."""


@dataclass(frozen=True)
class Part:
    """Slices of an output that are judged together: those of like magnitude along one axis."""

    label: str
    axis: int
    places: tuple[int, ...]

    def of(self, array: Array) -> Array:
        """The part of an array."""
        return np.take(array, self.places, self.axis)


@dataclass(frozen=True)
class Row:
    """One comparison: an output, or a part of it, with one model's."""

    close: Closeness
    label: str
    """What messages call it."""
    wanted: Array
    got: Array
    error: Array


def parts(reference: Array) -> tuple[Part, ...]:
    """The parts of an output whose magnitudes differ by far, along axis 1 and the last one.

    A part holds the slices whose magnitude or variation over samples is within a factor of 8 of its
    largest one's: scores of classes vary alike though one may be close to zero. Slices whose values
    all lie between 0 and 1 are probabilities, which have one range however small some are.
    """
    found: list[Part] = []
    axes = dict.fromkeys((1, reference.ndim - 1)) if reference.ndim > 1 and reference.size else {}
    for axis in axes:
        groups = _groups(np.moveaxis(reference.astype(np.float64), axis, 0))
        if len(groups) > 1:
            found += [Part(_label(group, axis), axis, tuple(sorted(group))) for group in groups]
    return tuple(found)


def _groups(slices: Array) -> list[list[int]]:
    """Places of like slices, the largest first; ``slices`` has samples along axis 1."""
    sizes, spreads = _rms(slices), _rms(slices.std(axis=1))
    within = [bool(((values >= 0) & (values <= 1)).all()) for values in slices]
    groups: list[list[int]] = []
    for place in np.argsort(-sizes, kind="stable").tolist():
        first = groups[-1][0] if groups else place
        small = sizes[place] <= _NOTHING * sizes.max()
        near = _UNLIKE * sizes[place] >= sizes[first]
        moves = 0 < spreads[first] <= _UNLIKE * spreads[place]
        if groups and (small or near or moves or (within[place] and within[first])):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _rms(slices: Array) -> Array:
    return np.asarray(np.sqrt(np.mean(slices.reshape(len(slices), -1) ** 2, axis=1)))


def _label(group: Sequence[int], axis: int) -> str:
    places = sorted(group)
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    told = [f"{a}" if a == b else f"{a} to {b}" for a, b in runs[:3]]
    more = " ..." if len(runs) > 3 else ""
    return f"{', '.join(told)}{more} of axis {axis}"


def rows(
    wanted: Mapping[Reference, Sequence[Array]], got: Sequence[Array], names: Sequence[str]
) -> Iterator[Row]:
    """Each output against each model, then each of its parts, which are of the densest model's.

    Raises:
        CheckFailed: Number or shapes of the outputs differ, or some of ``got`` aren't finite.
    """
    measure = next(wanted[key] for key in ("dense", "float", "model") if key in wanted)
    cuts = [parts(w) if w.dtype.kind == "f" else () for w in measure]
    for reference, outputs in wanted.items():
        if len(outputs) != len(got):
            raise CheckFailed(f"{len(got)} outputs where its model has {len(outputs)}")
        for place, (w, g) in enumerate(zip(outputs, got, strict=True)):
            label = f"output '{names[place]}'" if len(got) > 1 else ""
            if w.shape != g.shape:
                raise CheckFailed(
                    _joined(label, f"shape {g.shape} where its model gives {w.shape}")
                )
            _require_finite(g, label)
            yield _row(reference, names[place], None, label, w, g)
            for part in cuts[place]:
                cut = part.of(w), part.of(g)
                yield _row(reference, names[place], part.label, _joined(label, part.label), *cut)


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _require_finite(got: Array, label: str) -> None:
    if got.dtype.kind != "f" or np.isfinite(got).all():
        return
    count = int((~np.isfinite(got)).sum())
    raise CheckFailed(_joined(label, f"{count} values are NaN or infinite; the model's are not"))


def _row(
    reference: Reference, output: str, part: str | None, label: str, wanted: Array, got: Array
) -> Row:
    floating = wanted.dtype.kind == "f"
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    error = np.abs(b - a)
    close = Closeness(
        reference=reference,
        output=output,
        part=part,
        sqnr_db=sqnr_db(a, error) if floating else None,
        max_abs_error=float(error.max(initial=0.0)),
        agreement=None if floating else float((error == 0).mean()) if error.size else 1.0,
    )
    return Row(close, label, a, b, error)


def sqnr_db(wanted: Array, error: Array) -> float | None:
    """Signal to noise in dB; ``None`` where there is no noise, or no signal."""
    signal, noise = float((wanted**2).sum()), float((error**2).sum())
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None
