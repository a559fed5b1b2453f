# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from edgeprune.figure import counted
from edgeprune.measure.figures import Origins, Samples, clean_blocks, summarize

ORIGINS = Origins("a desk", "2026-01-01T00:00:00+00:00", 2, "random")
BUSY = "wall time over 1.5 x CPU time"


def block(turn: int, p50: float, *tainted: str, runs: int = 200) -> dict[str, Any]:
    times = {"load": 0.1, "first": 2 * p50, "p50": p50, "p90": 1.5 * p50, "p99": 2 * p50}
    return {"turn": turn, "runtime": "onnxruntime 1", "runs": runs, "tainted": tainted, **times}


def blocks(*values: float) -> list[dict[str, Any]]:
    return [block(turn, value) for turn, value in enumerate(values)]


def busy(*values: float, first: int = 0) -> list[dict[str, Any]]:
    return [block(first + turn, value, BUSY) for turn, value in enumerate(values)]


def figures(**samples: Samples) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    named = {name.replace("_", "."): sample for name, sample in samples.items()}
    sizes = dict.fromkeys(named, counted(10, "B", "size of the file"))
    return summarize(sizes, named, ORIGINS)


def memory(**changes: Any) -> dict[str, Any]:
    answer = {
        "runtime": "r 1",
        "peak": [30, 10, 20],
        "base": [40_000_000] * 3,
        "model": [15, 5, 10],
        "reset": True,
        "arena": {"bytes": 58_336, "how": "tensor addresses"},
        "arena_reason": None,
        "killed": None,
    }
    return answer | changes


def test_the_median_of_blocks_with_their_range() -> None:
    found, missing, notes = figures(a_onnx=Samples(blocks=blocks(5, 1, 3, 2, 4)))
    latency = found["a.onnx"]["latency_p50"]
    assert (latency.value, latency.low, latency.high) == (3, 1, 5)
    assert latency.origin.runs == 1000
    assert "75 % order-statistic interval" in latency.origin.how
    assert "2 threads, random inputs" in latency.origin.how
    assert (missing, notes) == ((), ())


def test_disturbed_blocks_are_left_out_and_told() -> None:
    mixed = blocks(1, 2, 3, 2, 1) + busy(50, 60, first=5)
    assert [each["turn"] for each in clean_blocks(mixed)] == [0, 1, 2, 3, 4]
    found, _, notes = figures(a_onnx=Samples(blocks=mixed))
    assert found["a.onnx"]["latency_p50"].high == 3
    assert "median of 5 of 7" in found["a.onnx"]["latency_p50"].origin.how
    assert f"a.onnx: 2 of 7 blocks were disturbed ({BUSY})" in notes[0]
    assert notes[0].endswith("left out")


def test_disturbed_blocks_are_used_where_there_are_no_others() -> None:
    found, _, notes = figures(a_onnx=Samples(blocks=busy(1, 2, 3)))
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
    dense = Samples(blocks=blocks(1, 1, 1, 1, 1) + busy(10, first=5))
    found, _, _ = figures(dense_onnx=dense, model_onnx=Samples(blocks=blocks(2, 2, 2, 2, 2, 2)))
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


def test_few_runs_give_no_99th_percentile() -> None:
    few = [block(turn, 1.0, runs=20) for turn in range(5)]
    found, missing, _ = figures(a_onnx=Samples(blocks=few))
    assert {"latency_p50", "latency_p90"} <= set(found["a.onnx"])
    assert "latency_p99" not in found["a.onnx"]
    assert missing == ("a.onnx: latency_p99: 20 runs a block are too few, 100 are needed",)


def test_memory_is_the_median_of_fresh_processes() -> None:
    found, missing, _ = figures(a_onnx=Samples(memory(), blocks(1, 2)))
    peak = found["a.onnx"]["memory_peak"]
    assert (peak.value, peak.low, peak.high, peak.unit) == (20, 10, 30, "B")
    assert "since its load" in peak.origin.how
    assert "r 1 (40.0 MB)" in peak.origin.how
    assert found["a.onnx"]["memory_model"].value == 10
    assert found["a.onnx"]["arena"].value == 58_336
    assert "tensor addresses" in found["a.onnx"]["arena"].origin.how
    assert missing == ()


@pytest.mark.parametrize(
    ("changes", "reason", "kept"),
    [
        ({"arena": None, "arena_reason": "too old"}, "a.onnx: arena: too old", 2),
        (
            {"killed": 9},
            "a.onnx: memory: its process was killed (SIGKILL), most likely for want of",
            0,
        ),
        (
            {"killed": 11},
            "a.onnx: memory: its process died of SIGSEGV, as a runtime may that comes to the",
            0,
        ),
        ({"peak": [], "base": [], "model": []}, "a.onnx: memory: the time limit came first", 0),
    ],
)
def test_memory_that_could_not_be_had_is_absent(
    changes: dict[str, Any], reason: str, kept: int
) -> None:
    found, missing, _ = figures(a_onnx=Samples(memory(**changes), blocks(1, 2)))
    assert missing[0].startswith(reason)
    assert len([key for key in found["a.onnx"] if "memory" in key or key == "arena"]) == kept


def test_a_latency_process_that_was_killed_is_named() -> None:
    found, missing, _ = figures(a_onnx=Samples(blocks=blocks(1, 2, 3), killed=9))
    assert set(found["a.onnx"]) == {"bytes"}
    assert missing[0].startswith("a.onnx: latency: its process was killed")


def test_what_ended_the_blocks_early_is_told() -> None:
    found, missing, _ = figures(a_onnx=Samples(blocks=blocks(1, 2), cut="a block hung"))
    assert "latency_p50" in found["a.onnx"]
    assert missing == ("a.onnx: all blocks of latency that were planned: a block hung",)
    _, missing, _ = figures(a_onnx=Samples(cut="a block hung"))
    assert missing == ("a.onnx: latency: no block was done, an interval takes 2: a block hung",)


def test_energy_of_an_inference() -> None:
    answer = {
        "meter": "rapl",
        "idle": {"watts": 4.0},
        "busy": {"runs": 100},
        "joules_per_inference": 0.25,
    }
    found, _, _ = figures(a_onnx=Samples(blocks=blocks(1, 2), energy=answer))
    energy = found["a.onnx"]["energy"]
    assert (energy.value, energy.unit, energy.origin.runs) == (0.25, "J", 100)
    assert "rapl" in energy.origin.how
    assert "idle 4 W" in energy.origin.how
    none = {"meter": None, "reason": "no meter here"}
    found, missing, _ = figures(a_onnx=Samples(blocks=blocks(1, 2), energy=none))
    assert "energy" not in found["a.onnx"]
    assert missing == ("a.onnx: energy: no meter here",)
