# SPDX-License-Identifier: Apache-2.0
"""The command in a repository: what a commit changes is caught, or let through."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import main
from edgeprune.target import list_targets
from tests.unit.check import made
from tests.unit.check.made import commit
from tests.unit.profiler.models import chain

ROOT = Path(__file__).parents[3]
FILES = """\
[models.net]
artifacts = ["net.onnx"]
targets = ["rpi4"]

[budgets.rpi4]
size = "20kB"

[baseline]
size = "+2 %"
memory = "+5 %"
"""


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the report of ``check``."""
    capsys.readouterr()
    code = main(["check", *arguments, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def by_rule(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["rule"]: each for each in report["judged"]}


def test_a_commit_that_adds_a_layer_is_caught(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.result(results / "out/net/rpi4", depth=5)
    commit("one layer more")
    capsys.readouterr()
    assert main(["check"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "net for rpi4: budget/size of out/net/rpi4/model.onnx: size 20.7 kB is over" in out
    assert "the limit of 20 kB (counted)" in out
    assert "grew most: h4 (MatMul): new: 1.02 k parameters, 1.02 k MACs, 4.1 kB" in out
    assert "the limit stands in edgeprune.toml:6" in out
    assert "against the accepted 16.6 kB, and only +2 % allowed" in out


def test_a_commit_that_only_retrains_passes(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (results / "out/net/rpi4/model.onnx").read_bytes()
    made.result(results / "out/net/rpi4", seed=7, score=97.8)
    assert (results / "out/net/rpi4/model.onnx").read_bytes() != before
    commit("trained longer")
    code, report = found(capsys)
    assert code == 0
    assert {each["outcome"] for each in report["judged"]} == {"pass"}
    assert {each["rule"] for each in report["judged"]} == {
        *(f"integrity/{name}" for name in ("missing", "hash", "edited", "origin")),
        *(f"budget/{name}" for name in ("size", "latency", "memory", "drop")),
        *(f"baseline/{name}" for name in ("size", "latency", "memory", "accuracy", "shapes")),
        *(f"target/{name}" for name in ("numerics", "operators", "memory")),
    }


def test_files_of_anybody(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repo / "edgeprune.toml").write_text(FILES)
    chain(repo / "net.onnx", width=32, depth=4)
    assert main(["baseline", "accept"]) == 0
    assert main(["check"]) == 0
    chain(repo / "net.onnx", width=36, depth=4)
    code, report = found(capsys)
    assert code == 1
    size = by_rule(report)["baseline/size"]
    assert size["outcome"] == "fail"
    assert len(size["blame"]) == 3
    assert "parameters 1,024 -> 1,296" in size["blame"][0] or "1.02 k -> 1.3 k" in size["blame"][0]
    assert by_rule(report)["baseline/memory"]["outcome"] == "fail"
    assert "budget/latency" not in by_rule(report)
    assert any("latency" in note for note in report["notes"])


def test_a_latency_that_was_asked_for_is_not_passed_by_not_looking(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain(repo / "net.onnx")
    assert main(["check", "net.onnx", "--target", "rpi4"]) == 0
    code, report = found(capsys, "net.onnx", "--target", "rpi4", "--max-latency", "5ms")
    assert code == 1
    assert by_rule(report)["budget/latency"]["outcome"] == "not measured"
    assert (
        main(["check", "net.onnx", "-t", "rpi4", "--max-latency", "5ms", "--allow-unmeasured"]) == 0
    )
    (repo / "edgeprune.toml").write_text(FILES.replace('size = "20kB"', 'latency = "5ms"'))
    assert main(["check", "net.onnx"]) == 1


def test_without_any_limit_the_file_is_told_and_nothing_is_judged(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.lite(repo / "net.tflite")
    code, report = found(capsys, "net.tflite")
    assert (code, report["judged"]) == (0, [])
    (note,) = report["notes"]
    assert "no limit is set" in note
    assert "parameters 716" in note  # 36 + 4 (shared) + 36 + 640


@pytest.mark.parametrize(
    ("low", "high", "outcome", "code", "strict"),
    [
        (0.0101, 0.0103, "pass", 0, 0),
        (0.0112, 0.0114, "fail", 1, 1),
        (0.0100, 0.0112, "inconclusive", 0, 1),
    ],
)
def test_latency_on_the_same_machine_interval_against_interval(
    results: Path,
    capsys: pytest.CaptureFixture[str],
    low: float,
    high: float,
    outcome: str,
    code: int,
    strict: int,
) -> None:
    at = made.device()
    slower = made.timed((low + high) / 2, low, high)
    figures = {"model.onnx": {**at.figures["model.onnx"], "latency_p50": slower}}
    at = at.model_copy(update={"figures": figures})
    made.result(results / "out/net/rpi4", at=at)
    assert found(capsys)[0] == code
    told, report = found(capsys, "--strict")
    assert told == strict
    assert by_rule(report)["baseline/latency"]["outcome"] == outcome


def test_the_accepted_measurement_itself_is_never_inconclusive(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = made.timed(0.010, 0.005, 0.020)
    at = made.device()
    figures = {"model.onnx": {**at.figures["model.onnx"], "latency_p50": wide}}
    made.result(results / "out/net/rpi4", at=at.model_copy(update={"figures": figures}))
    assert by_rule(found(capsys)[1])["baseline/latency"]["outcome"] == "inconclusive"
    assert main(["baseline", "accept"]) == 0
    assert by_rule(found(capsys)[1])["baseline/latency"]["outcome"] == "pass"


def test_absolute_latency_of_another_machine_is_never_compared(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = made.device()
    other = made.timed(0.011, 0.0109, 0.0111, where="Raspberry Pi 4 Model B Rev 1.5, 4 cores")
    figures = {"model.onnx": {**at.figures["model.onnx"], "latency_p50": other}}
    made.result(results / "out/net/rpi4", at=at.model_copy(update={"figures": figures}))
    code, report = found(capsys)
    assert code == 0
    assert by_rule(report)["baseline/latency"]["outcome"] == "not measured"
    assert any("of another machine" in note for note in report["notes"])


@pytest.mark.parametrize("where", ["", "AMD EPYC, 2 cores, Linux 6.1 x86_64"])
def test_latency_of_another_machine_is_no_evidence_for_the_target(
    results: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    at = made.device()
    fast = made.timed(1e-6, 1e-6, 1e-6, where or made.BOARD)
    figures = {"model.onnx": {**at.figures["model.onnx"], "latency_p50": fast}}
    made.result(results / "out/net/rpi4", at=at.model_copy(update={"figures": figures}))
    project = results / "edgeprune.toml"
    text = project.read_text().replace('size = "20kB"', 'size = "20kB"\nlatency = "1ms"')
    project.write_text(text)
    code, report = found(capsys)
    verdict = by_rule(report)["budget/latency"]
    if where:
        assert (code, verdict["outcome"]) == (1, "not measured")
        assert f"are of another machine: {where}" in verdict["reason"]
    else:
        assert verdict["outcome"] == "pass"


def test_the_ratio_to_the_reference_is_compared_across_machines(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def at(value: float, where: str) -> Any:
        report = made.device()
        ratio = made.timed(value, value * 0.995, value * 1.005, where).model_copy(
            update={"unit": "x"}
        )
        mine = {**report.figures["model.onnx"], "latency_reference": ratio}
        return report.model_copy(update={"figures": {"model.onnx": mine}})

    made.result(results / "out/net/rpi4", at=at(2.0, "here"))
    assert main(["baseline", "accept"]) == 0
    made.result(results / "out/net/rpi4", at=at(2.02, "there"))
    assert by_rule(found(capsys)[1])["baseline/latency"]["outcome"] == "pass"
    made.result(results / "out/net/rpi4", at=at(2.3, "there"))
    code, report = found(capsys)
    assert code == 1
    assert "+15 %" in by_rule(report)["baseline/latency"]["reason"]


def test_a_score_that_fell(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.result(results / "out/net/rpi4", score=97.4)
    code, report = found(capsys)
    assert code == 1
    accuracy = by_rule(report)["baseline/accuracy"]
    assert "-0.60 points against the accepted 98.00 %" in accuracy["reason"]
    assert accuracy["place"]["line"] == 12


def test_an_artifact_that_the_baseline_has_and_the_result_has_not(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = results / "edgeprune.lock.json"
    data = json.loads(lock.read_text())
    files = data["models"]["net"]["rpi4"]
    files["model.tflite"] = files["model.onnx"]
    lock.write_text(json.dumps(data))
    for options in ((), ("--allow-unmeasured",), ("--strict",)):
        code, report = found(capsys, *options)
        (gone,) = (each for each in report["judged"] if each["outcome"] == "fail")
        assert code == 1
        assert gone["rule"] == "baseline/missing"
        assert gone["artifact"] == "out/net/rpi4/model.tflite"
        assert "the result hasn't any more" in gone["reason"]
        assert "edgeprune baseline accept" in gone["reason"]
        assert gone["place"]["line"] == 9


def one_run(data: dict[str, Any]) -> None:
    data["figures"]["model.onnx"]["score"]["origin"]["runs"] = 1


def no_score(data: dict[str, Any]) -> None:
    del data["figures"]["model.onnx"]["score"]


@pytest.mark.parametrize("change", [one_run, no_score])
def test_a_score_that_cannot_be_compared_fails(
    results: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], None]
) -> None:
    made.result(results / "out/net/rpi4", change=change)
    for options in ((), ("--allow-unmeasured",)):
        code, report = found(capsys, *options)
        assert code == 1
        assert by_rule(report)["baseline/accuracy"]["outcome"] == "fail"


def test_a_result_that_is_not_there_fails(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "out/net/rpi4/manifest.json").unlink()
    code, report = found(capsys)
    assert code == 1
    (only,) = report["judged"]
    assert only["rule"] == "integrity/missing"
    assert only["model"] == "net"


def test_what_a_folder_should_have_is_missed(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.result(results / "out/other/rpi4")
    (results / "out/net/rpi4/manifest.json").unlink()
    for place in ("out", ".", "out/net/rpi4"):
        code, report = found(capsys, place)
        assert code == 1
        assert by_rule(report)["integrity/missing"]["artifact"] == "out/net/rpi4/manifest.json"


def test_two_targets_of_one_name_are_refused(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(list_targets()["rpi4"], results / "my.toml")
    text = made.PROJECT.replace('["rpi4"]', '["rpi4", "my.toml"]')
    (results / "edgeprune.toml").write_text(text)
    assert main(["check"]) == 2
    assert "'rpi4' and 'my.toml', which are both rpi4" in capsys.readouterr().err


def test_a_target_that_goes_before_a_shipped_one_is_told(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "targets").mkdir()
    shutil.copy(list_targets()["rpi4"], results / "targets")
    code, report = found(capsys)
    assert code == 0
    (note,) = (each for each in report["notes"] if "goes before" in each)
    assert note.startswith("rpi4 is judged by targets/rpi4.toml")


@pytest.mark.parametrize("key", ["out", "artifacts", "targets"])
def test_a_name_that_is_too_long_is_one_line(
    repo: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    table = {"out": '"out"', "targets": '["rpi4"]'}
    long = "x" * 300
    table[key] = f'["{long}.toml"]' if key == "targets" else f'"{long}"'
    if key == "artifacts":
        table = {"targets": table["targets"], key: f'["{long}"]'}
    lines = (f"{name} = {value}\n" for name, value in table.items())
    (repo / "edgeprune.toml").write_text("[models.a]\n" + "".join(lines))
    assert main(["check"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["check", long]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def accepted(results: Path, change: dict[str, object]) -> None:
    """Edits the accepted latency."""
    lock = results / "edgeprune.lock.json"
    data = json.loads(lock.read_text())
    data["models"]["net"]["rpi4"]["model.onnx"]["figures"]["latency_p50"].update(change)
    lock.write_text(json.dumps(data))


def test_a_measurement_does_not_differ_from_itself(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = made.timed(0.010, 0.005, 0.020)
    at = made.device()
    figures = {"model.onnx": {**at.figures["model.onnx"], "latency_p50": wide}}
    made.result(repo / "out/net/rpi4", at=at.model_copy(update={"figures": figures}))
    (repo / "edgeprune.toml").write_text(made.PROJECT)
    assert main(["baseline", "accept"]) == 0
    code, report = found(capsys, "--strict")
    assert code == 0
    assert by_rule(report)["baseline/latency"]["outcome"] == "pass"


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"low": 0.0}, "inconclusive"),
        ({"value": 0.0, "low": 0.0, "high": 0.0}, "fail"),
        ({"unit": "ms"}, "not measured"),
    ],
)
def test_odd_accepted_latencies(
    results: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], outcome: str
) -> None:
    accepted(results, change)
    assert by_rule(found(capsys)[1])["baseline/latency"]["outcome"] == outcome


def test_an_accepted_value_outside_its_interval_is_refused(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accepted(results, {"low": 1.0, "high": 0.0})
    assert main(["check"]) == 2
    assert "latency_p50: Value error, the value isn't in its own" in capsys.readouterr().err


def test_a_lock_file_that_leads_nowhere_is_not_none(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = results / "edgeprune.lock.json"
    lock.unlink()
    lock.symlink_to("nowhere")
    for command in (["check"], ["baseline", "accept"]):
        assert main(command) == 2
        assert "edgeprune.lock.json: can't be read" in capsys.readouterr().err


def test_what_is_broken_is_not_accepted(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (results / "edgeprune.lock.json").read_bytes()
    (results / "out/net/rpi4/report.json").write_text("other")
    assert main(["baseline", "accept"]) == 1
    assert "integrity/hash" in capsys.readouterr().err
    assert (results / "edgeprune.lock.json").read_bytes() == before


def test_accepting_what_is_accepted_writes_nothing(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (results / "edgeprune.lock.json").stat()
    assert main(["baseline", "accept", "--reason", "again"]) == 0
    assert "accepted already" in capsys.readouterr().out
    after = (results / "edgeprune.lock.json").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_accepting_one_model_leaves_the_others(repo: Path) -> None:
    two = FILES + '\n[models.b]\nartifacts = ["b.onnx"]\ntargets = ["rpi4", "rpi5"]\n'
    (repo / "edgeprune.toml").write_text(two)
    chain(repo / "net.onnx")
    chain(repo / "b.onnx")
    assert main(["baseline", "accept", "--reason", "both"]) == 0
    first = json.loads((repo / "edgeprune.lock.json").read_text())
    chain(repo / "net.onnx", depth=2)
    chain(repo / "b.onnx", depth=2)
    assert main(["baseline", "accept", "--model", "b", "--target", "rpi5"]) == 0
    second = json.loads((repo / "edgeprune.lock.json").read_text())
    assert second["models"]["net"] == first["models"]["net"]
    assert second["models"]["b"]["rpi4"] == first["models"]["b"]["rpi4"]
    assert second["models"]["b"]["rpi5"] != first["models"]["b"]["rpi5"]
    (repo / "edgeprune.toml").write_text(FILES)
    assert main(["baseline", "accept"]) == 0
    third = json.loads((repo / "edgeprune.lock.json").read_text())
    assert list(third["models"]) == ["net"]
    assert main(["baseline", "show", "--json"]) == 0


def test_the_markdown_goes_to_the_summary_of_the_job(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = results / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(["check"]) == 0
    assert summary.read_text() == "before\n"
    capsys.readouterr()
    assert main(["check", "--format", "markdown", "--output", "report.md"]) == 0
    text = (results / "report.md").read_text()
    assert summary.read_text() == f"before\n{text}"
    assert "all 16 checks passed" in capsys.readouterr().out


def test_a_report_replaces_nothing_unasked(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (results / "edgeprune.toml").read_text()
    assert main(["check", "--output", "edgeprune.toml"]) == 2
    captured = capsys.readouterr()
    assert "edgeprune.toml: is there already; --overwrite replaces it" in captured.err
    assert captured.out == ""
    assert (results / "edgeprune.toml").read_text() == before
    for _ in range(2):
        assert main(["check", "-f", "json", "-o", "c.json", "--overwrite"]) == 0
    assert json.loads((results / "c.json").read_text())["judged"]
    assert main(["check", "--output", ""]) == 2


@pytest.mark.parametrize("limit", ["inf", "nan", "1e300", "0"])
def test_a_time_limit_is_a_time(
    results: Path, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    assert main(["check", "--measure", "--time-limit", limit]) == 2
    assert "--time-limit" in capsys.readouterr().err


def test_a_summary_that_nobody_reads_is_not_waited_for(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(results / "pipe")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "pipe")
    assert main(["check", "--format", "markdown"]) == 2
    assert "pipe: the job's summary can't be written" in capsys.readouterr().err


def test_a_reason_gives_the_terminal_no_order(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.result(repo / "out/net/rpi4")
    (repo / "edgeprune.toml").write_text(made.PROJECT)
    assert main(["baseline", "accept", "--reason", "\x1b[31m red\n\udcff "]) == 0
    lock = repo / "edgeprune.lock.json"
    assert json.loads(lock.read_text())["reason"] == "[31m red"
    lock.write_text(lock.read_text().replace("[31m", "\\u001b[31m"))
    capsys.readouterr()
    assert main(["baseline", "show"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_of_ascii_is_no_error(results: Path) -> None:
    code = "import sys\nfrom edgeprune.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "check"],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"all 16 checks passed" in done.stdout


def test_folders_of_results_and_targets(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", ".hidden"):
        made.result(repo / "out" / name / "rpi4")
    made.lite(repo / "out/c.tflite")
    code, report = found(capsys, "out", "out/a", "out/a/rpi4/manifest.json")
    assert code == 0
    assert {each["artifact"] for each in report["judged"]} == {
        f"out/{name}/rpi4/{file}" for name in "ab" for file in ("manifest.json", "model.onnx")
    }
    assert found(capsys, "out/a", "-t", "rpi4")[0] == 0
    assert main(["check", "out/a", "-t", "rpi5"]) == 2
    assert "nothing to check: there is nothing for rpi5" in capsys.readouterr().err


def test_the_projects_limits_hold_for_a_path_of_the_project(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = found(capsys, "out/net/rpi4")
    assert code == 0
    assert by_rule(report)["budget/size"]["limit"] == 20_000
    assert by_rule(report)["budget/size"]["model"] == "net"
    # one file of a result, as a commit hook names it, stands for the whole
    assert found(capsys, "out/net/rpi4/model.onnx")[1]["judged"] == report["judged"]
    code, report = found(capsys, "out", "--max-size", "10kB")
    assert code == 1
    assert by_rule(report)["budget/size"]["place"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to check"),
        (["no.onnx"], "no.onnx: can't be read"),
        (["."], "has no manifest.json and no .onnx or .tflite file"),
        (["bad.tflite"], "bad.tflite"),
        (["pipe"], "pipe"),
        (["net.onnx", "--target", "rpi44"], "no target 'rpi44'; did you mean 'rpi4'?"),
        (["net.onnx", "--time-limit", "5"], "add --measure"),
        (["net.onnx", "--format", "xml"], "--format"),
        (["net.onnx", "--output", "no/such/folder.xml"], "can't be written"),
    ],
)
def test_bad_usage_is_one_line(
    repo: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if arguments != ["."]:
        chain(repo / "net.onnx")
        (repo / "bad.tflite").write_bytes(b"\x00\x00\x00\x00TFL3")
        os.mkfifo(repo / "pipe")
    assert main(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"\xff", b'{"models": 3}'])
def test_a_bad_lock_file_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (results / "edgeprune.lock.json").write_bytes(content)
    capsys.readouterr()
    assert main(["check"]) == 2
    err = capsys.readouterr().err
    assert "edgeprune.lock.json" in err
    assert err.count("\n") == 1


def test_nothing_heavy_is_imported_unless_something_is_measured(results: Path) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "ai_edge_litert", "numpy", "scipy", "flatbuffers")
    code = (
        "import sys\nfrom edgeprune.cli.main import main\ncode = main(['check'])\n"
        f"print(code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stderr.strip() == "0 []"


def test_measured_anew_latency_and_memory_are_judged(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain(repo / "net.onnx")
    limits = ["--max-latency", "10s", "--max-memory", "8GB"]
    code, report = found(
        capsys, "net.onnx", "-t", "host", *limits, "--measure", "--time-limit", "8"
    )
    rules = by_rule(report)
    assert code == 0
    assert rules["budget/latency"]["outcome"] == rules["budget/memory"]["outcome"] == "pass"
    assert rules["budget/latency"]["figure"]["origin"]["runs"] > 0
