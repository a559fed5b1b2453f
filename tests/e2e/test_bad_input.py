# SPDX-License-Identifier: Apache-2.0
"""What can't be used ends with 2, one clear line, no traceback, and nothing written."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeprune.cli import main as cli
from edgeprune.cli.main import main
from edgeprune.errors import CheckFailed, DeviceError
from tests.e2e.support import tree
from tests.networks import digits_cnn

SHAPE = ("--input-shape", "1x1x8x8")


def missing(folder: Path, good: Path) -> Path:
    return folder / "nowhere.pt2"


def empty(folder: Path, good: Path) -> Path:
    return written(folder / "empty.pt2", b"")


def truncated(folder: Path, good: Path) -> Path:
    return written(folder / "short.pt2", good.read_bytes()[:-2000])


def garbage(folder: Path, good: Path) -> Path:
    return written(folder / "model.pt", bytes(range(256)) * 40)


def text(folder: Path, good: Path) -> Path:
    return written(folder / "model.pt", b"this is a letter, not a model\n" * 20)


def a_folder(folder: Path, good: Path) -> Path:
    (folder / "model.pt2").mkdir()
    return folder / "model.pt2"


def pickled(folder: Path, good: Path) -> Path:
    torch.save(digits_cnn(), folder / "module.pt")
    return folder / "module.pt"


def bare_state(folder: Path, good: Path) -> Path:
    torch.save(digits_cnn().state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str], code: int = 2
) -> str:
    """Run the command, which must end with ``code``, one line, and the folder as it was."""
    before = tree(folder)
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if not line.startswith(">")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert tree(folder) == before
    return lines[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "nowhere.pt2"),
        (empty, "empty.pt2"),
        (truncated, "short.pt2"),
        (garbage, "model.pt"),
        (text, "model.pt"),
        (a_folder, "model.pt2"),
        (pickled, "--trust-pickle"),
        (bare_state, "--arch"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_is_no_model(
    make: Callable[[Path, Path], Path],
    says: str,
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make(tmp_path, digits_pt2)
    arguments = ["compress", str(model), "-t", "rpi4", "-o", str(tmp_path / "out"), *SHAPE]
    assert says in refused(arguments, tmp_path, capsys)


def test_trust_pickle_loads_a_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pickled(tmp_path, tmp_path)
    assert main(["inspect", str(model), "--trust-pickle", *SHAPE]) == 0
    assert "conv2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("tests.networks:digits_cn", "digits_cn"),
        ("tests.nowhere:net", "tests.nowhere"),
        ("no colon", "package.module:factory"),
        ("tests.networks:resnet20", "resnet20"),
    ],
)
def test_a_factory_that_does_not_fit(
    arch: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bare_state(tmp_path, tmp_path)
    assert says in refused(["inspect", str(model), "--arch", arch, *SHAPE], tmp_path, capsys)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-t", "rpi44"], "rpi4"),
        (["-t", "nowhere/mine.toml"], "nowhere/mine.toml"),
        (["-t", "rpi4", "--ratio", "1"], "prune.ratio"),
        (["-t", "rpi4", "--ratio", "two"], "--ratio"),
        (["-t", "rpi4", "--lr", "0"], "finetune.learning_rate"),
        (["-t", "rpi4", "--max-size", "2 bananas"], "bananas"),
        (["-t", "rpi4", "--max-latency", "fast"], "fast"),
        (["-t", "rpi4", "--max-drop", "200"], "drop"),
        (["-t", "rpi4", "--batch", "some"], "--batch"),
        (["-t", "rpi4", "--input-shape", "big"], "--input-shape"),
        (["-t", "rpi4", "--format", "gguf"], "gguf"),
        (["-t", "rpi4", "--numerics", "int3"], "int3"),
        (["-t", "coral-edgetpu", "--numerics", "fp16"], "fp16"),
        (["-t", "rpi4", "--numerics", "int8"], "calibrat"),
        (["-t", "coral-edgetpu", "--format", "onnx"], "coral-edgetpu"),
        (["-t", "rpi4", "--exclude", "nose.*"], "nose.*"),
        (["-t", "rpi4", "--importance", "taylor"], "--data"),
        (["-t", "rpi4", "--limit", "5"], "--data"),
        (["-t", "rpi4", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["-t", "rpi4", "--data", "nowhere"], "nowhere"),
        (["-t", "rpi4", "--data", "cifar10"], "cifar10"),
        (["-t", "rpi4", "--threads", "1000000"], "--threads"),
        (["-t", "rpi4", "--nonsense"], "--nonsense"),
        ([], "--target"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_can_not_be(
    options: list[str],
    says: str,
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["compress", str(digits_pt2), "-o", str(tmp_path / "out"), *options]
    assert says in refused(arguments, tmp_path, capsys)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "compress" in captured.out
    assert captured.err == ""


def test_a_wrong_key_in_a_recipe_is_named(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path / "recipe.toml", b"[prune]\nratios = 0.5\n")
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "--recipe", str(recipe)]
    line = refused([*arguments, "-o", str(tmp_path / "out")], tmp_path, capsys)
    assert "ratios" in line
    assert "'ratio'" in line


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_out_that_is_a_file(
    below: str, digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = written(tmp_path / "out", b"mine") / below
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", str(out)]
    assert "is a file" in refused(arguments, tmp_path, capsys)


def test_an_out_that_can_not_be_made(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", "/proc/out"]
    assert "/proc" in refused(arguments, tmp_path, capsys)


def test_artifacts_need_a_folder_with_a_name(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "name a folder" in refused(["export", str(digits_pt2), "-o", "."], tmp_path, capsys)


def photos(folder: Path, broken: bool) -> Path:
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for index in range(12):
            array = np.full((8, 8), 10 * index, np.uint8)
            Image.fromarray(array).save(folder / label / f"{index}.png")
    if broken:
        image = folder / "dog" / "5.png"
        image.write_bytes(image.read_bytes()[:30])
    return folder


def test_labels_outside_the_models_classes(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "wrong.npz"
    labels = np.arange(60) % 12
    np.savez(data, x=np.zeros((60, 1, 8, 8), np.float32), y=labels)
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", str(tmp_path / "out")]
    line = refused([*arguments, "--data", str(data)], tmp_path, capsys)
    assert "11" in line
    assert "10 classes" in line


def test_data_that_does_not_fit_the_model(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "wide.npz"
    np.savez(data, x=np.zeros((60, 3, 9, 9), np.float32))
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", str(tmp_path / "out")]
    assert "8" in refused([*arguments, "--data", str(data)], tmp_path, capsys)


def test_corrupt_image_is_named(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos(tmp_path / "photos", broken=True)
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", str(tmp_path / "out")]
    main([*arguments, "--data", str(folder), "--epochs", "0", "--no-profile", "--format", "onnx"])
    captured = capsys.readouterr()
    assert "5.png" in captured.out + captured.err
    assert "Traceback" not in captured.err


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``targets list`` raise."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("edgeprune.cli.targets.list_targets", fail)


@pytest.mark.parametrize(
    ("error", "code"),
    [(CheckFailed("it differs"), 1), (DeviceError("it died"), 3), (RuntimeError("a bug"), 3)],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_error_has_its_exit_code(
    error: Exception,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(error, monkeypatch)
    line = refused(["targets", "list"], tmp_path, capsys, code)
    assert str(error) in line
    assert ("--debug" in line) == isinstance(error, RuntimeError)
    assert main(["targets", "list", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_every_extra_that_is_named_exists() -> None:
    import tomllib

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert set(cli._EXTRA.values()) <= set(tomllib.loads(text)["project"]["optional-dependencies"])


def test_a_result_of_someone_else_is_left_alone(
    digits_pt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "out" / "rpi4"
    mine.mkdir(parents=True)
    shutil.copy(digits_pt2, mine / "thesis.pt2")
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", str(tmp_path / "out")]
    assert "left alone" in refused([*arguments, "--overwrite"], tmp_path, capsys)


def pipe(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def endless(folder: Path, name: str) -> Path:
    (folder / name).symlink_to("/dev/zero")
    return folder / name


def circle(folder: Path, name: str) -> Path:
    (folder / name).symlink_to(name)
    return folder / name


def long(folder: Path, name: str) -> Path:
    return folder / ("x" * 300 + name)


def longer(folder: Path, name: str) -> Path:
    return folder / "/".join(["d" * 200] * 30) / name


def below_a_file(folder: Path, name: str) -> Path:
    return written(folder / "file", b"mine") / name


def nested(folder: Path, name: str) -> Path:
    return written(folder / name, b'{"a":' * 100_000)


@pytest.mark.parametrize("make", [pipe, endless, circle, long, longer, below_a_file])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("m.pt2", ["inspect"]),
        ("m.safetensors", ["inspect"]),
        ("x.npz", ["compress", "MODEL", "-t", "rpi4", "-o", "OUT", "--data"]),
        ("x.zip", ["compress", "MODEL", "-t", "rpi4", "-o", "OUT", "--data"]),
        ("x.toml", ["compress", "MODEL", "-t", "rpi4", "-o", "OUT", "--data"]),
        ("cifar10", ["compress", "MODEL", "-t", "rpi4", "-o", "OUT", "--data", "cifar10="]),
        ("x.toml", ["compress", "MODEL", "-t", "rpi4", "-o", "OUT", "--recipe"]),
        ("x.toml", ["compress", "MODEL", "-o", "OUT", "-t"]),
        ("x.toml", ["targets", "show"]),
        ("x.safetensors", ["ticket", "show"]),
        ("x.onnx", ["profile"]),
        ("x.onnx", ["check"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_path_that_leads_to_no_file(
    make: Callable[[Path, str], Path],
    name: str,
    command: list[str],
    digits_pt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {"MODEL": str(digits_pt2), "OUT": str(tmp_path / "out")}
    *arguments, last = [words.get(word, word) for word in command]
    path = str(make(tmp_path, name))
    whole = [*arguments, last + path] if last.endswith("=") else [*arguments, last, path]
    refused(whole, tmp_path, capsys)


@pytest.mark.parametrize("make", [endless, circle, long, longer, below_a_file, nested])
@pytest.mark.parametrize("command", ["badge", "render --format junit", "history --lock"])
def test_a_path_that_leads_to_no_json(
    make: Callable[[Path, str], Path],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused([*command.split(), str(make(tmp_path, "x.json"))], tmp_path, capsys)


def test_a_working_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["check"]) == 2
    assert capsys.readouterr().err.startswith("error: the working folder can't be used: No such")


class Rude(BaseException):
    """What no handler of ``Exception`` sees."""


@pytest.mark.parametrize(
    ("error", "says", "code"),
    [
        (SystemExit(0), "SystemExit: 0", 2),
        (MemoryError(), "there isn't enough memory", 2),
        (OSError(errno.EIO, "I/O error", "a.bin"), "a.bin: I/O error", 2),
        (Rude("odd"), "internal: Rude: odd", 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_code_expects_is_one_line(
    error: BaseException,
    says: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(error, monkeypatch)
    assert says in refused(["targets", "list"], tmp_path, capsys, code)


def test_data_that_ends_python(
    digits_pt2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "leaving.py").write_text("import sys\ndef data():\n    sys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    arguments = ["compress", str(digits_pt2), "-t", "rpi4", "-o", str(tmp_path / "out")]
    line = refused([*arguments, "--data", "leaving:data"], tmp_path, capsys)
    assert line == "error: leaving:data: ended Python (SystemExit: 0)"
