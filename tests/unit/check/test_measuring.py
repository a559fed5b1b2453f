# SPDX-License-Identifier: Apache-2.0
"""What is measured for which limits, how often, and what becomes of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.check import Request, Rules, check, gather
from edgeprune.check.accept import accept, present
from edgeprune.check.measuring import LOOKS, Measuring
from edgeprune.errors import InputError
from edgeprune.figure import Figure
from edgeprune.gate.judged import CheckReport, Judged
from edgeprune.measure.profile import here
from edgeprune.measure.reference import Referenced
from edgeprune.measure.result import Profile
from edgeprune.progress import Silent
from edgeprune.project import find_project
from edgeprune.recipe import ProfileOptions
from tests.unit.check import made
from tests.unit.profiler.models import chain

PROJECT = """\
[models.net]
artifacts = ["net.onnx"]
targets = ["host"]
"""
LATENCY = '\n[budgets.host]\nlatency = "10ms"\n'
GROWTH = '\n[baseline]\nlatency = "+5 %"\n'


class Scripted:
    """Answers of a device, one after the other; the last one for ever."""

    def __init__(self, times: list[Figure], ratios: list[Figure]) -> None:
        self.times, self.ratios = times, ratios
        self.blocks: list[int] = []
        self.looks = 0
        self.clock = 0.0

    def profile(self, files: Any, options: ProfileOptions, *_: Any, **__: Any) -> Profile:
        self.clock += options.blocks
        time = self.times[min(len(self.blocks), len(self.times) - 1)]
        self.blocks.append(options.blocks)
        return Profile({name: {"latency_p50": time} for name in files}, (), (), "here")

    def measure_reference(self, files: Any, *_: Any, **__: Any) -> Referenced:
        self.clock += 5
        ratio = self.ratios[min(self.looks, len(self.ratios) - 1)]
        self.looks += 1
        return Referenced(dict.fromkeys(files, ratio), "here", dict.fromkeys(files, "f"))


def ratio(value: float, off: float) -> Figure:
    return made.timed(value, value * (1 - off), value * (1 + off)).model_copy(update={"unit": "x"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    chain(tmp_path / "net.onnx")
    yield tmp_path


def run(
    folder: Path,
    text: str,
    device: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    accepted: Figure | None = None,
    limit: float = 120,
) -> CheckReport:
    """A check with ``--measure``, against a baseline of ``accepted`` where there is one."""
    (folder / "edgeprune.toml").write_text(PROJECT + text)
    project = find_project(folder)
    monkeypatch.setattr("edgeprune.measure.profile.profile", device.profile)
    monkeypatch.setattr("edgeprune.measure.reference.measure_reference", device.measure_reference)
    monkeypatch.setattr("edgeprune.check.measuring.time.monotonic", lambda: device.clock)
    measuring = Measuring(lambda _: here(), Silent(), ProfileOptions(time_limit=limit))
    lock = None
    if accepted is not None:
        before = Scripted([made.timed(0.001, 0.001, 0.001)], [accepted])
        monkeypatch.setattr("edgeprune.measure.profile.profile", before.profile)
        monkeypatch.setattr(
            "edgeprune.measure.reference.measure_reference", before.measure_reference
        )
        cases = gather(Request(), folder, project, None)
        subjects, _ = present(cases, folder, measuring)
        lock = accept(subjects, None, whole=True, reason="r", when=made.WHEN)
        monkeypatch.setattr("edgeprune.measure.profile.profile", device.profile)
        monkeypatch.setattr(
            "edgeprune.measure.reference.measure_reference", device.measure_reference
        )
    return check(gather(Request(), folder, project, lock), folder, Rules(), measuring)


def latency(report: CheckReport) -> list[Judged]:
    return [each for each in report.judged if each.rule == "baseline/latency"]


def test_only_what_a_limit_is_about_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Scripted([made.timed(0.005, 0.004, 0.006)], [ratio(1, 0.01)])
    run(folder, "", device, monkeypatch)
    assert (device.blocks, device.looks) == ([], 0)
    run(folder, LATENCY, device, monkeypatch)
    assert (device.blocks, device.looks) == ([5], 0)
    run(folder, GROWTH, device, monkeypatch)
    assert (device.blocks, device.looks) == ([5], 1)


def test_an_open_time_is_measured_again_twice_as_long_and_judged_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [made.timed(0.0101, 0.009, 0.011)] * 2 + [made.timed(0.0095, 0.0094, 0.0096)]
    device = Scripted(times, [])
    report = run(folder, LATENCY, device, monkeypatch)
    assert device.blocks == [5, 10, 20]
    (latency,) = (each for each in report.judged if each.rule == "budget/latency")
    assert latency.outcome == "pass"
    assert latency.figure == times[2]


def test_what_stays_open_ends_with_the_time_limit_as_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Scripted([made.timed(0.0101, 0.009, 0.011)], [])
    report = run(folder, LATENCY, device, monkeypatch, limit=60)
    assert device.blocks == [5, 10, 20]
    assert device.clock <= 60
    assert not report.failed
    assert [each.rule for each in report.warnings] == ["budget/latency"]


def test_a_ratio_is_looked_at_twice_at_most(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Scripted([], [ratio(1.05, 0.02)])
    report = run(folder, GROWTH, device, monkeypatch, accepted=ratio(1.0, 0.01))
    assert device.looks == LOOKS
    assert [each.outcome for each in latency(report)] == ["inconclusive"]
    slower = Scripted([], [ratio(1.15, 0.01)])
    report = run(folder, GROWTH, slower, monkeypatch, accepted=ratio(1.0, 0.01))
    assert slower.looks == 1
    (failed,) = report.failed
    assert "+15 %" in failed.reason


def test_a_second_look_is_judged_with_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second alone would pass."""
    device = Scripted([], [ratio(1.12, 0.06), ratio(1.0, 0.02)])
    report = run(folder, GROWTH, device, monkeypatch, accepted=ratio(1.0, 0.005))
    assert device.looks == 2
    assert latency(report)[0].outcome == "inconclusive"


def test_what_was_measured_on_another_machine_is_no_evidence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Scripted([made.timed(0.001, 0.001, 0.001)], [])
    text = LATENCY.replace("host", "rpi4")
    monkeypatch.setattr(f"{__name__}.PROJECT", PROJECT.replace("host", "rpi4"))
    report = run(folder, text, device, monkeypatch)
    (failed,) = report.failed
    assert (failed.rule, failed.outcome) == ("budget/latency", "not measured")
    assert "are of another machine" in failed.reason


def test_a_ratio_that_there_is_no_time_for_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Scripted([], [ratio(1.0, 0.01)])
    report = run(folder, GROWTH, device, monkeypatch, limit=1)
    assert device.looks == 0
    assert any("left no time for it" in note for note in report.notes)


def test_a_file_that_is_replaced_meanwhile_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Replacing(Scripted):
        def measure_reference(self, files: Any, *_: Any, **__: Any) -> Referenced:
            chain(folder / "net.onnx", width=24)
            return super().measure_reference(files)

    with pytest.raises(InputError, match=r"net\.onnx: changed while it was measured"):
        run(folder, GROWTH, Replacing([], [ratio(1.0, 0.01)]), monkeypatch)


class Failing(Scripted):
    """A device that has no time, or doesn't take the file."""

    def profile(self, files: Any, options: ProfileOptions, *_: Any, **__: Any) -> Profile:
        self.clock += options.time_limit + 1
        missing = tuple(f"{name}: latency: the time limit left no time for it" for name in files)
        return Profile({name: {} for name in files}, missing, (), "here")

    def measure_reference(self, files: Any, *_: Any, **__: Any) -> Referenced:
        self.clock += 5
        return Referenced({}, "here", {}, not_measured=("no time",))


def forged(data: dict[str, Any]) -> None:
    """A latency of a microsecond, wherever a manifest may tell it."""
    short = made.timed(1e-6, 1e-6, 1e-6).model_dump(mode="json")
    ratio = {**short, "value": 0.001, "low": 0.001, "high": 0.001, "unit": "x"}
    memory = data["device"]["figures"]["model.onnx"]["memory_peak"]
    for table in (data["figures"]["model.onnx"], data["device"]["figures"]["model.onnx"]):
        table.update(latency_p50=short, latency_reference=ratio, memory_peak=memory)


@pytest.mark.parametrize("target", ["rpi4", "host"])
def test_the_manifests_own_figure_never_stands_for_one_that_was_not_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    device = Failing([], [])

    def of_target(data: dict[str, Any]) -> None:
        forged(data)
        data["target"] = target

    made.result(folder / "out" / "net" / target, change=of_target)
    text = made.PROJECT.replace("rpi4", target) + f"[models.net.budgets.{target}]\nlatency='5ms'\n"
    (folder / "edgeprune.toml").write_text(text)
    monkeypatch.setattr("edgeprune.measure.profile.profile", device.profile)
    monkeypatch.setattr("edgeprune.measure.reference.measure_reference", device.measure_reference)
    project = find_project(folder)
    cases = gather(Request(), folder, project, None)
    measuring = Measuring(lambda _: here(), Silent(), ProfileOptions(time_limit=5))
    subjects, _ = present(cases, folder)
    lock = accept(subjects, None, whole=True, reason="r", when=made.WHEN)
    cases = gather(Request(), folder, project, lock)
    rules = {each.rule: each for each in check(cases, folder, Rules(), measuring).judged}
    assert rules["budget/latency"].outcome == "not measured"
    assert rules["budget/latency"].figure is None
    assert target == "host" or rules["budget/memory"].outcome == "not measured"
    assert rules["baseline/latency"].outcome == "not measured"
    assert rules["baseline/memory"].outcome == "pass"
    assert rules["baseline/memory"].figure is not None
    assert rules["baseline/memory"].figure.origin.kind == "estimated"
    assert check(cases, folder, Rules(), measuring).failed
    # nor does it become the baseline
    again, _ = present(cases, folder, measuring)
    (entry,) = (
        accept(again, None, whole=True, reason="r", when=made.WHEN).models["net"][target].values()
    )
    assert not {"latency_p50", "latency_reference", "memory_peak"} & set(entry.figures)
    assert entry.machine is None


def test_a_manifests_figure_is_called_the_manifests(folder: Path) -> None:
    made.result(folder / "out/net/rpi4")
    (folder / "edgeprune.toml").write_text(made.PROJECT)
    cases = gather(Request(), folder, find_project(folder), None)
    reasons = {each.rule: each.reason for each in check(cases, folder, Rules()).judged}
    assert "its manifest's; --measure takes one anew" in reasons["budget/latency"]
    assert "its manifest's; --measure takes one anew" in reasons["budget/memory"]
    assert "The figure is its manifest's." in reasons["budget/drop"]
    assert "manifest" not in reasons["budget/size"]
