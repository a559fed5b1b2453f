# SPDX-License-Identifier: Apache-2.0
"""Two files against each other: the agent's task, and when it ends."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import DeviceError, InputError
from edgeprune.profiler.compare import Compared, Until, compare, compare_block
from edgeprune.profiler.spawn import Ended
from tests.unit.profiler import models
from tests.unit.profiler.agent import ask, measure

QUICK = ("--block-seconds", "0.02", "--blocks", "2", "--max-blocks", "2")


class Blocks:
    """Answers with these ratios, or ends as told; remembers the jobs."""

    def __init__(self, *answers: float | Ended, seconds: float = 0.0) -> None:
        self.answers = list(answers)
        self.seconds = seconds
        self.jobs: list[dict[str, Any]] = []
        self.told: list[tuple[int, int, str]] = []

    def ask(self, path: str, job: dict[str, Any], seconds: float) -> Ended:
        self.jobs.append(job)
        time.sleep(self.seconds)
        answer = self.answers.pop(0)
        if isinstance(answer, Ended):
            return answer
        return Ended({"runtimes": ["r 1", "r 1"], "ratio": answer, "clock": "cpu"}, 0, False, "")

    def compare(self, **until: Any) -> Compared:
        def tell(*words: Any) -> None:
            self.told.append(words)

        return compare(("a", "b"), Until(**until), ask=self.ask, tell=tell)


def test_more_work_takes_longer_in_both_orders(tmp_path: Path) -> None:
    small = models.chain(tmp_path / "s.onnx", width=256, depth=2)
    large = models.chain(tmp_path / "l.onnx", width=256, depth=20)
    one = measure("compare", *QUICK, large, small)
    other = measure("compare", *QUICK, small, large)
    assert one["ratio"]["low"] > 2
    assert other["ratio"]["high"] < 0.5
    assert [file["path"] for file in one["files"]] == [str(large), str(small)]
    assert one["files"][0]["runtime"].startswith("onnxruntime ")
    for block in one["blocks"]:
        assert block["clock"] == "cpu"
        assert min(block["samples"]) >= 8
        assert block["seconds"][0] / block["seconds"][1] == pytest.approx(block["ratio"], rel=1e-6)
        # samples of both last alike, so several runs of the small one are a sample
        assert block["runs"][1] > block["runs"][0]


def test_a_file_is_as_fast_as_its_copy(tmp_path: Path) -> None:
    file = models.chain(tmp_path / "a.onnx", width=256, depth=20)
    copy = shutil.copy(file, tmp_path / "b.onnx")
    result = measure("compare", "--block-seconds", "0.05", file, copy)
    assert result["ratio"]["coverage"] > 0.95
    # no more than a gross mistake is looked for: whether an interval holds 1 is chance
    assert result["ratio"]["value"] == pytest.approx(1, abs=0.2)


def test_formats_mix_and_several_threads_take_the_wall_clock(tmp_path: Path) -> None:
    onnx = models.chain(tmp_path / "m.onnx", width=64)
    lite = models.sums(tmp_path / "m.tflite", ["y"])
    result = measure("compare", *QUICK, "--threads", "2", onnx, lite)
    assert [file["runtime"].split()[0] for file in result["files"]] == [
        "onnxruntime",
        "ai-edge-litert",
    ]
    assert {block["clock"] for block in result["blocks"]} == {"wall"}


def test_given_inputs_are_the_first_files(tmp_path: Path) -> None:
    table = models.lookup(tmp_path / "t.onnx", length="n")
    other = models.chain(tmp_path / "m.onnx")
    given = tmp_path / "x.npz"
    np.savez(given, x=np.array([[0, 1, 1]]))
    found = measure("compare", *QUICK, "--inputs", given, table, other)
    assert found["ratio"]["value"] > 0
    assert "--inputs" not in ask("compare", *QUICK, table, other, code=2)["error"]
    np.savez(given, x=np.zeros((1, 8), "float32"))
    error = ask("compare", *QUICK, "--inputs", given, table, other, code=2)["error"]
    assert str(table) in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.onnx",), "FILE"),
        (("a.onnx", "b.onnx", "c.onnx"), "c.onnx"),
        (("a.onnx", "none.onnx"), "none.onnx"),
        (("--precision", "0", "a.onnx", "a.onnx"), "isn't a share"),
        (("--precision", "nan", "a.onnx", "a.onnx"), "isn't a share"),
        (("--blocks", "9", "--max-blocks", "3", "a.onnx", "a.onnx"), "--max-blocks"),
        (("--block-seconds", "-1", "a.onnx", "a.onnx"), "number of seconds"),
        (("a.onnx", "cut.onnx"), "cut.onnx"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    models.chain(tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    there = [tmp_path / word if word.endswith(".onnx") else word for word in words]
    answer = ask("compare", *there, code=2)
    assert said in answer["error"]
    assert "\n" not in answer["error"]


def test_a_file_that_hangs_is_ended_by_the_time_limit(tmp_path: Path) -> None:
    endless = models.endless(tmp_path / "e.onnx")
    other = models.chain(tmp_path / "m.onnx")
    result = measure("compare", "--time-limit", "4", other, endless)
    assert result["ratio"] is None
    assert result["blocks"] == []
    assert "was killed" in result["cut"]


def test_it_goes_on_until_the_interval_is_narrow() -> None:
    wide = [1.0, 1.2, 0.9, 1.1, 1.0, 1.05]
    blocks = Blocks(*wide, *[1.02] * 30)
    found = blocks.compare(precision=0.03, max_blocks=36)
    assert found.precise
    assert 6 < len(found.blocks) < 36
    assert found.cut is None
    assert blocks.told[0] == (0, 6, "a")
    assert [job["swapped"] for job in blocks.jobs[:4]] == [False, True, False, True]


def test_six_blocks_at_least_and_no_more_than_allowed() -> None:
    assert len(Blocks(*[1.0] * 20).compare().blocks) == 6
    jumping = [1.0, 2.0] * 10
    found = Blocks(*jumping).compare(max_blocks=20)
    assert (len(found.blocks), found.precise, found.cut) == (20, False, None)


def test_what_the_ratio_is_never_ends_it() -> None:
    """So that going on can't favour an answer."""
    values = np.exp(np.random.default_rng(3).normal(0, 0.02, 20)).tolist()
    counts = {len(Blocks(*(k * v for v in values)).compare().blocks) for k in (0.1, 1, 1.05, 40)}
    assert len(counts) == 1


def test_the_time_limit_ends_it_between_blocks() -> None:
    found = Blocks(*[1.0, 2.0] * 10, seconds=0.05).compare(time_limit=0.3)
    assert 1 <= len(found.blocks) < 20
    assert found.cut is not None
    assert "0.3 s" in found.cut
    assert found.ratio is not None


def test_a_killed_block_keeps_what_was_measured() -> None:
    killed = Ended({"runtimes": ["r 1", "r 1"]}, -signal.SIGKILL, False, "")
    found = Blocks(1.0, 1.1, killed).compare()
    assert (found.killed, len(found.blocks), found.precise) == (signal.SIGKILL, 2, False)
    assert found.files[0]["runtime"] == "r 1"
    assert found.ratio is not None
    assert found.ratio["coverage"] == 0.5


def test_a_block_without_time_says_so(tmp_path: Path) -> None:
    file = str(models.chain(tmp_path / "a.onnx"))
    job = {"path": file, "other": file, "threads": 1, "seed": 0, "inputs": None, "swapped": False}
    parts = compare_block({**job, "seconds": 0.1, "max_seconds": 0.0})
    assert "runtimes" in next(parts)
    with pytest.raises(DeviceError, match="didn't do for one run"):
        next(parts)
    with pytest.raises(InputError, match="no"):
        next(compare_block({**job, "other": f"{file}.no", "seconds": 0.1, "max_seconds": 1.0}))
