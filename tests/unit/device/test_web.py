# SPDX-License-Identifier: Apache-2.0
import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.device import web
from edgeprune.device.web.chromium import _served
from edgeprune.errors import DeviceError, InputError, OutputError
from edgeprune.profiler.runtime import open_session
from edgeprune.progress import Silent
from tests.unit.profiler.models import chain, lookup, sums
from tests.unit.web_runtime import chromium, web_folder

__all__ = ["web_folder"]
Run = Callable[..., dict[str, Any]]
Program = Callable[[str, str], Path]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes stand-ins for programs; PATH holds only them and a shell's own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "sleep", "cat"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def run(web_folder: Path) -> Run:
    """One job on a file, on zeros and ones; outputs as arrays."""

    def start(path: Path, engine: str = "node", timeout: float = 60, **job: Any) -> dict[str, Any]:
        session = open_session(path)
        arrays = [
            (np.arange(np.prod(spec.shape, dtype=int)) % 2).reshape(spec.shape).astype(spec.dtype)
            for spec in session.inputs
        ]
        content = {
            "format": session.format,
            "threads": 1,
            "inputs": [
                {
                    "name": spec.name,
                    "type": spec.dtype,
                    "dims": array.shape,
                    "data": base64.b64encode(array.tobytes()).decode(),
                }
                for spec, array in zip(session.inputs, arrays, strict=True)
            ],
            "outputs": True,
            "warmup": 0.0,
            "seconds": 0.02,
            "min_runs": 3,
            "max_seconds": 10.0,
        }
        answer = web.run_job(
            path.name,
            path,
            content | job,
            folder=web_folder,
            engine=engine,
            timeout=timeout,
        )
        answer["arrays"] = [
            np.frombuffer(base64.b64decode(output["data"]), output["type"]).reshape(output["dims"])
            for output in answer["outputs"] or []
        ]
        answer["expected"] = session.run(arrays)
        return answer

    return start


_TYPES = ("bool", "double", "float16", "int8", "int32", "int64", "uint8", "uint64")


def same(path: Path) -> Path:
    """An input of each type, and each of them again as an output, as ONNX."""
    infos = [
        [
            helper.make_tensor_value_info(
                f"{kind}{end}", getattr(TensorProto, kind.upper()), [2, 3]
            )
            for kind in _TYPES
        ]
        for end in ("", "_same")
    ]
    nodes = [helper.make_node("Identity", [kind], [f"{kind}_same"]) for kind in _TYPES]
    graph = helper.make_graph(nodes, "same", *infos)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_set_up_says_what_is_there_and_does_it_once(
    web_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = web_folder
    assert web.installed(folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    (tmp_path / "node").symlink_to(str(shutil.which("node")))
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm there: nothing is fetched again
    said = web.set_up(folder, Silent())
    assert said.startswith("onnxruntime-web 1.30.0 and @litertjs/core 2.5.3, and Node ")


def test_set_up_needs_node_and_npm(programs: Program, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"^web: Node isn't installed; install Node 18 or newer"):
        web.set_up(tmp_path / "web", Silent())
    programs("node", "echo v16.20.2")
    with pytest.raises(DeviceError, match=r"node is version 16\.20\.2; install Node 18 or newer"):
        web.set_up(tmp_path / "web", Silent())
    programs("node", "exit 1")
    with pytest.raises(DeviceError, match=r"node --version fails; install Node 18"):
        web.set_up(tmp_path / "web", Silent())
    programs("node", "echo v22.1.0")
    with pytest.raises(DeviceError, match=r"npm isn't installed \(Node is\); install Node 18"):
        web.set_up(tmp_path / "web", Silent())
    assert not (tmp_path / "web").exists()


@pytest.mark.parametrize(
    ("npm", "text"),
    [
        ("echo npm warn x >&2; echo 'npm error code E404' >&2; exit 1", "npm pack .*: code E404"),
        ("exit 3", "npm pack onnxruntime-common@1.30.0: no message"),
        ("exit 0", "npm pack onnxruntime-common@1.30.0: no message"),
        ('while [ "$1" != --pack-destination ]; do shift; done; echo > "$2/x.tgz"', "sha512"),
    ],
)
def test_a_failing_fetch_leaves_what_was_there(
    programs: Program, tmp_path: Path, npm: str, text: str
) -> None:
    programs("node", "echo v22.1.0")
    programs("npm", npm)
    old = tmp_path / "home" / "web"
    old.mkdir(parents=True)
    (old / "mine").touch()
    with pytest.raises(DeviceError, match=text) as caught:
        web.set_up(old, Silent())
    assert "\n" not in str(caught.value)
    assert [path.relative_to(old.parent) for path in old.parent.rglob("*")] == [
        Path("web"),
        Path("web/mine"),
    ]


def test_an_interrupted_set_up_leaves_nothing(programs: Program, tmp_path: Path) -> None:
    programs("node", "echo v22.1.0")
    programs("npm", f"cat > {tmp_path}/begun < /dev/null; sleep 20")
    code = (
        "import sys; from pathlib import Path; from edgeprune.device import web; "
        "from edgeprune.progress import Silent; web.set_up(Path(sys.argv[1]), Silent())"
    )
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home / "web")],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert list(home.iterdir())
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()
    assert list(home.iterdir()) == []


def test_a_place_that_can_not_be_written(programs: Program, tmp_path: Path) -> None:
    programs("node", "echo v22.1.0")
    programs("npm", "exit 0")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/web: can't be made: "):
        web.set_up(tmp_path / "file" / "web", Silent())


def test_another_version_does_not_count(web_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "web"
    shutil.copytree(web_folder, copy)
    assert web.installed(copy)
    package = copy / "node_modules/onnxruntime-web/package.json"
    package.write_text(package.read_text().replace('"version": "1.30.0"', '"version": "1.29.0"'))
    assert not web.installed(copy)


def test_node_answers_with_outputs_times_and_memory(run: Run, tmp_path: Path) -> None:
    answer = run(chain(tmp_path / "m.onnx", width=64, depth=3))
    assert answer["engine"].startswith("Node ")
    assert np.abs(answer["arrays"][0] - answer["expected"][0]).max() < 1e-6
    assert len(answer["times"]) >= 3
    assert min(*answer["times"], answer["load"], answer["first"], answer["cpu"]) > 0
    assert sum(answer["times"]) <= answer["wall"]
    assert answer["memory"] % 65536 == 0
    assert 0 < answer["timer"] < 1e-4


def test_weights_show_in_the_wasm_memory(run: Run, tmp_path: Path) -> None:
    small = run(chain(tmp_path / "s.onnx"))["memory"]
    large = run(chain(tmp_path / "l.onnx", width=2560))  # 26 MB of weights
    assert large["memory"] > small + 20e6


def test_every_type_comes_and_goes(run: Run, tmp_path: Path) -> None:
    answer = run(same(tmp_path / "c.onnx"))
    for mine, theirs in zip(answer["arrays"], answer["expected"], strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert (mine == theirs).all()
    assert [output["name"] for output in answer["outputs"]] == [f"{kind}_same" for kind in _TYPES]


def test_runs_end_when_they_should(run: Run, tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx")
    assert len(run(path, min_runs=500, seconds=0.0)["times"]) >= 500
    assert run(path, seconds=5.0, max_seconds=0.1, outputs=False)["wall"] < 2
    assert run(path, threads=2)["arrays"][0].shape == (1, 8)


def test_a_model_that_the_runtime_refuses_is_the_users(web_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\x08\x0a")
    job = {"format": "onnx", "threads": 1, "inputs": [], "outputs": False}
    with pytest.raises(InputError, match=r"^b\.onnx: onnxruntime-web 1\.30\.0 refuses it: ") as e:
        web.run_job("b.onnx", path, job, folder=web_folder, engine="node", timeout=60)
    assert "\n" not in str(e.value)


def test_a_run_that_fails_is_the_devices(run: Run, tmp_path: Path) -> None:
    data = base64.b64encode(b"\7" * 48).decode()
    inputs = [{"name": "x", "type": "int64", "dims": [1, 6], "data": data}]
    with pytest.raises(DeviceError, match=r"^l\.onnx: measuring it in node failed: "):
        run(lookup(tmp_path / "l.onnx"), inputs=inputs)


def test_a_hung_process_is_stopped(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="took more than 1 s and was stopped"):
        run(chain(tmp_path / "m.onnx"), timeout=1.2, warmup=8.0)


def test_without_a_set_up_it_says_how(tmp_path: Path) -> None:
    job = {"format": "onnx"}
    for engine in ("node", "chromium"):
        with pytest.raises(DeviceError, match="edgeprune device add web"):
            web.run_job("m", tmp_path, job, folder=tmp_path, engine=engine, timeout=1)


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_chromium_answers_like_node(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    chromium()
    place = Path(tempfile.mkdtemp())  # tmp_path is too long for the browser's sockets
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = (
        chain(tmp_path / "m.onnx", width=64, depth=3)
        if form == "onnx"
        else sums(tmp_path / "m.tflite", ["b", "a"])
    )
    answer = run(path, "chromium", threads=2)
    assert answer["engine"].startswith(("Chromium ", "Google Chrome "))
    assert answer["isolated"] is True
    assert answer["timer"] < 50e-6
    assert answer["cpu"] is None
    assert answer["memory"] >= 65536
    for mine, theirs in zip(answer["arrays"], answer["expected"], strict=True):
        assert np.abs(mine - theirs).max() < 1e-6
    place.rmdir()  # raises where something was left behind
    assert [each for each in tmp_path.iterdir() if each != path] == []


def test_without_chromium_it_says_so(web_folder: Path, programs: Program, tmp_path: Path) -> None:
    job = {"format": "onnx"}
    with pytest.raises(DeviceError, match="web:chromium: Chromium isn't installed"):
        web.run_job("m", tmp_path, job, folder=web_folder, engine="chromium", timeout=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo 'no usable sandbox!' >&2; exit 1", "ended by itself: no usable sandbox!"),
        (
            "exec >&2; echo '[1:1:FATAL:x.cc:3] path too long'; echo '[1:ERROR:y.cc:2] no'; exit 1",
            "ended by itself: path too long$",
        ),
        ("sleep 20", "took more than 1 s and was stopped"),
    ],
)
def test_a_browser_that_does_not_answer(
    run: Run, programs: Program, tmp_path: Path, text: str, said: str
) -> None:
    programs(
        "chromium", f"[ \"$1\" != --version ] || {{ echo 'Chromium 1.2 built'; exit; }}\n{text}"
    )
    start = time.monotonic()
    with pytest.raises(DeviceError, match=said):
        run(chain(tmp_path / "m.onnx"), "chromium", timeout=1)
    assert time.monotonic() - start < 15


def test_the_page_is_served_to_nobody_else() -> None:
    with _served({"page.html": b"<p>", "a/b.wasm": b"x"}) as server:
        root, _, _ = server.url.rpartition("/")
        with urllib.request.urlopen(f"{root}/a/b.wasm", timeout=10) as answer:
            assert answer.read() == b"x"
            assert answer.headers["Content-Type"] == "application/wasm"
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        host = root.rpartition("/")[0]
        for wrong in (f"{host}/page.html", f"{host}/wrong/page.html", f"{root}/../x", f"{root}/no"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(wrong, timeout=10)
    assert server.server_address[0] == "127.0.0.1"
