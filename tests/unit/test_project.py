# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from edgeprune.errors import ConfigError
from edgeprune.gate.judged import Place
from edgeprune.project import ProjectFile, find_project, key_lines
from edgeprune.target import find_target, hiding, list_targets

WHOLE = """\
schema_version = 1

[models.classifier]
model = "model.pt2"
data = "photos/"
targets = ["rpi4", "stm32h7"]

[models.classifier.budgets.rpi4]
latency = "25ms" # one frame

[models.detector]
artifacts = ["detector.onnx"]
targets = ["rpi4"]
baseline = { size = "+10 %" }

[budgets.rpi4]
size = "2MB"
latency = "40ms"

[baseline]
size = "+2 %"
latency = "+5%"
accuracy = -0.5
"""


def written(folder: Path, text: str, name: str = "edgeprune.toml") -> ProjectFile:
    (folder / name).write_text(text)
    found = find_project(folder)
    assert found is not None
    return found


def test_limits_of_the_model_go_over_those_of_the_project_and_the_target(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    own = file.target("classifier", "rpi4").budgets
    assert (own.size, own.latency, own.drop) == (2_000_000, 0.025, 1.0)
    assert file.target("detector", "rpi4").budgets.latency == 0.04
    assert file.target("classifier", "stm32h7").budgets.size == 2**20
    assert file.growth("classifier").size == pytest.approx(1.02)
    assert file.growth("classifier").accuracy == 0.5
    assert file.growth("classifier").memory is None
    assert file.growth("detector").size == pytest.approx(1.1)
    assert file.out("classifier") == tmp_path / "out/classifier"


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("budget/size", 17),
        ("budget/latency", 9),
        ("budget/memory", None),
        ("baseline/size", 21),
        ("baseline/accuracy", 23),
        ("integrity/hash", None),
    ],
)
def test_a_limit_has_a_line(tmp_path: Path, rule: str, line: int | None) -> None:
    file = written(tmp_path, WHOLE)
    path = (tmp_path / "edgeprune.toml").as_posix()
    expected = None if line is None else Place(file=path, line=line)
    assert file.place("classifier", rule, "rpi4") == expected


def test_a_limit_in_an_inline_table_has_the_line_of_its_key(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE.replace('[budgets.rpi4]\nsize = "2MB"\nlatency = "40ms"', ""))
    place = file.place("detector", "baseline/size", "rpi4")
    assert place is not None
    assert file.path.read_text().splitlines()[place.line - 1].startswith("baseline = {")
    assert file.place("detector", "budget/size", "rpi4") is None
    inline = WHOLE.replace(
        '[budgets.rpi4]\nsize = "2MB"', '[budgets]\nrpi4 = { size = "2MB" }\n[x]'
    )
    assert key_lines(inline)[("budgets", "rpi4")]


def test_what_the_file_itself_asks_for(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert file.asked("classifier", "rpi4") == {"size", "latency"}
    assert file.asked("classifier", "stm32h7") == frozenset()
    assert file.target("classifier", "stm32h7").budgets.size is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = " + b"[" * 20_000, "is no TOML"),
        (b"#" * (2**20 + 1), "more than 1048576 bytes"),
        (b"\xff\xfe", "is no TOML"),
    ],
    ids=["deep", "huge", "no UTF-8"],
)
def test_a_hostile_project_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "edgeprune.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        find_project(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pyproject_of_odd_tools_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("tool = 3\n")
    assert find_project(tmp_path) is None


def test_a_pyproject_that_may_be_ours_and_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.edgeprune\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml: is no TOML"):
        find_project(tmp_path)


def test_targets_of_the_project_are_its_own_wherever_it_is_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = find_target("rpi4")
    text = list_targets()["rpi4"].read_text()
    for name in ("rpi4", "camera"):
        own = text.replace('name = "rpi4"', f'name = "{name}"').replace("16MB", "3MB")
        (tmp_path / "targets").mkdir(exist_ok=True)
        (tmp_path / "targets" / f"{name}.toml").write_text(own)
    project = written(tmp_path, '[models.a]\nout = "a"\ntargets = ["camera", "rpi4"]\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert shipped.budgets.size == 16_000_000
    assert {project.target("a", name).budgets.size for name in ("camera", "rpi4")} == {3_000_000}
    assert hiding("rpi4", tmp_path) == tmp_path / "targets" / "rpi4.toml"
    assert hiding("camera", tmp_path) is None
    assert hiding("rpi4") is None


def test_in_pyproject(tmp_path: Path) -> None:
    own = WHOLE.replace("[", "[tool.edgeprune.", 0).replace("schema_version = 1\n", "")
    lines = [
        line.replace("[", "[tool.edgeprune.", 1) if line.startswith("[") else line
        for line in own.splitlines()
    ]
    file = written(tmp_path, "[project]\nname = 'x'\n" + "\n".join(lines), "pyproject.toml")
    assert set(file.project.models) == {"classifier", "detector"}
    place = file.place("classifier", "budget/size", "rpi4")
    assert place is not None
    assert 'size = "2MB"' in file.path.read_text().splitlines()[place.line - 1]


def test_the_nearest_file_up_to_the_repository_counts(tmp_path: Path) -> None:
    written(tmp_path, WHOLE)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    found = find_project(inner)
    assert found is not None
    assert found.folder == tmp_path
    (tmp_path / "a" / ".git").mkdir()
    assert find_project(inner) is None
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert find_project(inner) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('size = "+2 %"', 'size = "2 %"', "'baseline.size'.*should be a growth such as '[+]2 %'"),
        ('size = "+2 %"', "size = 2", "'baseline.size'.*should be a growth"),
        ("accuracy = -0.5", "accuracy = 0.5", "'baseline.accuracy'.*loss in points such as -0.5"),
        ("accuracy = -0.5", "accuracy = true", "'baseline.accuracy'.*loss in points"),
        ('size = "2MB"', 'size = "2 apples"', "budgets.rpi4.size"),
        ('size = "2MB"', 'sice = "2MB"', "sice"),
        ('model = "model.pt2"', "", "one of 'model', 'out', 'artifacts' is needed"),
        ('artifacts = ["', 'model = "x"\nartifacts = ["', "goes without 'model'"),
        ("budgets.rpi4]\nlat", "budgets.rpi5]\nlat", "rpi5, which isn't in 'targets'"),
        ('targets = ["rpi4"]', "targets = []", "models.detector.targets"),
        ('targets = ["rpi4"]', 'targets = ["rpi4", "rpi4"]', "'targets' names one twice"),
        ("\n[budgets.rpi4]", "\n[budgets.rpi44]", "rpi44, which no model has.*mean 'rpi4'"),
        ('size = "2MB"', f"size = {2**63}", "budgets.rpi4.size"),
        ("[models.detector]", '[models."a/b"]', "a/b"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("[baseline]", "[baseline", "is no TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in WHOLE
    (tmp_path / "edgeprune.toml").write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=f"(?s)edgeprune[.]toml: .*{message}") as caught:
        find_project(tmp_path)
    assert "\n" not in str(caught.value).strip()


def test_lines_of_keys() -> None:
    text = "a = 1\n[x]\nb.c = 2\n[ x . \"y z\" ]  # here\n'd' = 3\n[[list]]\nb = 1\n"
    assert key_lines(text) == {
        ("a",): 1,
        ("x", "b", "c"): 3,
        ("x", "y z", "d"): 5,
        ("x", "y z", "b"): 7,
    }
