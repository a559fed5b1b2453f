# SPDX-License-Identifier: Apache-2.0
import pytest

from edgeprune.figure import Figure, counted, measured
from edgeprune.gate import Verdict, judge, merge, overall, passed
from edgeprune.target import Budgets, Device, Reach, Runtime, Target


def target(how: str = "ssh", hint: str | None = "edgeprune profile --device pi@board") -> Target:
    runtime = Runtime(name="onnxruntime", version="1.31", numerics=("int8", "fp32"))
    device = Device(title="A board", soc="S1", cpu="C1", cores=4, isa=("neon",), ram=10**9)
    reach = Reach.model_validate({"how": how, "hint": hint})
    return Target(schema_version=1, name="board", device=device, reach=reach, onnx=runtime)


def figure(value: float, unit: str, low: float | None = None, high: float | None = None) -> Figure:
    return measured(
        value, unit, "a test", where="a desk", when="2026-01-01", runs=500, low=low, high=high
    )


def one(
    budgets: Budgets, figures: dict[str, Figure], *, device_measured: bool = True, on: str = "local"
) -> Verdict:
    named = {"model.onnx": figures}
    (verdict,) = judge(budgets, named, target=target(on), device=named if device_measured else None)
    return verdict


def test_a_counted_size() -> None:
    verdict = one(Budgets(size=100_000), {"bytes": counted(98_600, "B", "size of the file")})
    assert (verdict.budget, verdict.artifact, verdict.limit, verdict.unit) == (
        "size",
        "model.onnx",
        100_000,
        "B",
    )
    assert verdict.outcome == "pass"
    assert verdict.reason == "size 98.6 kB keeps the limit of 100 kB (counted)."


@pytest.mark.parametrize(("value", "outcome"), [(100_000, "pass"), (100_001, "fail")])
def test_the_limit_itself_is_allowed(value: int, outcome: str) -> None:
    assert one(Budgets(size=100_000), {"bytes": counted(value, "B", "")}).outcome == outcome


def test_figures_that_look_like_the_limit_are_told_apart() -> None:
    verdict = one(Budgets(size=2_000_000), {"bytes": counted(2_000_004, "B", "")})
    assert "size 2,000,004 B is over the limit of 2,000,000 B" in verdict.reason


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.020, 0.024, "pass"),
        (0.020, 0.025, "pass"),
        (0.024, 0.026, "inconclusive"),
        (0.025, 0.026, "inconclusive"),
        (0.0251, 0.027, "fail"),
    ],
)
def test_an_interval_against_the_limit(low: float, high: float, outcome: str) -> None:
    figures = {"latency_p50": figure((low + high) / 2, "s", low, high)}
    verdict = one(Budgets(latency=0.025), figures)
    assert verdict.outcome == outcome
    assert verdict.figure == figures["latency_p50"]
    assert "on a desk, 500 runs" in verdict.reason
    assert verdict.reason.startswith("warning: ") == (outcome == "inconclusive")


def test_without_an_interval_the_value_counts() -> None:
    assert one(Budgets(memory=100), {"memory_peak": figure(101, "B")}).outcome == "fail"
    assert one(Budgets(memory=101), {"memory_peak": figure(101, "B")}).outcome == "pass"


def test_a_drop_is_judged_on_its_value_and_tells_its_interval() -> None:
    verdict = one(Budgets(drop=1.0), {"drop": figure(0.8, "points", -0.3, 1.9)})
    assert verdict.outcome == "pass"
    assert "drop 0.80 points (-0.30 points to 1.90 points)" in verdict.reason
    assert one(Budgets(drop=0.7), {"drop": figure(0.8, "points", 0, 2)}).outcome == "fail"


@pytest.mark.parametrize(
    ("budgets", "figures"),
    [
        (Budgets(latency=1.0), {"latency_p50": figure(0.001, "s", 0.001, 0.001)}),
        (Budgets(memory=10**9), {"memory_peak": figure(1000, "B")}),
    ],
)
def test_another_machines_figures_never_pass(budgets: Budgets, figures: dict[str, Figure]) -> None:
    verdict = one(budgets, figures, device_measured=False, on="ssh")
    assert verdict.outcome == "not measured"
    assert verdict.figure is None
    assert "another machine: a desk" in verdict.reason
    assert "edgeprune profile --device pi@board" in verdict.reason
    assert "--allow-unmeasured" in verdict.reason


@pytest.mark.parametrize("device", [{}, {"a": {}}, None])
def test_what_is_not_there_is_not_measured(device: dict[str, dict[str, Figure]] | None) -> None:
    budgets = Budgets(size=1, latency=1, memory=1, drop=1)
    verdicts = judge(budgets, {"a": {}, "b": {}}, target=target(hint=None), device=device)
    assert [(v.artifact, v.budget) for v in verdicts] == [
        (artifact, budget) for artifact in "ab" for budget in ("size", "latency", "memory", "drop")
    ]
    assert {v.outcome for v in verdicts} == {"not measured"}
    assert all(v.figure is None and v.reason.endswith(".") for v in verdicts)


def test_the_devices_own_figures_count() -> None:
    here = {"a": {"latency_p50": figure(0.001, "s"), "memory_peak": figure(10, "B")}}
    there = {"a": {"latency_p50": figure(0.1, "s"), "memory_peak": figure(1000, "B")}}
    verdicts = judge(Budgets(latency=0.01, memory=100), here, target=target(), device=there)
    assert [v.outcome for v in verdicts] == ["fail", "fail"]
    assert [v.figure for v in verdicts] == list(there["a"].values())


def test_the_memory_of_a_microcontroller_is_its_arena() -> None:
    device = target().device.model_copy(update={"flash": 2**20})
    small = target().model_copy(update={"device": device})
    there = {"a": {"memory_peak": figure(10**9, "B"), "arena": figure(58_336, "B")}}
    (verdict,) = judge(Budgets(memory=60_000), {"a": {}}, target=small, device=there)
    assert (verdict.outcome, verdict.figure) == ("pass", there["a"]["arena"])
    (verdict,) = judge(Budgets(memory=60_000), {"a": {}}, target=target(), device=there)
    assert verdict.outcome == "fail"


def test_size_and_drop_need_no_device() -> None:
    figures = {"bytes": counted(1, "B", ""), "drop": figure(0, "points")}
    verdicts = judge(Budgets(size=1, drop=0), {"a": figures}, target=target(), device=None)
    assert {v.outcome for v in verdicts} == {"pass"}


def test_no_budget_judges_nothing() -> None:
    assert judge(Budgets(), {"a": {}}, target=target(), device=None) == ()
    assert passed(())
    assert overall(()) == "no budget was set, so nothing was judged"


def outcomes(*names: str) -> tuple[Verdict, ...]:
    return tuple(
        Verdict.model_validate(
            {
                "budget": "size",
                "artifact": f"m{k}",
                "limit": 1,
                "unit": "B",
                "outcome": name,
                "figure": None,
                "reason": "",
            }
        )
        for k, name in enumerate(names)
    )


@pytest.mark.parametrize(
    ("names", "strict", "allowing"),
    [
        (("pass", "pass"), True, True),
        (("pass", "inconclusive"), True, True),
        (("pass", "not measured"), False, True),
        (("pass", "fail"), False, False),
        (("not measured", "fail"), False, False),
    ],
)
def test_passed(names: tuple[str, ...], strict: bool, allowing: bool) -> None:
    assert passed(outcomes(*names)) is strict
    assert passed(outcomes(*names), allow_unmeasured=True) is allowing


def test_overall() -> None:
    assert overall(outcomes("pass")) == "the budget is met"
    assert overall(outcomes("pass", "pass")) == "all 2 budgets are met"
    assert overall(outcomes("fail")) == "of 1 budget: 1 failed (size of m0)"
    assert overall(outcomes("pass", "not measured", "fail", "inconclusive", "fail")) == (
        "of 5 budgets: 2 failed (size of m2, size of m4); 1 not measured (size of m1); "
        "1 inconclusive (size of m3); 1 met"
    )


def test_merge_puts_the_command_line_first() -> None:
    both = merge(Budgets(size=1, latency=2, drop=3), Budgets(latency=5, drop=0))
    assert both == Budgets(size=1, latency=5, drop=0)
    assert merge(Budgets(size=1), Budgets()) == Budgets(size=1)


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ({"pruning": 0.0, "quantization": 7.9, "export": 0.1}, "quantization lost the most, 7.90"),
        ({"pruning": 6.0, "quantization": 1.0, "export": 1.0}, "prune less, or fine-tune longer"),
        ({"pruning": -1.0, "quantization": 0.0, "export": 9.0}, "the file of the other format"),
    ],
)
def test_advice_on_a_drop_is_about_the_stage_that_lost_most(losses, words) -> None:
    figures = {"a": {"drop": figure(8.0, "points")}}
    (verdict,) = judge(Budgets(drop=1), figures, target=target(), device=None, losses={"a": losses})
    assert verdict.outcome == "fail"
    assert words in verdict.reason
