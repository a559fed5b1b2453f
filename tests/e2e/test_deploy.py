# SPDX-License-Identifier: Apache-2.0
"""``edgeprune deploy``, with real models that the agent runs, on this machine and behind sshd."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.deploy.health import Expected, ExpectedOutput, Health
from edgeprune.deploy.steps import Wishes, roll_back
from edgeprune.device.address import parse_address
from edgeprune.device.settings import Places
from edgeprune.device.ssh import SshShell
from edgeprune.errors import DeviceError
from edgeprune.profiler.runtime import open_session
from edgeprune.progress import Silent
from edgeprune.report import write_json
from edgeprune.report.schema import Manifest
from tests.e2e.support import Run
from tests.sshd import Server, needs_sshd
from tests.unit.deploy import boards
from tests.unit.profiler.models import chain, sums
from tests.unit.report import reports

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def result(
    folder: Path, version: str = A, *, shift: float = 0.0, health: bool = True, depth: int = 1
) -> Path:
    """A result with an ONNX and a TFLite file; what they should answer is off by ``shift``."""
    folder = folder / f"out-{version}"
    folder.mkdir(parents=True)
    chain(folder / "model.onnx", depth=depth)
    sums(folder / "model.tflite", ["output"])
    arrays: dict[str, Any] = {}
    expected, artifacts = {}, []
    for form in ("onnx", "tflite"):
        name = f"model.{form}"
        session = open_session(folder / name)
        inputs = [np.linspace(-1, 1, 8, dtype="float32").reshape(1, 8)]
        arrays[f"{name}:input:0"] = inputs[0]
        arrays[f"{name}:output:0"] = session.run(inputs)[0] + np.float32(shift)
        output = ExpectedOutput(name=session.outputs[0].name, tolerance=1e-5, why="a test")
        expected[name] = Expected(runtime=session.runtime, inputs=("x",), outputs=(output,))
        content = (folder / name).read_bytes()
        facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        artifacts.append(reports.artifact(form, 1).model_copy(update={**facts, "file": name}))
    np.savez(folder / "health.npz", **arrays)
    manifest = Manifest(
        run=version.ljust(64, "0"),
        target="rpi4",
        files={artifact.file: artifact.sha256 for artifact in artifacts},
        artifacts=tuple(artifacts),
        preprocessing=None,
        figures={},
        verdicts=(),
        versions={},
        health=Health(file="health.npz", inputs="test", artifacts=expected) if health else None,
    )
    write_json(manifest, folder / "manifest.json")
    return folder


@pytest.fixture
def run(edgeprune: Run, places: Places) -> Run:
    """``edgeprune deploy`` with folders of its own."""
    return partial(edgeprune, "deploy")


@pytest.fixture
def home(server: Server) -> Iterator[Path]:
    """A folder of the server's user."""
    with tempfile.TemporaryDirectory(dir=server.home) as folder:
        shutil.chown(folder, server.user)
        yield Path(folder)


def add(places: Places, name: str, server: Server) -> None:
    """What ``edgeprune device add`` would write."""
    places.config.mkdir(parents=True, exist_ok=True)
    places.known_hosts.write_text(server.known_hosts.read_text())
    entry = {
        "address": server.address,
        "python": [sys.executable],
        "identity": str(server.identity),
        "folder": str(server.folder / "agent"),
    }
    places.devices.write_text(tomli_w.dumps({name: entry}))


def test_a_result_is_deployed_listed_and_taken_back(run: Run, tmp_path: Path) -> None:
    to = ("--to", f"local:{tmp_path}/board")
    code, out, _ = run(result(tmp_path, A), *to, "--dry-run")
    assert (code, "upload aaaaaaaaaaaa" in out, "nothing was changed" in out) == (0, True, True)
    assert not (tmp_path / "board").exists()

    code, out, _ = run(tmp_path / f"out-{A}", *to)
    assert (code, "as expected" in out) == (0, True)
    assert boards.current(tmp_path / "board") == A
    code, out, _ = run(result(tmp_path, B), *to, "--json")
    (told,) = json.loads(out)["boards"]
    assert (code, told["version"], told["before"]) == (0, B, A)
    assert [c["artifact"] for c in told["checked"]] == ["model.onnx", "model.tflite"]
    assert all(c["outputs"][0]["largest_difference"] <= 1e-5 for c in told["checked"])

    code, out, _ = run("--list", *to)
    assert code == 0
    rows = [line.split()[1:] for line in out.splitlines() if "local:" in line]
    assert [row[:3] for row in rows] == [[B, "current", A], [A, "previous", "-"]]
    code, out, _ = run("--list", *to, "--json")
    assert json.loads(out)["boards"][0]["previous"] == A

    code, out, _ = run("--rollback", *to)
    assert (code, "not checked again" in out) == (0, True)
    assert boards.current(tmp_path / "board") == A
    code, _, err = run("--rollback", *to)
    assert (code, err.count("\n")) == (2, 1)
    assert "no version to go back to" in err


def test_what_answers_otherwise_there_is_refused(run: Run, tmp_path: Path) -> None:
    to = ("--to", f"local:{tmp_path}/board")
    assert run(result(tmp_path, A), *to)[0] == 0
    code, out, err = run(result(tmp_path, B, shift=0.5), *to)
    assert (code, out) == (1, "")
    assert "output y: off by up to 0.5; 1e-05 is allowed (a test)" in err
    assert f"{A} stays current" in err
    assert boards.current(tmp_path / "board") == A
    code, out, _ = run(tmp_path / f"out-{B}", *to, "--json")
    (told,) = json.loads(out)["boards"]
    assert (code, told["exit_code"]) == (1, 1)
    code, _, err = run(tmp_path / f"out-{B}", *to, "--no-health", "--health-command", "false")
    assert (code, f"{A} is current again" in err) == (1, True)


def test_a_file_that_its_runtime_refuses_there_is_unfit(run: Run, tmp_path: Path) -> None:
    folder = result(tmp_path, A)
    content = b"no model at all"
    (folder / "model.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    next(a for a in manifest["artifacts"] if a["file"] == "model.onnx")["sha256"] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = run(folder, "--to", f"local:{tmp_path}/board")
    assert code == 1
    assert "doesn't run there" in err
    assert "neither an ONNX nor a TFLite file" in err
    assert boards.current(tmp_path / "board") is None


def test_without_health_data_it_takes_the_users_word(run: Run, tmp_path: Path) -> None:
    to = ("--to", f"local:{tmp_path}/board")
    old = result(tmp_path, A, health=False)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    chain(foreign / "net.onnx")
    for folder in (old, foreign):
        code, _, err = run(folder, *to)
        assert (code, "--no-health deploys it unchecked" in err) == (2, True)
        code, out, _ = run(folder, *to, "--no-health")
        assert (code, "not checked (--no-health)" in out) == (0, True)
    assert (tmp_path / "board" / "current" / "net.onnx").exists()


def test_formats_choose_the_artifacts(run: Run, tmp_path: Path) -> None:
    code, _, _ = run(result(tmp_path, A), "--to", f"local:{tmp_path}/board", "--format", "tflite")
    assert code == 0
    there = {path.name for path in (tmp_path / "board" / "current").iterdir()}
    assert there == {"model.tflite", "manifest.json", "SHA256SUMS"}
    assert (tmp_path / "board" / "current").readlink().name == f"{A}-tflite"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which result?"),
        (("RESULT",), "to which board?"),
        (("RESULT", "--to", "local"), "lacks a folder of its own"),
        (("RESULT", "--to", "local:/"), "lacks a folder of its own"),
        (("RESULT", "--to", "local:/a/../b"), "without '..'"),
        (
            ("RESULT", "--to", "tflm"),
            "can't be deployed to; local:/folder and ssh://",
        ),
        (("RESULT", "--to", "ssh://-oProxyCommand=x:/a"), "can't be the name of a host"),
        (("RESULT", "--to", "nobody:/a"), "none of local"),
        (("RESULT", "--to", "local:/a", "--to", "local:/a"), "is given twice"),
        (("RESULT", "--to", "local:/a", "--format", "exe"), "allowed are onnx, tflite"),
        (("RESULT", "--to", "local:/a", "--keep", "1"), "--keep"),
        (("RESULT", "--list", "--to", "local:/a"), "--list is about what is on the boards"),
        (("--list", "--rollback", "--to", "local:/a"), "give one of them"),
        (("--rollback", "--dry-run", "--to", "local:/a"), "has no --dry-run"),
        (("NOWHERE", "--to", "local:/a"), "is no folder"),
        (("--list", "--inventory", "NOWHERE"), "can't be read"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(
    run: Run, tmp_path: Path, words: Sequence[str], said: str
) -> None:
    names = {"RESULT": tmp_path / f"out-{A}", "NOWHERE": tmp_path / "nowhere"}
    result(tmp_path, A)
    code, out, err = run(*(names.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert said in err
    assert err.strip().count("\n") == 0


def test_a_dead_board_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    inventory = tmp_path / "boards.toml"
    tables = {
        "kitchen": {"to": f"local:{tmp_path}/kitchen"},
        "cellar": {"to": "ssh://pi@127.0.0.1:1/opt/models"},
        "hall": {"to": f"local:{tmp_path}/hall", "health_command": "test -f model.onnx"},
    }
    inventory.write_text(tomli_w.dumps(tables))
    code, out, _ = run(result(tmp_path, A), "--inventory", inventory)
    assert code == 3
    rows = {line.split()[0]: line for line in out.splitlines() if line[:1].isalpha()}
    assert all(A in rows[name] for name in ("kitchen", "hall"))
    assert "failed, see below" in rows["cellar"]
    assert " - cellar: ssh://pi@127.0.0.1:1: " in out
    for name in ("kitchen", "hall"):
        assert boards.current(tmp_path / name) == A
    code, out, _ = run("--list", "--inventory", inventory, "--json")
    assert code == 3
    assert [("error" in board) for board in json.loads(out)["boards"]] == [False, True, False]


@needs_sshd
def test_over_ssh_the_models_run_there(
    run: Run, places: Places, mine: Server, tmp_path: Path
) -> None:
    add(places, "board", mine)
    folder = tmp_path / "a 'b'"
    to = ("--to", f"board:{folder}")
    code, out, err = run(result(tmp_path, A), *to)
    assert (code, "as expected" in out) == (0, True), err
    assert boards.current(folder) == A
    code, out, _ = run(tmp_path / f"out-{A}", "--to", f"{mine.address}{folder}", "--json")
    assert (code, json.loads(out)["boards"][0]["sent_bytes"]) == (0, 0)
    code, _, err = run(result(tmp_path, B, shift=1.0), *to)
    assert (code, f"{A} stays current" in err) == (1, True)
    assert run(tmp_path / f"out-{B}", *to, "--no-health")[0] == 0
    assert run("--rollback", *to)[0] == 0
    assert boards.current(folder) == A
    assert boards.is_tidy(folder)


@pytest.fixture
def shell(server: Server) -> Iterator[SshShell]:
    reached = SshShell(parse_address(server.address), server.options())
    yield reached
    reached.close()


class Cutting(Silent):
    """Progress that cuts all connections when half of a big file is sent."""

    def __init__(self, server: Server, size: int) -> None:
        self._server, self._left = server, size // 2

    @contextlib.contextmanager
    def bar(self, title: str, total: int) -> Iterator[Any]:
        yield self

    def advance(self, steps: int = 1, **figures: float) -> None:
        if self._left > 0:
            self._left -= steps
            if self._left <= 0:
                self._server.cut()


@needs_sshd
def test_over_ssh_a_cut_upload_goes_on(
    server: Server, shell: SshShell, home: Path, tmp_path: Path
) -> None:
    folder = home / "board"
    boards.bring(folder, boards.release(tmp_path, A), shell=shell)
    what = boards.release(tmp_path, B, size=20_000_000)
    with pytest.raises(DeviceError, match="the connection broke"):
        boards.bring(folder, what, shell=shell, progress=Cutting(server, 20_000_000))
    assert boards.current(folder) == A
    done = boards.bring(folder, what, shell=shell, force_unlock=True)
    assert boards.current(folder) == B
    assert done.sent < what.bytes - 1_000_000
    assert boards.is_tidy(folder)


@needs_sshd
@pytest.mark.slow
def test_over_ssh_a_client_killed_at_ten_points_leaves_a_whole_version(
    server: Server, shell: SshShell, home: Path, tmp_path: Path
) -> None:
    old, what = boards.release(tmp_path, A), boards.release(tmp_path, B)
    counting = boards.Watched(shell)
    boards.bring(home / "counted", what, shell=counting)
    seen = set()
    for point in np.linspace(1, counting.count, 10).round().astype(int):
        folder = home / f"kill-{point}"
        boards.bring(folder, old, shell=shell)

        dying = SshShell(parse_address(server.address), server.options())
        assert boards.killed_at(point, folder, what, dying) == -signal.SIGKILL, point
        seen.add(boards.current(folder))
        boards.bring(folder, what, shell=shell)
        assert boards.current(folder) == B, point
        assert boards.is_tidy(folder), point
        assert roll_back(boards.board(folder, shell), Wishes(), Silent()).version == A
    assert seen == {A, B}


@needs_sshd
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(st.sampled_from("'\"\\$`;&|<>()*?~# \t\n-=%é"), min_size=1, max_size=12),
        st.sampled_from(["-rf", "$(touch x)", "a; rm -rf .", "--\n"]),
    )
)
def test_over_ssh_any_folder_name_is_just_a_name(
    shell: SshShell, home: Path, tmp_path: Path, name: str
) -> None:
    folder = home / name
    boards.bring(folder, boards.release(tmp_path, A), shell=shell)
    assert boards.current(folder) == A
    assert boards.is_tidy(folder)
    assert len(list(home.rglob("current"))) == len(list(home.iterdir()))


@needs_sshd
def test_over_ssh_a_folder_without_permission_is_said_so(
    run: Run, places: Places, server: Server, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a user of its own is made for this, which needs root: run it with sudo")
    add(places, "board", server)
    closed = server.folder / "closed"
    closed.mkdir(mode=0o555)
    for folder in (closed, closed / "models"):
        code, _, err = run(result(tmp_path / folder.name), "--to", f"board:{folder}")
        assert (code, "permission denied" in err) == (3, True), err
        assert err.strip().count("\n") == 0
    assert not any(closed.iterdir())
