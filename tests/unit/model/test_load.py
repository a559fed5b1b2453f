# SPDX-License-Identifier: Apache-2.0
import argparse
import io
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim, export

from edgeprune.errors import InputError, ModelError
from edgeprune.model import Event, InputShape, load, parse_shape, runner, save
from tests import networks
from tests.unit.model.nets import INPUTS, captured, network, sample

ARCH = "tests.networks:digits_cnn"
SHAPES = ((1, 1, 8, 8),)


def agrees(model, name: str = "digits_cnn") -> None:
    """At batch 3, the model gives what the network gives."""
    x = sample(name, 3)
    (got,) = runner(model)((x.numpy(),))
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(got), network(name)(x), atol=1e-5)


def fails(path: Path, why: str, **options) -> str:
    with pytest.raises(ModelError) as error:
        load(path, **options)
    text = str(error.value)
    assert why in text
    assert "\n" not in text
    return text


def state(prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: value for name, value in network("digits_cnn").state_dict().items()}


STATE_DICTS = {
    "zip": lambda path: torch.save(state(), path),
    "legacy": lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False),
    "safetensors": lambda path: save_file(state(), path),
    "under state_dict": lambda path: torch.save({"state_dict": state(), "epoch": 3}, path),
    "under model": lambda path: torch.save({"model": state(), "lr": 0.1}, path),
    "under model_state_dict": lambda path: torch.save({"model_state_dict": state()}, path),
    "nested twice": lambda path: torch.save({"model": {"state_dict": state()}}, path),
    "module prefix": lambda path: torch.save(state("module."), path),
    "compiled and parallel": lambda path: torch.save(state("module._orig_mod."), path),
    "safetensors with prefix": lambda path: save_file(state("module."), path),
}


@pytest.mark.parametrize("kind", STATE_DICTS)
def test_a_state_dict_of_any_kind_loads_under_any_name(kind, tmp_path):
    path = tmp_path / "photo.jpg"
    STATE_DICTS[kind](path)
    loaded = load(path, arch=ARCH, input_shapes=SHAPES)
    assert loaded.notes == ()
    assert loaded.model.dynamic_batch
    assert loaded.model.history[0].options["arch"] == ARCH
    assert str(tmp_path) not in repr(loaded.model.history)
    agrees(loaded.model)
    fails(path, "give --arch package.module:factory")
    fails(path, "give --input-shape, such as 1x3x224x224, or --data", arch=ARCH)


def test_equal_weights_are_the_same_model_whatever_the_file(tmp_path):
    torch.save(state(), tmp_path / "a")
    save_file(state("module."), tmp_path / "b")
    first, second = (load(tmp_path / n, arch=ARCH, input_shapes=SHAPES).model for n in "ab")
    assert first.fingerprint() == second.fingerprint()


def test_the_factory_is_found_in_the_current_folder_and_the_path_is_put_back(tmp_path, monkeypatch):
    (tmp_path / "my_net_here.py").write_text(
        "from torch import nn\nprint('noise')\nclass Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Linear(3, 2))\n"
        "class Box:\n    net = Net\n"
    )
    torch.save(nn.Sequential(nn.Linear(3, 2)).state_dict(), tmp_path / "w.pt")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    for arch in ("my_net_here:Net", "my_net_here:Box.net"):
        assert load(tmp_path / "w.pt", arch=arch, input_shapes=("1x3",)).model.dynamic_batch
    assert sys.path == before
    fails(tmp_path / "w.pt", "did you mean 'Net'?", arch="my_net_here:Nett")
    assert sys.path == before


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("tests.networks", "write it as package.module:factory"),
        ("tests.networks:", "write it as package.module:factory"),
        ("no_such_package.x:net", "can't import no_such_package.x from the current folder"),
        ("tests.networks:digit_cnn", "did you mean 'digits_cnn'?"),
        ("tests.networks:InvertedResidual", "calling it without arguments: TypeError"),
        ("math:pi", "a float, not a function"),
        ("os:getcwd", "gives a str, not a torch.nn.Module"),
        (
            "tests.networks:tiny_resnet",
            "missing in the file: layer1.0.conv1.weight, layer1.0.bn1.weight, layer1.0.bn1.bias "
            "and 29 more; unknown to the network: conv2.weight",
        ),
        (
            "tests.unit.model.test_load:wide",
            "of another shape: conv1.weight (16x1x3x3 in the file, 24x1x3x3 in the network)",
        ),
    ],
)
def test_an_arch_that_does_not_work_or_fit_is_refused_in_one_line(arch, why, tmp_path):
    torch.save(state(), tmp_path / "w.pt")
    assert arch in fails(tmp_path / "w.pt", why, arch=arch, input_shapes=SHAPES)


def wide() -> nn.Module:
    return networks.DigitsCnn(24)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.tokens(ids)).mean(1)


def test_of_tied_weights_a_file_may_hold_just_one(tmp_path):
    weight = torch.randn(10, 4)
    save_file({"tokens.weight": weight}, tmp_path / "w")
    loaded = load(
        tmp_path / "w", arch="tests.unit.model.test_load:Tied", input_shapes=("1x5:int64",)
    )
    module = loaded.model.module()
    assert module.out.weight is module.tokens.weight
    assert torch.equal(module.out.weight, weight)


def test_old_files_without_batch_counters_load(tmp_path):
    kept = {n: t for n, t in state().items() if not n.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "w")
    agrees(load(tmp_path / "w", arch=ARCH, input_shapes=SHAPES).model)


def test_token_ids_need_their_type(tmp_path):
    torch.save(network("TinyBert").state_dict(), tmp_path / "w.pt")
    arch = "tests.networks:TinyBert"
    fails(tmp_path / "w.pt", "--input-shape 1x128:int64", arch=arch, input_shapes=("1x16",))
    for shape in ("1x16:int64", InputShape((1, 16), torch.int64)):
        agrees(load(tmp_path / "w.pt", arch=arch, input_shapes=(shape,)).model, "TinyBert")
    ids = torch.zeros(2, 16, dtype=torch.int64)
    agrees(load(tmp_path / "w.pt", arch=arch, example=(ids,)).model, "TinyBert")


def test_data_and_shapes_that_contradict_each_other_are_refused(tmp_path):
    torch.save(state(), tmp_path / "w.pt")
    fails(
        tmp_path / "w.pt",
        "the data gives 1x8x8 float32, but --input-shape gives 3x8x8 float32",
        arch=ARCH,
        example=(torch.zeros(2, 1, 8, 8),),
        input_shapes=("1x3x8x8",),
    )


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1x3x224x224", InputShape((1, 3, 224, 224))),
        ("1X16:int64", InputShape((1, 16), torch.int64)),
        (" 4:bool ", InputShape((4,), torch.bool)),
    ],
)
def test_shapes_are_read(text, shape):
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    "text", ["", "1x", "axb", "1x0", "1x-3", "1,3", "1x3:", "1x3:int63", "٣x٣x"]
)
def test_shapes_that_are_none_are_refused(text):
    with pytest.raises(InputError) as error:
        parse_shape(text)
    assert "--input-shape" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pickled_module_is_refused_unless_trusted(tmp_path):
    module = network("digits_cnn")
    torch.save(module, tmp_path / "whole.pt")
    torch.save(module, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"model": module, "epoch": 1}, tmp_path / "inside.pt")
    torch.save(module, tmp_path / "new.pt", pickle_protocol=5)
    for name in ("whole.pt", "legacy.pt", "inside.pt", "new.pt"):
        text = fails(tmp_path / name, "a pickled module", arch=ARCH, input_shapes=SHAPES)
        assert "--trust-pickle" in text
        assert "state_dict()" in text
        loaded = load(tmp_path / name, input_shapes=SHAPES, trust_pickle=True)
        agrees(loaded.model)
    assert "tests.networks.DigitsCnn" in fails(tmp_path / "whole.pt", "module")
    assert "tests.networks.DigitsCnn" in fails(tmp_path / "new.pt", "module")
    loaded = load(tmp_path / "whole.pt", arch=ARCH, input_shapes=SHAPES, trust_pickle=True)
    assert loaded.notes == (f"--arch {ARCH} isn't needed: the file holds the network",)


def test_weights_beside_other_pickled_objects_name_them(tmp_path):
    torch.save({"state_dict": state(), "args": argparse.Namespace(a=1)}, tmp_path / "w.pt")
    text = fails(tmp_path / "w.pt", "argparse.Namespace", arch=ARCH, input_shapes=SHAPES)
    assert "--trust-pickle" in text
    agrees(load(tmp_path / "w.pt", arch=ARCH, input_shapes=SHAPES, trust_pickle=True).model)


def test_a_pickled_module_whose_class_is_gone_says_so(tmp_path, monkeypatch):
    (tmp_path / "gone_module.py").write_text("from torch import nn\nclass Net(nn.Linear): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import gone_module

    torch.save(gone_module.Net(2, 2), tmp_path / "w.pt")
    (tmp_path / "gone_module.py").unlink()
    monkeypatch.delitem(sys.modules, "gone_module")
    fails(
        tmp_path / "w.pt",
        "its classes must be importable from the current folder",
        input_shapes=("1x2",),
        trust_pickle=True,
    )


@pytest.mark.parametrize("name", INPUTS)
def test_traced_torchscript_is_converted_with_its_parameters(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network(name), sample(name, 2)).save(tmp_path / "m")
    loaded = load(tmp_path / "m", example=(sample(name, 2),), trust_pickle=True)
    assert loaded.notes == ()
    agrees(loaded.model, name)
    names = dict(loaded.model.module().named_parameters()).keys()
    assert names == dict(network(name).named_parameters()).keys()
    targets = {str(n.target) for n in loaded.model.program.graph.nodes}
    assert "aten.convolution.default" not in targets


def test_scripted_torchscript_is_converted_and_needs_a_shape(tmp_path):
    torch.jit.script(network("digits_cnn")).save(tmp_path / "m")
    fails(tmp_path / "m", "give --input-shape", trust_pickle=True)
    loaded = load(tmp_path / "m", input_shapes=SHAPES, arch=ARCH, trust_pickle=True)
    assert loaded.notes == (f"--arch {ARCH} isn't needed: the file holds the network",)
    agrees(loaded.model)


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.ConvTranspose1d(2, 4, 3, stride=2, padding=1, output_padding=1, dilation=2)
        self.two = nn.ConvTranspose2d(4, 2, 2, groups=2)
        self.down = nn.Conv1d(2, 2, 3, dilation=2, groups=2, padding=1)
        self.three = nn.Conv3d(1, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(self.down(x))
        y = self.two(y[:, :, None])
        return self.three(y[:, None])


def test_every_kind_of_traced_convolution_is_named_and_right(tmp_path):
    torch.manual_seed(0)
    module, x = Transposed().eval(), torch.randn(2, 2, 9)
    torch.jit.trace(module, x).save(tmp_path / "m")
    model = load(tmp_path / "m", input_shapes=((1, 2, 9),), trust_pickle=True).model
    assert torch.allclose(model.module()(x), module(x), atol=1e-5)
    targets = {str(n.target) for n in model.program.graph.nodes if "conv" in str(n.target)}
    assert targets == {
        "aten.conv1d.default",
        "aten.conv_transpose1d.default",
        "aten.conv_transpose2d.input",
        "aten.conv3d.default",
    }


class Baked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), 3, 1) * 2


class Search(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.sum() < 100):
            x = x * 2 + 1
        return x


def test_torchscript_with_the_batch_baked_in_gets_a_static_batch(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in (1, 4):
            torch.jit.trace(Baked(), torch.randn(batch, 3)).save(tmp_path / f"m{batch}")
    for batch in (1, 4):
        loaded = load(tmp_path / f"m{batch}", input_shapes=((batch, 3),), trust_pickle=True)
        assert loaded.notes[0].startswith(f"static batch of {batch}: ")
        x = torch.randn(6, 3)
        (out,) = runner(loaded.model)((x.numpy(),))
        assert torch.equal(torch.from_numpy(out), Baked()(x))


def test_torchscript_that_does_not_convert_names_the_way_out(tmp_path):
    torch.jit.script(Search()).save(tmp_path / "m")
    why = "export the original module with torch.export"
    fails(tmp_path / "m", why, input_shapes=((1, 3),), trust_pickle=True)


def exported(path: Path, module: nn.Module, args, shapes=None, decompose: bool = False, **kwargs):
    program = export(module, args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program.run_decompositions() if decompose else program, path.open("wb"))


def test_a_users_own_program_needs_neither_arch_nor_shape(tmp_path):
    path = tmp_path / "model.bin"
    exported(path, network("digits_cnn"), (sample("digits_cnn", 2),), ({0: Dim("b", max=64)},))
    loaded = load(path)
    assert loaded.notes == ()
    assert loaded.model.fingerprint() == captured("digits_cnn").fingerprint()
    agrees(loaded.model)
    load(path, example=(torch.zeros(5, 1, 8, 8),))
    text = "the model takes 1x8x8 float32, but {} gives 3x8x8 float32 (batch left out)"
    fails(path, text.format("--input-shape"), input_shapes=("1x3x8x8",))
    fails(path, text.format("the data"), example=(torch.zeros(1, 3, 8, 8),))


@pytest.mark.parametrize("trap", [False, True])
def test_a_program_of_the_older_format_loads_unless_it_would_run_code(trap, tmp_path):
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    program = export(
        network("digits_cnn"), (sample("digits_cnn", 2),), dynamic_shapes=({0: Dim("b", max=64)},)
    )
    parts = serialize(program)
    dangerous = io.BytesIO()
    torch.save({"conv1.weight": argparse.Namespace()}, dangerous)
    with zipfile.ZipFile(tmp_path / "m", "w") as archive:
        archive.writestr("version", ".".join(str(n) for n in SCHEMA_VERSION))
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        archive.writestr(
            "serialized_state_dict.pt", dangerous.getvalue() if trap else parts.state_dict
        )
        archive.writestr("serialized_constants.pt", parts.constants)
        archive.writestr("serialized_example_inputs.pt", parts.example_inputs)
    if trap:
        fails(tmp_path / "m", "serialized_state_dict.pt holds a pickle of more than tensors")
    else:
        agrees(load(tmp_path / "m").model)


def test_a_static_program_stays_static_and_says_so(tmp_path):
    exported(tmp_path / "m", network("digits_cnn"), (sample("digits_cnn", 4),))
    loaded = load(tmp_path / "m")
    assert loaded.notes == ("static batch of 4: the program was exported so",)
    assert loaded.model.inputs[0].shape == (4, 1, 8, 8)
    agrees(loaded.model)


@pytest.mark.parametrize("decompose", [False, True])
def test_a_program_exported_in_train_mode_is_put_into_eval_mode(decompose, tmp_path):
    torch.manual_seed(1)
    module = networks.digits_cnn().train()
    module.load_state_dict(network("digits_cnn").state_dict())
    shapes = ({0: Dim("b", min=2, max=64)},)
    exported(tmp_path / "m", module, (sample("digits_cnn", 2),), shapes, decompose)
    loaded = load(tmp_path / "m")
    assert loaded.notes == ("exported in train mode: switched to eval mode",)
    agrees(loaded.model)
    # Nothing counts batches any more, so running it leaves it as it is.
    targets = {str(n.target) for n in loaded.model.program.graph.nodes}
    assert not targets & {"aten.copy_.default", "aten.add_.Tensor"}
    module = loaded.model.module()
    before = {n: b.clone() for n, b in module.named_buffers()}
    module(sample("digits_cnn", 2))
    assert all(torch.equal(b, before[n]) for n, b in module.named_buffers())


def test_attention_dropout_of_train_mode_goes(tmp_path):
    layer = nn.TransformerEncoderLayer(8, 2, 8, 0.3, batch_first=True).train()
    exported(tmp_path / "m", layer, (torch.randn(2, 4, 8),), ({0: Dim("b")},))
    module = load(tmp_path / "m").model.module()
    x = torch.randn(3, 4, 8)
    assert torch.allclose(module(x), layer.eval()(x), atol=1e-5)


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 4)

    def forward(self, ids: Tensor, mask: Tensor | None = None, flag: bool = False) -> dict:
        x = self.tokens(ids)
        x = x if mask is None else x * mask[..., None]
        return {"logits": x.mean(1), "all": [x], "flag": flag}


def test_named_inputs_nested_outputs_and_free_sizes_come_flat_and_fixed(tmp_path):
    torch.manual_seed(0)
    batch, length = Dim("batch"), Dim("length")
    shape = {0: batch, 1: length}
    ids, mask = torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5)
    shapes = {"ids": shape, "mask": shape, "flag": None}
    module = Keyed().eval()
    exported(tmp_path / "m", module, (), shapes, ids=ids, mask=mask, flag=False)
    loaded = load(tmp_path / "m")
    assert loaded.notes == (
        "dimension 1 of input 1 is fixed to 5",
        "dimension 1 of input 2 is fixed to 5",
    )
    assert [(i.name, i.shape) for i in loaded.model.inputs] == [("ids", (2, 5)), ("mask", (2, 5))]
    longer = load(tmp_path / "m", input_shapes=("1x7", "1x7")).model
    ids, mask = torch.arange(21).reshape(3, 7) % 10, torch.rand(3, 7)
    logits, hidden = longer.module()(ids, mask)
    assert torch.equal(logits, module(ids, mask)["logits"])
    assert torch.equal(hidden, module(ids, mask)["all"][0])


class Power(nn.Module):
    def forward(self, x: Tensor, n: int) -> Tensor:
        return x * n


def test_a_program_that_takes_free_numbers_is_refused(tmp_path):
    program = export(Power(), (torch.ones(2, 3), 4), dynamic_shapes=(None, Dim.DYNAMIC))
    with (tmp_path / "m").open("wb") as file:
        torch.export.save(program, file)
    fails(tmp_path / "m", "takes a number that may change")


def test_our_own_file_comes_back_bit_equal_with_its_history(tmp_path):
    model = captured("digits_cnn").evolve(captured("digits_cnn").program, Event("prune"), "fp16")
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m", input_shapes=SHAPES)
    assert loaded.notes == ()
    assert loaded.model.fingerprint() == model.fingerprint()
    assert loaded.model.history == model.history
    fails(tmp_path / "m", "the model takes 1x8x8", input_shapes=("1x3x8x8",))
    assert load(tmp_path / "m", arch=ARCH).notes == (
        f"--arch {ARCH} isn't needed: the file holds the network",
    )


def test_nothing_is_printed(tmp_path, capfd):
    torch.save(state(), tmp_path / "w.pt")
    torch.jit.script(network("digits_cnn")).save(tmp_path / "s.pt")
    exported(tmp_path / "p.pt2", network("digits_cnn"), (sample("digits_cnn", 2),))
    capfd.readouterr()
    for name in ("w.pt", "s.pt", "p.pt2"):
        model = load(tmp_path / name, arch=ARCH, input_shapes=SHAPES, trust_pickle=True).model
        save(model, tmp_path / "out.pt2")
        load(tmp_path / "out.pt2")
    assert capfd.readouterr() == ("", "")
