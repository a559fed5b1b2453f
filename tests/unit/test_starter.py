# SPDX-License-Identifier: Apache-2.0
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import starter
from edgeprune.errors import ConfigError
from edgeprune.project import Project, find_project
from edgeprune.starter import Answers, appended, look, model_name, text
from edgeprune.toml import parse

WHOLE = Answers(
    name="classifier",
    targets=("rpi4", "stm32h7"),
    model="model.pt2",
    data="photos/",
    budgets={"rpi4": {"size": "2MB", "latency": "25ms"}},
)
JUDGED = Answers(name="detector", targets=("rpi4",), artifacts=("a.onnx", "b.tflite"))

PYPROJECT = """\
# ours
[project]
name = 'x'   # odd spacing\t
[tool.other]
text = '''
[tool.edgeprune]
'''
"""


def project(content: str) -> Project:
    return parse(tomllib.loads(content), Project, "test")


def test_what_was_answered_is_what_is_read() -> None:
    entry = project(text(WHOLE)).models["classifier"]
    assert (entry.model, entry.data, entry.targets) == ("model.pt2", "photos/", ("rpi4", "stm32h7"))
    budgets = project(text(WHOLE)).budgets
    assert budgets["rpi4"].size == 2_000_000
    assert budgets["rpi4"].latency == 0.025
    assert budgets["rpi4"].memory is None
    growth = project(text(WHOLE)).baseline
    assert (growth.size, growth.latency, growth.accuracy) == (1.02, 1.05, 0.5)


def test_finished_files_are_only_judged() -> None:
    found = project(text(JUDGED))
    assert found.models["detector"].artifacts == ("a.onnx", "b.tflite")
    assert found.models["detector"].model is None
    assert (found.baseline.size, found.baseline.latency) == (1.02, None)
    assert found.baseline.accuracy is None
    assert "compress" not in text(JUDGED)
    assert "drop" not in text(JUDGED)


@pytest.mark.parametrize("answers", [WHOLE, JUDGED], ids=["model", "artifacts"])
@pytest.mark.parametrize("table", [(), ("tool", "edgeprune")], ids=["own", "pyproject"])
def test_each_key_that_a_comment_shows_can_be_had(answers: Answers, table: tuple[str, ...]) -> None:
    written = text(answers, table=table)
    keys = re.findall(r"(?m)^# (\w+ = .+)$", written)
    assert len(keys) >= 4
    whole = re.sub(r"(?m)^# (\w+ = .+)$", r"\1", written)
    content = tomllib.loads(whole)
    for name in table:
        content = content[name]
    parse(content, Project, "test")


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True),
    words=st.lists(
        st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).filter(str.strip),
        min_size=2,
        max_size=4,
    ),
)
def test_any_name_and_path_comes_back(name: str, words: list[str]) -> None:
    own = Answers(name=name, targets=("host",), model=words[0], data=words[1], arch=words[-1])
    entry = project(text(own)).models[name]
    assert (entry.model, entry.data, entry.arch) == (words[0], words[1], words[-1])
    judged = Answers(name=name, targets=("host",), artifacts=tuple(words))
    assert project(text(judged)).models[name].artifacts == tuple(words)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"targets": ("rpi44",)}, "no target 'rpi44'; did you mean"),
        ({"name": "a/b"}, "a/b"),
        ({"budgets": {"rpi4": {"size": "2 apples"}}}, "budgets.rpi4.size"),
    ],
)
def test_what_is_no_answer_is_refused(changed: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        text(Answers(**{**vars(WHOLE), **changed}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "before",
    ["", "\n", PYPROJECT, PYPROJECT.rstrip("\n"), PYPROJECT.replace("\n", "\r\n"),
     "tool.ruff.line-length = 3\n", "# only a comment"],
    ids=["empty", "line", "whole", "no newline", "crlf", "dotted", "comment"],
)  # fmt: skip
def test_a_pyproject_keeps_all_that_it_had(before: str, tmp_path: Path) -> None:
    after = appended(before, WHOLE)
    assert after.startswith(before)
    path = tmp_path / "pyproject.toml"
    path.write_bytes(after.encode())
    found = find_project(tmp_path)
    assert found is not None
    assert set(found.project.models) == {"classifier"}
    place = found.place("classifier", "budget/size", "rpi4")
    assert place is not None
    assert 'size = "2MB"' in after.splitlines()[place.line - 1]
    if "\r\n" in before:
        assert "\n" not in after.replace("\r\n", "")
    with pytest.raises(ConfigError, match="already; edit it there"):
        appended(after, JUDGED)


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("[project", "is no TOML"),
        ("tool = 1\n", "'tool' is no table"),
        ("tool = { ruff = 1 }\n", "can't take a table"),
        ("a = " + "[" * 5_000 + "]" * 5_000, "is no TOML"),
        ("[[tool]]\na = 1\n", "'tool' is no table"),
    ],
)
def test_a_pyproject_that_can_take_no_table_is_refused(before: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        appended(before, WHOLE)


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_what_is_there_is_found_the_nearest_first(tmp_path: Path) -> None:
    made(
        tmp_path, "deep/er/z.pt2", "b.pt", "a.safetensors", "m.onnx", "x/y.TFLITE", "data.npz",
        "photos/cat/1.jpg", "photos/dog/1.PNG", "set/train/a/1.png", "set/test/a/1.png",
        "out/rpi4/model.onnx", ".venv/x.pt2", "1/2/3/4/far.pt2", "loose.png",
    )  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path / "deep")
    found = look(tmp_path)
    assert found.models == ("deep/er/z.pt2", "a.safetensors", "b.pt")
    assert found.artifacts == ("m.onnx", "x/y.TFLITE")
    assert found.data == ("photos/", "set/", "data.npz")


def test_a_large_folder_is_left_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, *(f"{i:03}.onnx" for i in range(50)))
    monkeypatch.setattr(starter, "_ENTRIES", 10)
    assert len(look(tmp_path).artifacts) == 10
    assert look(tmp_path / "nowhere").artifacts == ()


@pytest.mark.parametrize(
    ("file", "name"),
    [("a/my net v2.pt2", "my-net-v2"), ("model.int8.onnx", "model.int8"), ("_.pt", "model"),
     ("é.onnx", "model")],
)  # fmt: skip
def test_a_models_name(file: str, name: str) -> None:
    assert model_name(file) == name
