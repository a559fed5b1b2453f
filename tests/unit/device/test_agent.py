# SPDX-License-Identifier: Apache-2.0
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.device import archive
from edgeprune.device.agent import CODE, Agent
from edgeprune.device.local import LocalShell
from edgeprune.errors import DeviceError, InputError

PRELUDE = """
import json, os, sys
task, files = sys.argv[2], sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else []
def answer(**more):
    print("noise of a start-up file")
    print(json.dumps({"schema": 1, "agent": "0", "task": task, "device": {}, **more}))
"""
"""A stand-in for the agent, which gets the words that the agent would get."""


class Board(LocalShell):
    """A device of another name than this machine."""

    name = "ssh://pi@board"

    def __init__(self) -> None:
        super().__init__()


class Told:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int]] = []
        self.steps: list[int] = []

    def bar(self, title: str, total: int) -> "Told":
        self.bars.append((title, total))
        return self

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.steps.append(steps)

    def say(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Agent]:
    """An agent that runs some code in place of the real one, in a folder on a 'device'."""

    def make(code: str, **options: Any) -> Agent:
        folder = str(tmp_path / "a 'device'")
        return Agent(Board(), (sys.executable, "-c", PRELUDE + code), folder, **options)

    return make


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "one" / "-m 'x\"\n;$.onnx", tmp_path / "two" / "-m 'x\"\n;$.onnx"]
    for path in made:
        path.parent.mkdir()
        path.write_bytes(b"the same content")
    return made


def names(folder: Path) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(str(p.relative_to(folder)) for p in found if not p.name.startswith(".used-"))


ECHO = """
read = lambda path: open(path, "rb").read().decode()
answer(result={"files": [{"path": f, "text": read(f)} for f in files], "words": sys.argv[3:]})
"""


def test_files_go_there_and_the_answer_names_those_here(
    fake: Callable[..., Agent], files: list[Path], tmp_path: Path
) -> None:
    with fake(ECHO) as agent:
        found = agent.ask("memory", files)["result"]["files"]
        there = names(tmp_path / "a 'device'")
    assert [file["path"] for file in found] == [str(path) for path in files]
    assert {file["text"] for file in found} == {"the same content"}
    assert len(there) == 3
    assert names(tmp_path / "a 'device'") == [archive.name()]


def test_the_first_to_end_leaves_the_file_that_another_needs(
    fake: Callable[..., Agent], files: list[Path], tmp_path: Path
) -> None:
    with fake(ECHO) as one:
        one.ask("memory", files[:1])
        with fake(ECHO) as other:
            other.ask("memory", files[:1])
        assert one.ask("memory", files[:1])["result"]["files"][0]["text"] == "the same content"
    assert [path.name for path in (tmp_path / "a 'device'").iterdir()] == [archive.name()]


def test_a_file_of_the_device_is_used_where_it_is(
    fake: Callable[..., Agent], tmp_path: Path
) -> None:
    with fake('answer(result={"files": [{"path": p} for p in files]})') as agent:
        result = agent.ask("memory", ["/opt/a 'b'/model.onnx"])["result"]
    assert result == {"files": [{"path": "/opt/a 'b'/model.onnx"}]}
    assert names(tmp_path / "a 'device'") == [archive.name()]


def test_keep_leaves_them(fake: Callable[..., Agent], files: list[Path], tmp_path: Path) -> None:
    with fake(ECHO, keep=True) as agent:
        agent.ask("memory", files[:1])
    assert len(names(tmp_path / "a 'device'")) == 2


def test_nothing_is_sent_twice(fake: Callable[..., Agent], files: list[Path]) -> None:
    with fake(ECHO, keep=True) as agent:
        agent.ask("memory", files)

    told = Told()
    with fake(ECHO) as agent:
        agent.ask("memory", files, progress=told)
    assert sum(told.steps) == 0


def test_options_become_words(fake: Callable[..., Agent], files: list[Path]) -> None:
    with fake(ECHO) as agent:
        given = {"block_seconds": 0.5, "threads": 2, "a": True, "b": False, "c": None, "d": "-x"}
        words = agent.ask("latency", files[:1], {**given, "inputs": files[1]})["result"]["words"]
    assert words[:4] == ["--block-seconds=0.5", "--threads=2", "--a", "--d=-x"]
    assert words[4].startswith("--inputs=/")
    assert words[5] == "--"


def test_progress_is_shown(fake: Callable[..., Agent], files: list[Path]) -> None:
    lines = [f"progress {done} 3 file" for done in (0, 1, 3)]
    code = f"for line in {lines}: print(line, file=sys.stderr)\nanswer(result={{}})"
    told = Told()
    with fake(code) as agent:
        agent.ask("latency", progress=told)
    assert told.bars[-1] == ("latency on ssh://pi@board", 3)
    assert told.steps[-3:] == [0, 1, 2]


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (3, DeviceError)])
def test_the_agents_errors_name_the_device_and_the_file_here(
    fake: Callable[..., Agent], files: list[Path], code: int, kind: type[Exception]
) -> None:
    text = f'answer(error=files[0] + ": is broken", exit_code={code}); sys.exit({code})'
    with fake(text) as agent, pytest.raises(kind) as caught:
        agent.ask("run", files[:1])
    assert str(caught.value) == f"ssh://pi@board: {files[0]}: is broken"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit('no numpy')", "run: the agent ended with exit code 1: no numpy"),
        ("print('{')", "run: the agent ended with exit code 0: no message"),
        ("print('[]')", "run: the agent ended with exit code 0: no message"),
        ("print('{\"schema\": 2}')", "run: the agent ended with exit code 0"),
        (f"os.kill(os.getpid(), {signal.SIGKILL:d})", "killed, most likely for want of memory"),
        (f"os.kill(os.getpid(), {signal.SIGABRT:d})", "the agent ended with signal 6"),
    ],
)
def test_no_answer_is_an_error(fake: Callable[..., Agent], code: str, said: str) -> None:
    with fake(code) as agent, pytest.raises(DeviceError, match=said):
        agent.ask("run")


def test_without_python_it_is_said_what_to_install(tmp_path: Path) -> None:
    with (
        Agent(Board(), ("python9", "-I"), str(tmp_path / "there")) as agent,
        pytest.raises(InputError) as caught,
    ):
        agent.probe()
    assert str(caught.value) == (
        "ssh://pi@board: 'python9 -I' can't be started there; install Python 3.8 or newer (Debian: "
        "apt-get install python3), or name it: edgeprune device add --python"
    )


def test_a_missing_file_is_the_users(fake: Callable[..., Agent], tmp_path: Path) -> None:
    with fake(ECHO) as agent, pytest.raises(InputError, match=r"none\.onnx: can't be read"):
        agent.ask("memory", [tmp_path / "none.onnx"])


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with (
        Agent(Board(), folder=str(tmp_path / "plain")) as agent,
        pytest.raises(DeviceError, match="plain: a file is where a folder should be"),
    ):
        agent.probe()


def test_an_agent_that_hangs_is_stopped(fake: Callable[..., Agent]) -> None:
    with (
        fake("import time; time.sleep(60)") as agent,
        pytest.raises(DeviceError, match=r"took more than 0\.5 s and was stopped"),
    ):
        agent.ask("probe", timeout=0.5)


def test_the_home_folder_is_the_devices(tmp_path: Path) -> None:
    class Other(LocalShell):
        def __init__(self) -> None:
            super().__init__(environment={"HOME": str(tmp_path)})

    code = (sys.executable, "-c", PRELUDE + "answer(result={})")
    for folder in ("~/one/two", "three", "~"):
        with Agent(Other(), code, folder) as agent:
            agent.probe()
    assert [name.rpartition("/")[0] for name in names(tmp_path)] == ["", "one/two", "three"]


def test_the_real_agent_answers_here() -> None:
    with Agent(LocalShell(CODE), (sys.executable,), None) as agent:
        found = agent.probe()
    assert found["numpy"] == np.__version__
    assert found["emulated"] is None


def test_the_real_agent_answers_from_its_archive(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no model")
    with Agent(LocalShell(), (sys.executable,), str(tmp_path / "there")) as agent:
        assert agent.probe()["python"]
        with pytest.raises(InputError, match=json.dumps("model.onnx")[1:-1]):
            agent.ask("memory", [broken])
