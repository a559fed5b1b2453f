# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity: refused in weights, and in what a model answers."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.model.carrier import Model
from edgeprune.model.run import Arrays

__all__ = ["faulty_samples", "require_finite", "watched"]

_STATISTICS = ("running_mean", "running_var")
_CAUSES = (
    "a logarithm or root of a negative number, a division by zero, or values too large for the type"
)


def require_finite(model: Model, subject: object, error: type[EdgepruneError] = ModelError) -> None:
    """Refuse NaN in any parameter, buffer or constant, and infinity in parameters and statistics.

    Infinity in other buffers and in constants is left: attention masks hold it.

    Args:
        model: What to look at.
        subject: What the message begins with: the file, or the stage that made the model.
        error: What to raise.

    Raises:
        EdgepruneError: Of the kind ``error``: a tensor has such values; it is named, with their
            number.
    """
    named = {**model.program.state_dict, **model.program.constants}
    strict = {*model.program.graph_signature.parameters}
    strict |= {name for name in named if name.endswith(_STATISTICS)}
    found = [t for name, value in named.items() if (t := _fault(name, value, name in strict))]
    if found:
        more = f"; so do {len(found) - 1} other tensors" if len(found) > 1 else ""
        raise error(
            f"{subject}: {found[0]}{more}: such weights come from a training that diverged or from "
            "a damaged file; give finite ones"
        )


def _fault(name: str, value: object, infinite_too: bool) -> str | None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    value = value.detach()
    nan, infinite = int(value.isnan().sum()), int(value.isinf().sum())
    if not nan and not (infinite and infinite_too):
        return None
    kinds = [f"{count} {kind}" for count, kind in ((nan, "NaN"), (infinite, "infinite")) if count]
    values = "value" if value.numel() == 1 else "values"
    return f"'{name}' holds {' and '.join(kinds)} of {value.numel()} {values}"


def watched(
    run: Callable[[Arrays], Arrays],
    names: Sequence[str],
    samples: Callable[[], Iterable[Arrays]],
    subject: str,
    error: type[EdgepruneError],
) -> Callable[[Arrays], Arrays]:
    """``run``, refusing outputs that aren't finite.

    Args:
        run: Runs a model on a batch.
        names: Of its outputs.
        samples: All batches that it will be asked for; run once more where one of them gives NaN or
            infinity, to count.
        subject: What gives the outputs, for the message.
        error: What to raise.

    Returns:
        A function as ``run``; it raises ``error`` with the number of samples and the output's name.
    """

    def checked(arrays: Arrays) -> Arrays:
        outputs = run(arrays)
        if all(_finite(output) for output in outputs):
            return outputs
        told = faulty_samples((run(batch) for batch in samples()), names)
        raise error(f"{subject}: {told or faulty_samples([outputs], names)}")

    return checked


def faulty_samples(outputs: Iterable[Arrays], names: Sequence[str]) -> str:
    """Say how many samples give NaN or infinity, and in which output; empty where none does.

    Args:
        outputs: A model's, by batch, samples at index 0.
        names: Of the outputs.
    """
    total = 0
    nan, infinite = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for arrays in outputs:
        total += max(len(np.atleast_1d(array)) for array in arrays)
        for name, array in zip(names, arrays, strict=True):
            if not _finite(array):
                nan[name] += _samples(np.isnan(array))
                infinite[name] += _samples(np.isinf(array))
    told = list(_told(nan, infinite, total))
    return f"{'; '.join(told)}; look for {_CAUSES}" if told else ""


def _told(nan: dict[str, int], infinite: dict[str, int], total: int) -> Iterator[str]:
    for kind, counts in (("NaN", nan), ("infinity", infinite)):
        for name, count in counts.items():
            if count:
                yield f"{count} of {total} samples give {kind} in output '{name}'"


def _finite(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _samples(marked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    rows = np.atleast_1d(marked)
    return int(rows.reshape(len(rows), -1).any(1).sum())
