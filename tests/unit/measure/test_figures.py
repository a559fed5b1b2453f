# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from edgeprune.measure.figures import Origins, Samples, clean_blocks, summarize

ORIGINS = Origins("a desk", "2026-01-01T00:00:00+00:00", 2, "random")


def block(p50: float, *, cpu: float = 1.0, runs: int = 200) -> dict[str, Any]:
    times = {"load": 0.1, "first": 2 * p50, "p50": p50, "p90": 1.5 * p50, "p99": 2 * p50}
    return {"runtime": "onnxruntime 1", "runs": runs, "wall": 1.0, "cpu": cpu, **times}


def blocks(*values: float, cpu: float = 1.0) -> dict[int, dict[str, Any]]:
    return {turn: block(value, cpu=cpu) for turn, value in enumerate(values)}


def figures(**samples: Samples) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    named = {name.replace("_", "."): sample for name, sample in samples.items()}
    return summarize(dict.fromkeys(named, 10), named, ORIGINS)


def test_the_median_of_blocks_with_their_range() -> None:
    found, missing, notes = figures(a_onnx=Samples(blocks=blocks(5, 1, 3, 2, 4)))
    latency = found["a.onnx"]["latency_p50"]
    assert (latency.value, latency.low, latency.high) == (3, 1, 5)
    assert latency.origin.runs == 1000
    assert "94 % order-statistic interval" in latency.origin.how
    assert "2 threads, random inputs" in latency.origin.how
    assert (missing, notes) == ((), ())


def test_disturbed_blocks_are_left_out_and_told() -> None:
    mixed = blocks(1, 2, 3) | {3: block(50, cpu=0.1), 4: block(60, cpu=0.5)}
    assert sorted(clean_blocks(mixed)) == [0, 1, 2]
    found, _, notes = figures(a_onnx=Samples(blocks=mixed))
    assert found["a.onnx"]["latency_p50"].high == 3
    assert "median of 3 of 5" in found["a.onnx"]["latency_p50"].origin.how
    assert "a.onnx: 2 of 5 blocks were disturbed" in notes[0]
    assert notes[0].endswith("left out")


def test_disturbed_blocks_are_used_where_there_are_no_others() -> None:
    found, _, notes = figures(a_onnx=Samples(blocks=blocks(1, 2, 3, cpu=0.1)))
    assert found["a.onnx"]["latency_p50"].value == 2
    assert "3 interleaved processes, 3 of them disturbed," in (
        found["a.onnx"]["latency_p50"].origin.how
    )
    assert notes[0].endswith("used all the same, for want of others")


def test_the_ratio_pairs_rounds() -> None:
    # the machine gets slower round by round: the ratio stays, the latencies don't
    dense, model = Samples(blocks=blocks(1, 2, 4, 8, 16)), Samples(blocks=blocks(2, 4, 8, 16, 32))
    found, _, _ = figures(dense_onnx=dense, model_onnx=model)
    ratio = found["model.onnx"]["latency_ratio"]
    assert (ratio.value, ratio.low, ratio.high, ratio.unit) == (2, 2, 2, "x")
    assert "dense.onnx" in ratio.origin.how
    assert "latency_ratio" not in found["dense.onnx"]


def test_the_ratio_leaves_out_rounds_that_either_lost() -> None:
    dense = Samples(blocks=blocks(1, 1, 1) | {3: block(10, cpu=0.1)})
    model = Samples(blocks=blocks(2, 2, 2, 2))
    found, _, _ = figures(dense_onnx=dense, model_onnx=model)
    assert found["model.onnx"]["latency_ratio"].low == 2


@pytest.mark.parametrize("values", [(), (1.0,)])
def test_too_few_blocks_are_no_figure(values: tuple[float, ...]) -> None:
    samples = {
        "dense_onnx": Samples(blocks=blocks(1, 2)),
        "a_onnx": Samples(blocks=blocks(*values)),
    }
    found, missing, _ = figures(**samples)
    assert set(found["a.onnx"]) == {"bytes"}
    assert missing[0].startswith("a.onnx: latency: ")
    assert missing[1].startswith("a.onnx: latency_ratio: fewer than 2 rounds")


def test_memory_is_the_median_of_fresh_processes() -> None:
    answers = [
        {"runtime": "r 1", "peak": peak, "base": 40_000_000, "model": peak // 2, "reset": True}
        for peak in (30, 10, 20)
    ]
    found, _, _ = figures(a_onnx=Samples(memory=answers, blocks=blocks(1, 2)))
    peak = found["a.onnx"]["memory_peak"]
    assert (peak.value, peak.low, peak.high, peak.unit) == (20, 10, 30, "B")
    assert "since its load" in peak.origin.how
    assert "r 1 (40.0 MB)" in peak.origin.how
    assert found["a.onnx"]["memory_model"].value == 10
