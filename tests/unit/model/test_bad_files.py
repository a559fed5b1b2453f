# SPDX-License-Identifier: Apache-2.0
"""What is no model, or a dangerous one: one line, exit code 2, and nothing of the file runs."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.export import Dim, export

from edgeprune.errors import ModelError
from edgeprune.model import load, read, save
from tests.unit.model.nets import captured, network, sample

ARCH = "tests.networks:digits_cnn"


def fails(path: Path, why: str = "", **options) -> str:
    with pytest.raises(ModelError) as error:
        load(path, arch=ARCH, input_shapes=("1x1x8x8",), **options)
    text = str(error.value)
    assert error.value.exit_code == 2
    assert why in text
    assert "\n" not in text
    assert str(path) in text
    return text


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"weights, to be done\n", "not a model file"),
        (png(), "not a model file"),
        (b"\0" * 5000, "not a model file"),
        (b"{", "not a model file"),
        (b"\x80", "not a model file"),
        (struct.pack("<Q", 2**60) + b"{}", "not a model file"),
        (zipped(readme=b"hello"), "a zip archive without a model"),
        (zipped(), "not a model file"),
        (b"PK\x03\x04 and no more", "damaged or cut short"),
        (pickle.dumps({"a": 1}), "a plain pickle; write it with torch.save"),
        (pickle.dumps({"a": 1}, protocol=2), "a plain pickle"),
        (zipped(**{"m/data.pkl": b"\x80\x02garbage"}), "damaged or cut short"),
        (zipped(**{"m/archive_format": b"pt2"}), "not a program"),
        (zipped(**{"m/constants.pkl": b"", "m/code/a.py": b""}), "TorchScript"),
    ],
)
def test_what_is_no_model_is_refused(content, why, tmp_path, capfd):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    fails(path, why)
    with pytest.raises(ModelError):
        read(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pt"]
    assert capfd.readouterr() == ("", "")


def test_what_is_not_there_or_a_folder_is_refused(tmp_path):
    fails(tmp_path / "none.pt", "there is no such file")
    fails(tmp_path, "a folder, not a model file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "m").write_bytes(b"x")
    (tmp_path / "m").chmod(0)
    fails(tmp_path / "m", "can't be read: Permission denied")


def whole(kind: str, path: Path) -> None:
    module = network("digits_cnn")
    if kind == "zip":
        torch.save(module.state_dict(), path)
    elif kind == "legacy":
        torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        save_file(module.state_dict(), path)
    elif kind == "torchscript":
        torch.jit.script(module).save(path)
    elif kind == "ours":
        save(captured("digits_cnn"), path)
    else:
        program = export(module, (sample("digits_cnn", 2),), dynamic_shapes=({0: Dim("b")},))
        with path.open("wb") as file:
            torch.export.save(program, file)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "torchscript", "program", "ours"])
def test_a_file_cut_short_anywhere_is_refused(kind, tmp_path, capfd):
    whole(kind, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    capfd.readouterr()
    for length in (1, 9, 40, 200, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:length])
        fails(tmp_path / "cut")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["zip", "torchscript", "program", "ours"])
def test_a_member_that_is_missing_is_refused(kind, tmp_path):
    whole(kind, tmp_path / "whole")
    with zipfile.ZipFile(tmp_path / "whole") as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    needed = [n for n in members if n.endswith((".json", ".pkl", "/0", "weight_3"))]
    assert len(needed) > 1
    for gone in needed:
        if gone.endswith("edgeprune.json"):
            continue  # then it is a program of another origin
        kept = {n: data for n, data in members.items() if n != gone}
        (tmp_path / "cut").write_bytes(zipped(**kept))
        fails(tmp_path / "cut")


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path):
    """A path that must not exist after the test, and proof that the trap works."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(path)))
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["top", "beside", "as weight"])
def test_a_pickle_that_runs_code_does_not(place, legacy, canary, tmp_path):
    state = dict(network("digits_cnn").state_dict())
    trap = Canary(canary)
    value = {
        "top": trap,
        "beside": {"state_dict": state, "x": trap},
        "as weight": state | {"conv1.weight": trap},
    }[place]
    torch.save(value, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    assert "--trust-pickle" in fails(tmp_path / "m.pt", "run code")


def test_a_plain_pickle_never_runs_not_even_trusted(canary, tmp_path):
    (tmp_path / "m.pt").write_bytes(pickle.dumps(Canary(canary)))
    fails(tmp_path / "m.pt", "a plain pickle", trust_pickle=True)


def rewrite(source: Path, target: Path, edit) -> None:
    """Copy an archive with ``edit(name, data)`` applied to each member; None leaves it out."""
    with zipfile.ZipFile(source) as archive:
        members = {n: edit(n, archive.read(n)) for n in archive.namelist()}
    assert any(n is not None for n in members.values())
    target.write_bytes(zipped(**{n: d for n, d in members.items() if d is not None}))


def expression(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch() or 3"


@pytest.mark.parametrize("part", ["size", "other size", "inputs", "weight", "compiled"])
@pytest.mark.parametrize("kind", ["program", "ours"])
def test_a_program_that_runs_code_does_not(part, kind, canary, tmp_path):
    buffer = io.BytesIO()
    torch.save((Canary(canary),), buffer)

    def edit(name: str, data: bytes) -> bytes:
        if part.endswith("size") and name.endswith("models/model.json"):
            text = data.decode()
            (old,) = set(_expressions(json.loads(text)))
            new = expression(canary) if part == "size" else "S('1')"
            return text.replace(json.dumps(old), json.dumps(new)).encode()
        if part == "inputs" and name.endswith("sample_inputs/model.pt"):
            return buffer.getvalue()
        if part == "weight" and name.endswith("weights_config.json"):
            return data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        if part == "weight" and name.endswith("weight_0"):
            return buffer.getvalue()
        return data

    whole(kind, tmp_path / "good")
    rewrite(tmp_path / "good", tmp_path / "m.pt2", edit)
    if part == "compiled":
        with zipfile.ZipFile(tmp_path / "m.pt2", "a") as archive:
            archive.writestr("archive/data/aotinductor/model/x.so", b"\x7fELF")
    assert "--trust-pickle" in fails(tmp_path / "m.pt2", "would run code")
    with pytest.raises(ModelError, match="would run code"):
        read(tmp_path / "m.pt2")


def _expressions(value):
    if isinstance(value, list):
        for part in value:
            yield from _expressions(part)
    elif isinstance(value, dict):
        if "expr_str" in value:
            yield value["expr_str"]
        for part in value.values():
            yield from _expressions(part)


@pytest.mark.parametrize("hidden", ["models/extra/model.json", "Models/model.JSON", "models/x"])
def test_a_program_cannot_hide_code_under_another_name(hidden, canary, tmp_path):
    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        (old,) = set(_expressions(json.loads(data)))
        return data.replace(json.dumps(old).encode(), json.dumps(expression(canary)).encode())

    whole("program", tmp_path / "good")
    rewrite(tmp_path / "good", tmp_path / "bad", edit)
    with zipfile.ZipFile(tmp_path / "good") as good, zipfile.ZipFile(tmp_path / "bad") as bad:
        members = {n: good.read(n) for n in good.namelist()}
        (name,) = (n for n in members if n.endswith("models/model.json"))
        members[f"{name.partition('/')[0]}/{hidden}"] = bad.read(name)
    (tmp_path / "m.pt2").write_bytes(zipped(**members))
    fails(tmp_path / "m.pt2")


def test_torch_itself_would_run_these(tmp_path):
    """If this fails, torch has become safe and the screening can go."""
    path = tmp_path / "canary"
    whole("program", tmp_path / "good")

    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        text = data.decode()
        (old,) = set(_expressions(json.loads(text)))
        return text.replace(json.dumps(old), json.dumps(expression(path))).encode()

    rewrite(tmp_path / "good", tmp_path / "m.pt2", edit)
    try:
        with (tmp_path / "m.pt2").open("rb") as file:
            torch.export.load(file)
    except Exception:
        pass
    assert path.exists()


def test_an_unknown_operator_is_named(tmp_path):
    def edit(name: str, data: bytes) -> bytes:
        return data.replace(b"torch.ops.aten.relu.default", b"torch.ops.mylib.relu.default")

    whole("program", tmp_path / "good")
    rewrite(tmp_path / "good", tmp_path / "m.pt2", edit)
    fails(tmp_path / "m.pt2", "mylib")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({}, "no state dict in it (it holds nothing)"),
        ({"note": "a text", "epoch": 3}, "it holds note, epoch"),
        ({"state_dict": {"a": 1}}, "no state dict in it (it holds state_dict)"),
        ({1: torch.zeros(1)}, "no state dict in it"),
    ],
)
def test_a_torch_file_without_weights_says_what_it_holds(value, why, tmp_path):
    torch.save(value, tmp_path / "m.pt")
    fails(tmp_path / "m.pt", why)
