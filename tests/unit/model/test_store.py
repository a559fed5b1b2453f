# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import ModelError, OutputError
from edgeprune.model import Event, capture, parameters, read, save, state_bytes
from tests.unit.model.nets import INPUTS, captured, everything, sample

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_read_is_bit_equal(name, tmp_path):
    model = captured(name).evolve(
        captured(name).program, Event("prune", {"ratio": 0.5}, {"removed": [1, 2]}), "fp16"
    )
    save(model, tmp_path / "a.pt2")
    again = read(tmp_path / "a.pt2")
    assert again.fingerprint() == model.fingerprint()
    assert (again.inputs, again.history, again.numerics) == (
        model.inputs,
        model.history,
        model.numerics,
    )
    state = model.program.state_dict
    assert list(again.program.state_dict) == list(state)
    assert all(torch.equal(again.program.state_dict[n], state[n]) for n in state)
    for batch in (1, 3):
        x = sample(name, batch)
        with torch.no_grad():
            assert torch.equal(again.module()(x), model.module()(x))
    save(again, tmp_path / "b.pt2")
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()


def test_ties_constants_and_private_buffers_survive_the_file(tmp_path):
    model = everything()[1]
    save(model, tmp_path / "m.pt2")
    again = read(tmp_path / "m.pt2")
    assert again.fingerprint() == model.fingerprint()
    assert (parameters(again), state_bytes(again)) == (parameters(model), state_bytes(model))
    module = again.module()
    assert module.out.weight is module.embedding.weight
    assert "scale" not in module.state_dict()
    assert list(again.program.constants) == list(model.program.constants)


def test_an_input_called_like_a_word_of_python_keeps_its_name(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())  # its forward calls it `input`
    model, _ = capture(net, (torch.rand(2, 1, 8, 8),), event=Event("load"))
    save(model, tmp_path / "m.pt2")
    again = read(tmp_path / "m.pt2")
    assert [entry.name for entry in again.inputs] == ["input"]
    assert again.fingerprint() == model.fingerprint()


SAVE = """
import sys, torch
from pathlib import Path
from tests.networks import TinyViT
from edgeprune.model import Event, capture, save
torch.manual_seed(3)
model, _ = capture(TinyViT(depth=1), (torch.randn(2, 3, 32, 32),), event=Event("load", {"a": 1}))
save(model, Path(sys.argv[1]))
print(model.fingerprint())
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SAVE, str(tmp_path / prefix)],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, (prefix, folder) in enumerate(
            {"a": tmp_path, "b": tmp_path / "elsewhere"}.items()
        )
    ]
    first, second = (process.communicate()[0] for process in started)
    assert first == second != ""
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_tells_nothing_of_this_machine(tmp_path):
    save(captured("TinyMobileNet"), tmp_path / "m.pt2")
    data = (tmp_path / "m.pt2").read_bytes()
    for text in (str(ROOT), str(Path.home()), str(tmp_path), sys.prefix, "stack_trace", ".py"):
        assert text.encode() not in data
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"archive"}


def test_saving_never_edits_the_model(tmp_path):
    model = captured("TinyBert")
    metas = [dict(n.meta) for n in model.program.graph.nodes]
    state = dict(model.program.state_dict)
    save(model, tmp_path / "m.pt2")
    assert [dict(n.meta) for n in model.program.graph.nodes] == metas
    assert all(model.program.state_dict[n] is t for n, t in state.items())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m.pt2"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        save(captured("digits_cnn"), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="can't be written: No such file"):
        save(captured("digits_cnn"), tmp_path / "nowhere/m.pt2")


def test_a_new_file_has_the_usual_permissions(tmp_path):
    save(captured("digits_cnn"), tmp_path / "m.pt2")
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "m.pt2").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"schema_version": 2', b'"schema_version": 3', "schema version 3"),
        (b'"batch_axis": 0', b'"batch_axis": 9', "batch_axis 9"),
        (b'"name": "output"', b'"nome": "output"', "nome"),
        (b'"numerics": "fp32"', b'"numerics": "fp31"', "numerics 'fp31'"),
        (b'"dtype": "float32"', b'"dtype": "floatxx"', "floatxx"),
        (b'"inputs"', b'"imputs"', "'inputs'"),
        (b'"schema_version"', b'"schema_version', "damaged"),
    ],
)
def test_a_damaged_or_later_description_is_refused(tmp_path, old, new, why):
    save(captured("digits_cnn"), tmp_path / "m.pt2")
    with (
        zipfile.ZipFile(tmp_path / "m.pt2") as source,
        zipfile.ZipFile(tmp_path / "bad.pt2", "w") as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            edited = data.replace(old, new) if name.endswith("edgeprune.json") else data
            assert edited != data or not name.endswith("edgeprune.json")
            target.writestr(name, edited)
    with pytest.raises(ModelError) as error:
        read(tmp_path / "bad.pt2")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_foreign_program_is_not_read_as_our_own(tmp_path):
    torch.export.save(captured("digits_cnn").program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="not written by edgeprune"):
        read(tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="no such file"):
        read(tmp_path / "none.pt2")
