# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.evidence import _losses
from edgeprune.figure import measured


def drop(value: float | None) -> dict[str, Any]:
    if value is None:
        return {}
    return {"drop": measured(value, "points", "paired", where="here", when="2026-01-01", runs=9)}


@pytest.mark.parametrize(
    ("drops", "lost"),
    [
        ((None, 30.0, 2.0, 2.5, 2.5), (2.0, 0.5, 1.0)),
        ((None, None, None, 3.25, 3.25), (0.0, 3.25, 0.25)),  # nothing was pruned or trained
        ((None, 2.5, None, None, None), (2.5, 0.0, 1.0)),  # float numerics
    ],
)
def test_each_stage_answers_for_what_it_lost(
    drops: tuple[float | None, ...], lost: tuple[float, ...]
) -> None:
    steps: Any = [SimpleNamespace(report=SimpleNamespace(figures=drop(each))) for each in drops]
    found = _losses(steps, {"model.onnx": drop(3.5), "dense.onnx": {}})
    wanted = dict(zip(("pruning", "quantization", "export"), lost, strict=True))
    assert found == {"model.onnx": wanted}
