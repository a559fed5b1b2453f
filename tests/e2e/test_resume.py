# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` in every stage, then ``--resume``: the same artifacts as an undisturbed run."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.support import ARTIFACTS, begun, command, environment, hashes, run

MOMENTS = {
    "load": "",
    "prune": "",
    "dense": "holding model.onnx",
    "finetune": "",
    "quantize": "",
    "export": "writing model.tflite",
    "profile": "",
    "evaluate": "",
}
"""Where it is killed: stages, each once it has said this."""


def arguments(model: Path, quick: Path, out: Path) -> list[str | Path]:
    chosen = (
        "--data",
        "digits",
        "--limit",
        "200",
        "--ratio",
        "0.5",
        "--epochs",
        "4",
        "--seed",
        "3",
    )
    judged = ("--allow-unmeasured", "--max-drop", "100", "--threads", "1", "--batch-size", "16")
    return ["compress", model, "-t", "rpi4", "--recipe", quick, "-o", out, *chosen, *judged]


BRIEFLY = ("--format", "onnx", "--no-profile")
"""What no file of the other kind, and no measuring, matters for."""


def checkpointed(folder: Path) -> None:
    """Wait until the fine-tuning under way has written its first checkpoint."""
    end = time.monotonic() + 60
    while not (folder / "out" / ".rpi4.work" / "finetune" / "checkpoint.pt").exists():
        assert time.monotonic() < end, "no checkpoint was written"
        time.sleep(0.01)


def kill_in(stage: str, arguments: list[str | Path], cwd: Path, then: str = "") -> list[str]:
    """Start the command and kill it in ``stage``, once it has said ``then`` there."""
    said = []
    with begun(*arguments, cwd=cwd) as process:
        assert process.stderr is not None
        there = False
        for line in process.stderr:
            said.append(line.strip())
            there = there or re.match(rf"> {stage}\b(?!:)", line) is not None
            if there and then in line:
                break
        if stage == "finetune":
            checkpointed(cwd)
        process.kill()
    assert process.returncode == -signal.SIGKILL, said
    return said


@pytest.mark.parametrize(
    "stages",
    [("finetune", "evaluate"), pytest.param(tuple(MOMENTS), marks=pytest.mark.slow)],
    ids=["two", "all"],
)
def test_killed_in_every_stage_it_ends_with_the_same_files(
    digits_pt2: Path, quick: Path, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    calm = run(*arguments(digits_pt2, quick, tmp_path / "calm"), cwd=tmp_path)
    assert calm.returncode == 0, calm.stderr
    resumed = [*arguments(digits_pt2, quick, tmp_path / "out"), "--resume"]
    for stage in stages:
        said = kill_in(stage, resumed, tmp_path, MOMENTS[stage])
        assert not (tmp_path / "out" / "rpi4").exists(), (stage, said)
    last = run(*resumed, cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    taken_up = re.findall(r"^> (\w+): done before", last.stderr, re.MULTILINE)
    assert taken_up == ["prune", "dense", "finetune", "quantize", "export"]
    assert hashes(tmp_path / "out" / "rpi4") == hashes(tmp_path / "calm" / "rpi4")
    assert set(hashes(tmp_path / "out" / "rpi4")) == set(ARTIFACTS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rpi4"]
    again = run(*resumed, cwd=tmp_path)
    assert again.returncode == 0
    assert "done before the interruption" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_says_how_to_go_on(
    digits_pt2: Path, quick: Path, tmp_path: Path, number: int
) -> None:
    given = [*arguments(digits_pt2, quick, tmp_path / "out"), *BRIEFLY]
    with begun(*given, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("> finetune"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    last = rest.strip().splitlines()[-1]
    assert last.startswith("interrupted")
    assert "--resume" in last
    assert "Traceback" not in rest
    assert (tmp_path / "out" / ".rpi4.work" / "prune" / "done.json").exists()


def test_other_options_do_not_take_up_a_stage(
    digits_pt2: Path, quick: Path, tmp_path: Path
) -> None:
    given = [*arguments(digits_pt2, quick, tmp_path / "out"), *BRIEFLY]
    kill_in("finetune", given, tmp_path)
    done = run(*given, "--resume", "--ratio", "0.25", "--epochs", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prune: done before" not in done.stderr


def test_damaged_stage_is_done_again(digits_pt2: Path, quick: Path, tmp_path: Path) -> None:
    given = [*arguments(digits_pt2, quick, tmp_path / "out"), *BRIEFLY]
    kill_in("finetune", given, tmp_path)
    stored = tmp_path / "out" / ".rpi4.work" / "prune" / "model.pt2"
    stored.write_bytes(stored.read_bytes()[:-100])
    done = run(*given, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prune: done before" not in done.stderr
    assert "dense: done before" in done.stderr


def test_two_runs_on_one_result_do_not_mix(digits_pt2: Path, quick: Path, tmp_path: Path) -> None:
    given = [*arguments(digits_pt2, quick, tmp_path / "out"), *BRIEFLY]
    with begun(*given, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("> prune"):
                break
        process.send_signal(signal.SIGSTOP)  # however slow the second is, it meets the first
        second = run(*given, cwd=tmp_path)
        process.send_signal(signal.SIGCONT)
        rest = process.stderr.read()
    assert second.returncode == 2
    assert ".rpi4.lock" in second.stderr
    assert process.returncode == 0, rest
    assert (tmp_path / "out" / "rpi4" / "manifest.json").exists()


@pytest.mark.parametrize("kilobytes", [8])
def test_full_disk_is_one_line(
    digits_pt2: Path, quick: Path, tmp_path: Path, kilobytes: int
) -> None:
    """A limit on file sizes stands in for a full disk: a write fails halfway in both."""
    words = " ".join(map(str, command(*arguments(digits_pt2, quick, tmp_path / "out"))))
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {kilobytes}; exec {words}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "can't be written" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "out" / "rpi4").exists()


def test_a_device_out_of_reach_is_told_before_the_work(
    digits_pt2: Path, quick: Path, tmp_path: Path
) -> None:
    given = arguments(digits_pt2, quick, tmp_path / "out")
    done = run(*given, "--device", "ssh://nobody@127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ssh://nobody@127.0.0.1:1: ")
    assert not (tmp_path / "out").exists()
