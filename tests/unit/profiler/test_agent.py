# SPDX-License-Identifier: Apache-2.0
"""The agent as a program: its answers, and what ends it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from edgeprune import __version__
from edgeprune.device.archive import build
from edgeprune.export import flatbuffer
from tests.model_files import LiteGraph, LiteOp, LiteTensor, lite_model
from tests.unit.profiler import models
from tests.unit.profiler.agent import LIMIT, ROOT, ask, command, measure

QUICK = ("--block-seconds", "0.02", "--min-runs", "3")


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return models.chain(tmp_path / "m.onnx", width=64)


@pytest.fixture
def lite(tmp_path: Path) -> Path:
    return models.sums(tmp_path / "m.tflite", ["y", "z"])


def save(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> Path:
    np.savez(path, *arrays, **named)
    return path


def loaded(process: int) -> list[int]:
    """Processes that ``process`` has started and that have imported onnxruntime."""
    found = []
    for number in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with suppress(OSError):
            if b"onnxruntime" in Path(f"/proc/{number}/maps").read_bytes():
                found.append(int(number))
    return found


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def until(condition, what: str) -> None:
    """Wait for something that has to come; a limit that only a hang reaches."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@contextmanager
def started(*words: str | Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """An agent at work, and the process that measures for it."""
    with subprocess.Popen(
        command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            # it has become Python, imported the runtime and hangs in the file's loop, or soon will
            until(lambda: loaded(process.pid), "a process of it has imported the runtime")
            yield process, loaded(process.pid)[0]
        finally:
            process.kill()


def test_probe_tells_what_this_machine_tells() -> None:
    answer = ask("probe")
    result = answer["result"]
    assert (answer["task"], answer["agent"]) == ("probe", __version__)
    assert result["machine"] == os.uname().machine
    assert result["cores"] == len(os.sched_getaffinity(0))
    assert result["ram"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert set(result["runtimes"]) >= {"onnxruntime", "ai-edge-litert"}
    assert result["numpy"] == np.__version__
    assert abs(result["time"] - time.time()) < LIMIT
    assert os.uname().nodename not in result.values()
    assert {key: result[key] for key in answer["device"]} == answer["device"]


def test_memory_of_both_formats(onnx: Path, lite: Path) -> None:
    one, other = measure("memory", "--repeats", "2", onnx, lite)["files"]
    assert [one["path"], other["path"]] == [str(onnx), str(lite)]
    assert one["runtime"].startswith("onnxruntime ")
    assert other["runtime"].startswith("ai-edge-litert ")
    for file in (one, other):
        assert file["reset"]
        assert file["killed"] is None
        assert file["cut"] is None
        assert len(file["peak"]) == len(file["base"]) == len(file["model"]) == 2
        for k in range(2):
            assert file["peak"][k] >= file["base"][k] > 0
            assert file["model"][k] >= 0
        assert len(set(file["arenas"])) == 1
        assert file["arena"]["bytes"] == file["arenas"][0] > 0


def test_memory_grows_with_the_model(tmp_path: Path) -> None:
    small = models.chain(tmp_path / "s.onnx", width=64)
    large = models.chain(tmp_path / "l.onnx", width=1024, depth=3)
    one, other = measure("memory", "--repeats", "1", small, large)["files"]
    weights = 3 * 1024 * 1024 * 4
    assert other["model"][0] - one["model"][0] > weights * 0.9
    assert other["peak"][0] - one["peak"][0] > weights * 0.9
    assert other["arena"]["bytes"] - one["arena"]["bytes"] > weights * 0.9


def test_latency_of_both_formats_in_the_same_rounds(onnx: Path, lite: Path) -> None:
    words = ("latency", "--blocks", "2", "--max-blocks", "4", *QUICK)
    files = measure(*words, onnx, lite)["files"]
    turns = [[block["turn"] for block in file["blocks"]] for file in files]
    assert turns[0] == turns[1]
    assert 2 <= len(turns[0]) <= 4
    for block in (block for file in files for block in file["blocks"]):
        assert block["runs"] >= 3
        assert 0 < block["p50"] <= block["p90"] <= block["p99"]
        assert block["wall"] >= 0.02
        assert block["cpu"] > 0
        assert block["first"] > 0
        assert block["load"] > 0


def test_ops_are_those_of_the_graph(tmp_path: Path, lite: Path) -> None:
    result = measure("ops", models.chain(tmp_path / "m.onnx", width=64, depth=4))
    assert [op["type"] for op in result["ops"]] == ["MatMul"] * 4
    assert all(op["calls"] == result["runs"] and op["seconds"] > 0 for op in result["ops"])
    result = measure("ops", lite)
    assert result["ops"] is None
    assert "no profile of operations" in result["reason"]


def test_run_takes_every_sample_and_writes_by_name(tmp_path: Path, onnx: Path, lite: Path) -> None:
    x = np.arange(24, dtype="float32").reshape(3, 8)
    inputs, outputs = save(tmp_path / "x.npz", x), tmp_path / "y.npz"
    result = measure("run", "--inputs", inputs, "--outputs", outputs, lite)
    with np.load(outputs) as found:
        assert set(found) == {"y", "z"}
        np.testing.assert_array_equal(found["z"], x + 1)
    assert {"name": "z", "shape": [3, 8], "dtype": "float32"} in result["outputs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("m.onnx", "m.tflite", "x.npz", "y.npz"),
    ]


def test_count_does_the_runs(onnx: Path) -> None:
    assert measure("count", "--runs", "2", onnx)["runs"] == 2


def test_without_a_meter_energy_is_absent_and_the_times_are_there(onnx: Path) -> None:
    result = measure("energy", "--meter", "ina3221", "--seconds", "0.2", onnx)
    if result["meter"]:
        pytest.skip("this machine has an INA3221")
    assert result["joules_per_inference"] is result["busy"]["joules"] is None
    assert result["idle"]["watts"] is None
    assert "ina3221" in result["reason"]
    assert result["busy"]["runs"] > 0
    assert result["busy"]["end"] - result["busy"]["start"] >= 0.2
    assert result["idle"]["end"] <= result["busy"]["start"]


@pytest.mark.parametrize(
    "name",
    [
        b"with space.onnx",
        b"two\nlines.onnx",
        b'it\'s "q".onnx',
        b"-o.onnx",
        b"$(id);&.onnx",
        b"caf\xe9 \xff.onnx",
        "größe.onnx".encode(),
    ],
)
def test_any_file_name_works(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    models.chain(tmp_path / "m.onnx").rename(path)
    inputs = save(tmp_path / "x.npz", np.ones((1, 8), "float32"))
    outputs = tmp_path / os.fsdecode(name + b".npz")
    measure("run", "--inputs", inputs, "--outputs", outputs, "--", path)
    assert zipfile_names(outputs) == ["y.npy"]
    (file,) = measure("memory", "--repeats", "1", "--", path)["files"]
    assert os.fsencode(file["path"]) == os.fsencode(path)
    assert file["arena"]["bytes"] > 0


def zipfile_names(path: Path) -> list[str]:
    import zipfile

    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_a_relative_name_that_begins_with_a_dash(tmp_path: Path) -> None:
    models.sums(tmp_path / "-m.tflite", ["y"])
    done = subprocess.run(
        command("memory", "--repeats", "1", "--", "-m.tflite"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=LIMIT,
        check=True,
    )
    assert json.loads(done.stdout)["result"]["files"][0]["peak"]


def test_nothing_of_the_folder_it_starts_in_is_imported(tmp_path: Path, onnx: Path) -> None:
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(build())
    for name in ("numpy", "json", "edgeprune", "onnxruntime"):
        (tmp_path / "here").mkdir(exist_ok=True)
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('taken from here')")
    done = subprocess.run(
        [sys.executable, archive, "memory", "--repeats", "1", onnx],
        cwd=tmp_path / "here",
        capture_output=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "TASK"),
        (["dance"], "invalid choice: 'dance'"),
        (["memory"], "FILE"),
        (["memory", "--repeats", "0", "x"], "'0' isn't a whole number from 1 on"),
        (["memory", "--rep", "3", "x"], "unrecognized arguments: --rep"),
        (["latency", "--block-seconds", "nan", "x"], "'nan' isn't a number of seconds"),
        (["latency", "--blocks", "5", "--max-blocks", "3", "x"], "--max-blocks is less"),
        (["run", "--outputs", "y.npz", "x"], "--inputs X.npz is missing"),
        (["energy", "--meter", "guess", "x"], "invalid choice: 'guess'"),
        (["memory", "/nowhere/x.onnx"], "/nowhere/x.onnx: can't be read: No such file"),
        (["ops", __file__], "neither an ONNX nor a TFLite file"),
    ],
)
def test_wrong_use_is_one_line_of_json(words: list[str], message: str) -> None:
    answer = ask(*words, code=2)
    assert message in answer["error"]
    assert answer["exit_code"] == 2
    assert "result" not in answer


def test_wrong_inputs_and_places_are_named(tmp_path: Path, onnx: Path) -> None:
    inputs = save(tmp_path / "x.npz", np.ones((1, 7), "float32"))
    words = ("run", "--inputs", inputs, "--outputs", tmp_path / "y.npz", onnx)
    assert "the array is float32 1x7" in ask(*words, code=2)["error"]
    inputs = save(tmp_path / "x.npz", np.ones((1, 64), "float32"))
    words = ("run", "--inputs", inputs, "--outputs", tmp_path / "no" / "y.npz", onnx)
    assert "can't be written: No such file" in ask(*words, code=2)["error"]


def test_a_failing_run_is_three(tmp_path: Path) -> None:
    path = models.lookup(tmp_path / "m.onnx")
    inputs = save(tmp_path / "x.npz", np.full((1, 6), 7))
    answer = ask("run", "--inputs", inputs, "--outputs", tmp_path / "y.npz", path, code=3)
    assert "failed" in answer["error"]
    assert answer["exit_code"] == 3
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_what_is_missing_on_a_device_is_said(tmp_path: Path, onnx: Path, package: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None\n")
    answer = ask("memory", onnx, code=2, environment={"PYTHONPATH": str(tmp_path)})
    assert f"{package} isn't installed" in answer["error"]
    assert f"pip install {package}" in answer["error"]


def test_progress_is_told_line_by_line(onnx: Path) -> None:
    words = command("memory", "--repeats", "2", "--progress", onnx)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert done.stderr.splitlines() == [f"progress 0 2 {onnx}", f"progress 1 2 {onnx}"]


@pytest.mark.parametrize("task", ["memory", "latency", "ops", "run", "energy", "count"])
def test_a_run_that_hangs_is_ended_in_time(tmp_path: Path, task: str) -> None:
    path = models.endless(tmp_path / "m.onnx")
    words = ["--time-limit", "1"]
    if task == "run":
        inputs = save(tmp_path / "x.npz", np.ones((1, 8), "float32"))
        words += ["--inputs", str(inputs), "--outputs", str(tmp_path / "y.npz")]
    if task == "count":  # it is this process that hangs, so the kernel ends it
        done = subprocess.run(command(task, *words, path), cwd=ROOT, timeout=LIMIT)
        assert done.returncode == -signal.SIGALRM
    elif task in ("memory", "latency"):
        (file,) = measure(task, *words, path)["files"]
        assert file["cut"]
        assert file["killed"] is None
    else:
        assert "the time limit of 1 s" in ask(task, *words, path, code=3)["error"]


def test_a_hanging_file_takes_no_more_than_its_share(tmp_path: Path, lite: Path) -> None:
    path = models.endless(tmp_path / "e.onnx")
    words = ("latency", "--time-limit", "8", "--blocks", "2", "--max-blocks", "2", *QUICK)
    hanging, other = measure(*words, path, lite)["files"]
    assert "didn't end within" in hanging["cut"]
    assert len(other["blocks"]) == 2
    assert other["cut"] is None


@pytest.mark.parametrize("task", ["memory", "latency", "ops"])
def test_what_takes_more_memory_than_the_limit_is_refused(tmp_path: Path, task: str) -> None:
    path = models.inflated(tmp_path / "m.onnx", 2**28)  # 1 GiB
    error = ask(task, "--memory-limit", "0.5", path, code=2)["error"]
    assert error.startswith(f"{path}: ")
    assert "0.5 GiB (--memory-limit)" in error
    if task == "memory":
        (file,) = measure(task, "--repeats", "1", path)["files"]
        assert file["peak"][0] > 2**30


def test_a_tflite_file_that_gets_no_memory_is_told_the_limit(tmp_path: Path) -> None:
    shape = (2**10, 2**20)  # 4 GiB
    tensors = {"x": LiteTensor(shape), "y": LiteTensor(shape)}
    graph = LiteGraph(tensors, [LiteOp("ABS", ["x"], ["y"])], ["x"], ["y"])
    path = tmp_path / "m.tflite"
    path.write_bytes(flatbuffer.pack(lite_model(graph)))
    error = ask("latency", "--memory-limit", "0.5", path, code=2)["error"]
    assert "0.5 GiB (--memory-limit)" in error


def test_the_default_limit_holds_what_no_machine_should_give(tmp_path: Path) -> None:
    path = models.inflated(tmp_path / "m.onnx", 5 * 10**9)  # 20 GB
    assert path.stat().st_size < 1000
    assert "8 GiB (--memory-limit)" in ask("latency", path, code=2)["error"]


def test_a_killed_process_is_no_error_of_the_agent(tmp_path: Path) -> None:
    with started("memory", models.endless(tmp_path / "m.onnx")) as (process, worker):
        os.kill(worker, signal.SIGKILL)
        (file,) = json.loads(process.stdout.readline())["result"]["files"]
    assert file["killed"] == signal.SIGKILL
    assert file["peak"] == []
    assert file["arena"] is None
    assert "want of memory" in file["arena_reason"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_and_what_it_started(tmp_path: Path, number: int) -> None:
    with started("memory", models.endless(tmp_path / "m.onnx")) as (process, worker):
        process.send_signal(number)
        code = process.wait(LIMIT)
        assert code == (-number if number == signal.SIGKILL else 128 + number)
        until(lambda: not alive(worker), "its process ends too")
        assert process.stdout.read() == b""


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_a_dead_connection_ends_it(tmp_path: Path, which: str) -> None:
    with started("latency", models.endless(tmp_path / "m.onnx")) as (process, worker):
        getattr(process, which).close()
        assert process.wait(LIMIT) == 128 + signal.SIGHUP
        until(lambda: not alive(worker), "its process ends too")


def test_closed_standard_files_are_no_trap(onnx: Path) -> None:
    words = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command("memory", "--repeats", "1", onnx)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, timeout=LIMIT)
    assert json.loads(done.stdout)["result"]["files"][0]["peak"]


def test_under_qemu_it_knows_and_still_works(tmp_path: Path, onnx: Path) -> None:
    machine = os.uname().machine
    qemu = shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")
    if qemu is None:
        pytest.skip("no qemu-user here: apt-get install qemu-user")
    start = (qemu, sys.executable, "-m", "edgeprune.profiler")
    answer = ask("memory", "--repeats", "1", onnx, start=start)
    assert answer["device"]["emulated"] == "qemu-user"
    (file,) = answer["result"]["files"]
    (native,) = measure("memory", "--repeats", "1", onnx)["files"]
    # what it started was emulated as well: qemu is a part of its memory
    assert file["base"][0] > 1.3 * native["base"][0]


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A control group of 90 MB; what writes its number into ``cgroup.procs`` is in it."""
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else old.parent) / f"edgeprune-{tmp_path.name}"
    limit = "memory.limit_in_bytes" if old.is_dir() else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text("90000000")
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group of memory can be made here (it takes root): {error}")
    yield group
    group.rmdir()


def test_what_is_too_large_for_the_memory_is_killed_and_the_rest_measured(
    tmp_path: Path, onnx: Path, small_memory: Path
) -> None:
    large = models.chain(tmp_path / "l.onnx", width=3072, depth=3)
    start = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', small_memory / "cgroup.procs", *command())
    words = ("memory", "--repeats", "2", large, onnx)
    (killed, fine) = measure(*words, start=start)["files"]
    assert killed["killed"] == signal.SIGKILL
    assert killed["peak"] == []
    assert fine["killed"] is None
    assert len(fine["peak"]) == 2
