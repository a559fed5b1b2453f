# SPDX-License-Identifier: Apache-2.0
"""``edgeprune device`` against a real sshd, and the agent behind it."""

import io
import json
import os
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgeprune.device.address import parse_address
from edgeprune.device.agent import Agent
from edgeprune.device.open import open_agent
from edgeprune.device.settings import Places, find_device
from edgeprune.device.ssh import SshShell
from edgeprune.errors import InputError
from tests.e2e.support import Run
from tests.sshd import Server, needs_sshd, sshd
from tests.unit.profiler import models

SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(autouse=True)
def run(edgeprune: Run, places: Places) -> Run:
    """``edgeprune device`` with folders of its own."""
    return partial(edgeprune, "device")


def test_nothing_was_added_at_first(run: Run) -> None:
    code, out, _ = run("list")
    assert (code, "No device was added yet" in out) == (0, True)
    code, out, _ = run("list", "--json")
    assert json.loads(out)["devices"] == {}


@needs_sshd
def test_a_key_is_accepted_by_its_fingerprint_alone(
    run: Run, server: Server, places: Places
) -> None:
    identity = ("--identity", str(server.identity))
    code, _, err = run("probe", server.address)
    assert (code, "its host key isn't known" in err) == (3, True)

    code, out, err = run("add", "board", server.address, *identity)
    assert (code, server.fingerprint in out) == (2, True)
    assert "isn't accepted unasked" in err
    code, _, err = run("add", "board", server.address, *identity, "--fingerprint", "SHA256:other")
    assert code == 3
    assert f"REFUSED: its host key's fingerprint is {server.fingerprint} (ssh-ed25519)" in err
    assert not places.config.exists()

    given = ("--fingerprint", server.fingerprint)
    code, out, err = run("add", "board", server.address, *identity, *given)
    assert (code, err) == (0, "")
    assert "board: added" in out
    host = f"[127.0.0.1]:{server.port}"
    assert places.known_hosts.read_text() == f"{host} {server.host_key()}\n"
    devices = tomllib.loads(places.devices.read_text())
    assert devices == {"board": {"address": server.address, "identity": str(server.identity)}}

    code, out, _ = run("add", "board", server.address, *identity, *given)
    assert (code, "its host key is known already" in out) == (0, True)
    code, _, _ = run("add", "board", server.address, "--folder", "there")
    assert code == 0
    changed = {**devices["board"], "folder": "there"}
    assert tomllib.loads(places.devices.read_text()) == {"board": changed}
    code, _, err = run("add", "board", server.address, *identity, "--fingerprint", "SHA256:other")
    assert (code, "REFUSED" in err) == (3, True)
    code, _, err = run("add", "board", "ssh://elsewhere")
    assert (code, "device 'board' is ssh://" in err) == (2, True)

    code, out, _ = run("probe", "board", "--json")
    assert code == 0
    assert json.loads(out)["probe"]["machine"] == os.uname().machine
    code, out, _ = run("list")
    assert server.address in out

    code, out, _ = run("remove", "board")
    assert code == 0
    assert out.splitlines() == [" - board: removed", f" - host key of {host}: forgotten"]
    assert places.known_hosts.read_text() == ""
    code, _, err = run("remove", "board")
    assert (code, "no such device" in err) == (2, True)


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@needs_sshd
@pytest.mark.parametrize(("typed", "code"), [("n\n", 2), ("\n", 2), ("", 130), ("y\n", 0)])
def test_on_a_terminal_it_is_asked_whether_to_accept_the_key(
    run: Run,
    server: Server,
    places: Places,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    code: int,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    found, out, err = run("add", "board", server.address, "--identity", str(server.identity))
    assert found == code
    assert server.fingerprint in out
    assert places.known_hosts.exists() == (code == 0)
    assert places.devices.exists() == (code == 0)
    if code == 2:
        assert "its host key was not accepted; nothing was changed" in err


@needs_sshd
def test_a_changed_key_is_refused_until_the_old_one_is_removed(run: Run, places: Places) -> None:
    with sshd() as server:
        add = ("add", "board", server.address, "--identity", str(server.identity), "--yes")
        assert run(*add)[0] == 0
        server.new_host_key()
        server.restart()
        for words in (add, ("probe", "board")):
            code, _, err = run(*words)
            assert code == 3
            assert "REFUSED: its host key HAS CHANGED" in err
            assert f"line 1 of {places.known_hosts}" in err
            assert err.count("\n") == 1
        assert run("remove", "board")[0] == 0
        assert run(*add)[0] == 0
        assert places.known_hosts.read_text().count("\n") == 1


@needs_sshd
def test_a_host_key_stays_as_long_as_a_device_has_it(
    run: Run, server: Server, places: Places
) -> None:
    identity = ("--identity", str(server.identity))
    assert run("add", "one", server.address, *identity, "--yes")[0] == 0
    assert run("add", "two", server.address, *identity)[0] == 0
    code, out, _ = run("remove", "one")
    assert (code, "its host key stays" in out) == (0, True)
    assert places.known_hosts.read_text()
    assert run("remove", "two")[0] == 0
    assert not places.known_hosts.read_text()


@needs_sshd
def test_a_login_that_is_refused_is_told_and_the_device_stays(
    run: Run, server: Server, places: Places, tmp_path: Path
) -> None:
    key = tmp_path / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(key)], check=True)
    code, _, err = run("add", "board", server.address, "--identity", str(key), "--yes")
    assert code == 3
    assert "added, but it can't be used yet" in err
    assert "the device refuses the key that was named" in err
    assert "board" in places.devices.read_text()


@needs_sshd
def test_a_device_without_numpy_says_what_to_install(
    run: Run, server: Server, tmp_path: Path
) -> None:
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"no {SYSTEM_PYTHON} here; `apt-get install python3` provides it")
    bare = server.folder / "bare"
    command = [SYSTEM_PYTHON, "-m", "venv", "--without-pip", str(bare)]
    subprocess.run(command, check=True)
    python = str(bare / "bin" / "python")
    words = ("--identity", str(server.identity), "--yes", "--python", python)
    code, out, _ = run("add", "board", server.address, *words)
    assert code == 0
    assert f"numpy is missing there: {python} -m pip install numpy" in out
    assert f"a runtime is missing there: {python} -m pip install onnxruntime" in out
    model = models.chain(tmp_path / "model.onnx")
    with (
        Agent(SshShell(parse_address(server.address), server.options()), (python,)) as agent,
        pytest.raises(InputError) as caught,
    ):
        agent.ask("memory", [model])
    said = str(caught.value)
    assert said.startswith(f"{server.address}: ")
    assert "numpy" in said
    assert "pip install" in said
    assert "\n" not in said


@needs_sshd
def test_a_device_without_python_says_so(run: Run, server: Server) -> None:
    words = ("--identity", str(server.identity), "--yes", "--python", "python9 -I")
    code, _, err = run("add", "board", server.address, *words)
    assert code == 2
    assert "'python9 -I' can't be started there" in err


@needs_sshd
def test_an_artifact_runs_there_as_here(
    run: Run, mine: Server, places: Places, tmp_path: Path
) -> None:
    folder = str(mine.folder / "on the device")
    words = ("--identity", str(mine.identity), "--yes", "--python", sys.executable)
    assert run("add", "board", mine.address, *words, "--folder", folder)[0] == 0
    model = models.chain(tmp_path / 'it\'s a "model".onnx')
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, x=np.random.default_rng(3).normal(size=(1, 8)).astype("float32"))
    outputs = []
    for device in ("local", "board"):
        path = tmp_path / f"{device}.npz"
        with open_agent(find_device(device, places), places) as agent:
            told = agent.run(model, inputs, path)
        assert told["runtime"].startswith("onnxruntime")
        with np.load(path) as arrays:
            outputs.append({name: arrays[name] for name in arrays.files})
        assert list(outputs[-1]) == [output["name"] for output in told["outputs"]]
    for name, array in outputs[0].items():
        np.testing.assert_array_equal(array, outputs[1][name])
    left = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert [path.suffix for path in left] == [".pyz"]


def test_an_environment_is_left_or_deleted_as_asked(run: Run, places: Places) -> None:
    folder = places.cache / "tflm"
    folder.mkdir(parents=True)
    places.config.mkdir(parents=True)
    text = '[mcu]\naddress = "tflm"\n[other]\naddress = "tflm"\n'
    places.devices.write_text(text)
    code, out, _ = run("remove", "mcu", "--purge")
    assert (code, "stays, since another device uses it" in out) == (0, True)
    places.devices.write_text(text[: text.index("[other]")])
    code, out, _ = run("remove", "mcu")
    assert (code, "--purge deletes it" in out) == (0, True)
    code, _, err = run("remove", "tflm")
    assert (code, "was not added" in err) == (2, True)
    code, out, _ = run("remove", "tflm", "--purge")
    assert (code, folder.exists()) == (0, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "a", "b", "web"), "'web': this takes [NAME] ADDRESS"),
        (("add", "local"), "needs no adding"),
        (("add", "ssh://board:/opt"), "here no folder is taken"),
        (("add", "-x y", "web"), "No such option"),
        (("add", "x y", "web"), "'x y' can't be the name of a device"),
        (("add", "tflm", "web"), "'tflm' can't be the name of web"),
        (("add", "web", "--python", "py"), "--python is for ssh; web takes none"),
        (("add", "web", "--fingerprint", "SHA256:x"), "web has no host key"),
        (("add", "ssh://board", "--identity", "/none"), "--identity: /none: no such file"),
        (("add", "ssh://board", "--benchmark-model", __file__), "--benchmark-model is for adb"),
        (("add", "emulated:nix"), "no target 'nix'"),
        (("probe", "nix"), "device 'nix': no such device; none was added yet"),
        (("probe", "tflm"), "tflm isn't set up: edgeprune device add tflm"),
        (("probe", "web"), "web isn't set up: edgeprune device add web"),
        (("probe", "emulated:rpi4"), "emulated:rpi4 isn't set up"),
        (("remove", "local", "--purge"), "--purge: nothing of local is on this machine"),
        (("remove", "emulated:..", "--purge"), "can't be the name of a target"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_can_not_be_used_is_one_line(
    run: Run, words: tuple[str, ...], said: str, places: Places
) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not places.config.exists()


def test_this_machine_is_probed(run: Run) -> None:
    code, out, _ = run("probe", "local")
    assert code == 0
    assert f"numpy          {np.__version__}" in out


def test_the_agent_can_be_carried_there_by_hand(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "agent.pyz"
    assert run("agent", "-o", str(out))[0] == 0
    done = subprocess.run([sys.executable, str(out), "probe"], capture_output=True, check=True)
    assert json.loads(done.stdout)["result"]["numpy"] == np.__version__
    code, _, err = run("agent", "-o", str(out))
    assert (code, "--overwrite" in err) == (2, True)
    assert run("agent", "-o", str(out), "--overwrite")[0] == 0
    code, _, err = run("agent", "-o", str(tmp_path / "none" / "x"))
    assert (code, "can't be written" in err) == (2, True)
