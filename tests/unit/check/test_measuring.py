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
from edgeprune.gate.judged import CheckReport
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
    assert [each.outcome for each in report.judged] == ["inconclusive"]
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
    assert report.judged[0].outcome == "inconclusive"


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
