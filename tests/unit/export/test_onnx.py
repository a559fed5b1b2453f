# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime makes of the files: the signal that is left, and the kernels that it runs."""

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from edgeprune.errors import EdgepruneError, InputError
from edgeprune.export import onnx as onnx_room
from edgeprune.export.onnx import write_onnx
from edgeprune.model import Event, Model, capture
from edgeprune.recipe import Numerics
from tests.networks import resnet20
from tests.unit.quantize.blocks import (
    Block,
    Concatenated,
    DeadChannels,
    Grouped,
    HardSwish,
    InPlace,
    OneDimensional,
    Padded,
    Pooled,
    PreActivation,
    Scalars,
    Shuffled,
    Silu,
    SqueezeExcite,
    Transposed,
    TwoReaders,
    block,
)
from tests.unit.quantize.toy import captured, noise_db, outputs, reduced, static, trained

Activations = Literal["uint8", "int8"]
MODES: tuple[Numerics, ...] = ("fp32", "int8", "int8-dynamic", "int8-weights", "fp16")
FLOORS = {"fp32": 110, "int8": 25, "int8-dynamic": 28, "int8-weights": 28, "fp16": 50}
"""Against the float model, in dB."""
SAME = {"fp32": 110, "int8": 28, "int8-dynamic": 30, "int8-weights": 35, "fp16": 55}
"""Against the model that was written."""


def write(
    model: Model,
    path: Path,
    batch: int | Literal["dynamic"] = "dynamic",
    opset: int = 20,
    activations: Activations = "uint8",
) -> onnx.ModelProto:
    write_onnx(model, path, opset=opset, batch=batch, activations=activations)
    return onnx.load(path)


def run(path: Path, *inputs: Tensor, fixed: int | None = None) -> tuple[Tensor, Counter[str]]:
    """Outputs, and the operators that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    optimised = path.with_suffix(".optimised.onnx")
    options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(str(path), options)
    names = [entry.name for entry in session.get_inputs()]
    size = fixed or len(inputs[0])
    parts = zip(*(t.split(size) for t in inputs), strict=True)
    results = [
        session.run(None, {n: t.numpy() for n, t in zip(names, part, strict=True)})[0]
        for part in parts
    ]
    ops = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    return torch.from_numpy(np.concatenate(results)), ops


@dataclass(frozen=True)
class Written:
    model: Model
    path: Path
    proto: onnx.ModelProto


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Numerics], Written]:
    """A trained network's file, by numerics; each is written once."""

    @cache
    def make(name: str, numerics: Numerics) -> Written:
        path = tmp_path_factory.mktemp(f"{name}-{numerics}") / "model.onnx"
        model, _ = reduced(name, numerics)
        return Written(model, path, write(model, path, BATCH.get(numerics, "dynamic")))

    return make


Writer = Callable[[str, Numerics], Written]
BATCH: dict[str, int] = {"int8-dynamic": 8, "fp16": 8}
CASES = [(n, m) for n in ("digits", "mobilenet", "vit", "bert") for m in MODES]
CASES = [c for c in CASES if c not in [("mobilenet", "fp32"), ("bert", "fp32")]]


@pytest.mark.parametrize(("name", "numerics"), CASES)
def test_the_runtime_keeps_the_signal(name: str, numerics: Numerics, written: Writer) -> None:
    dense, x = trained(name)
    file, batch = written(name, numerics), BATCH.get(numerics)
    got, _ = run(file.path, x, fixed=batch)
    assert noise_db(outputs(dense, x), got) > FLOORS[numerics]
    assert noise_db(outputs(file.model, x), got) > SAME[numerics]
    entry = file.proto.graph.input[0]
    assert entry.name == file.model.inputs[0].name
    assert entry.type.tensor_type.shape.dim[0].dim_value == (batch or 0)
    assert [o.name for o in file.proto.graph.output] == ["output"]


def test_every_operator_of_a_resnet_runs_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16)
    model, result, _ = static(resnet20(), x)
    write(result, tmp_path / "model.onnx")
    got, ops = run(tmp_path / "model.onnx", x)
    assert noise_db(outputs(model, x), got) > 22
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (19, 9, 1)
    assert (ops["QuantizeLinear"], ops["DequantizeLinear"]) == (1, 1)  # the edges of the graph
    assert not ops.keys() & {"Conv", "FusedConv", "Add", "Relu", "Clip", "Gemm", "MatMul"}


def test_every_layer_of_a_mobilenet_runs_in_int8(written: Writer) -> None:
    _, ops = run(written("mobilenet", "int8").path, trained("mobilenet")[1][:1])
    assert (ops["QLinearConv"], ops["QLinearAdd"], ops["QGemm"]) == (11, 2, 1)
    assert not ops.keys() & {"Conv", "FusedConv", "Add", "Relu", "Clip", "Gemm", "MatMul"}


class Chain(nn.Module):
    """Several blocks, each on the one before; the file is written once for all of them."""

    def __init__(self, *kinds: type[Block]) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(block(kind)[0] for kind in kinds)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.kinds[0]
        assert isinstance(first, Block)
        x = torch.relu(first.norm(first.stem(x)))
        for kind in self.kinds:
            assert isinstance(kind, Block)
            x = kind.body(x)
        return self.head(x.mean((2, 3)))


FLOAT = ("Conv", "FusedConv", "BatchNormalization", "Clip", "Min", "Relu", "Add", "Mul", "Gemm")
CHAINS: list[tuple[tuple[type[Block], ...], dict[str, int]]] = [
    (
        (Grouped, Concatenated, Silu, SqueezeExcite),
        {"QLinearConv": 8, "QLinearConcat": 1, "QLinearSigmoid": 2, "QLinearMul": 2},
    ),
    (
        (Shuffled, PreActivation, TwoReaders, InPlace, DeadChannels),
        {"QLinearConv": 9, "QLinearConcat": 1, "QLinearAdd": 3},
    ),
    (
        (Pooled, Scalars),
        {"QLinearConv": 3, "QLinearAveragePool": 1, "QLinearMul": 2, "QLinearAdd": 2},
    ),
]


@pytest.mark.parametrize(("kinds", "wanted"), CHAINS, ids=["mixed", "residual", "arithmetic"])
def test_blocks_run_in_int8(
    kinds: tuple[type[Block], ...], wanted: dict[str, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, x = Chain(*kinds), torch.randn(16, 3, 8, 8)
    model, result, _ = static(module, x)
    write(result, tmp_path / "model.onnx")
    got, ops = run(tmp_path / "model.onnx", x)
    assert noise_db(outputs(model, x), got) > 24
    assert {op: ops[op] for op in wanted} == wanted
    assert ops["QGemm"] == 1 and not [op for op in FLOAT if ops[op]]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (OneDimensional, {"QLinearConv": 2, "QGemm": 2, "BatchNormalization": 0}),
        (Transposed, {"QLinearConv": 2, "QGemm": 1, "ConvTranspose": 1, "Cast": 0}),
        (Padded, {"QLinearConv": 2, "QLinearAdd": 1, "Pad": 1, "QuantizeLinear": 2}),
        (HardSwish, {"QLinearConv": 3, "QGemm": 1, "HardSigmoid": 1}),
    ],
)
def test_other_blocks_run(kind: type[Block], wanted: dict[str, int], tmp_path: Path) -> None:
    module, x = block(kind)
    model, result, _ = static(module, x)
    write(result, tmp_path / "model.onnx")
    got, ops = run(tmp_path / "model.onnx", x)
    assert noise_db(outputs(model, x), got) > 30
    assert {op: ops[op] for op in wanted} == wanted


def test_signed_activations_give_the_same_values(tmp_path: Path) -> None:
    model, x = reduced("digits", "int8")[0], trained("digits")[1]
    kinds: dict[Activations, int] = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
    got = {}
    for activations, kind in kinds.items():
        path = tmp_path / f"{activations}.onnx"
        proto = write(model, path, activations=activations)
        stored = {t.name: t.data_type for t in proto.graph.initializer}
        quantizers = [n for n in proto.graph.node if n.op_type == "QuantizeLinear"]
        assert {stored[n.input[2]] for n in quantizers} == {kind}
        got[activations], _ = run(path, x)
    assert noise_db(got["int8"], got["uint8"]) > 35


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_biases_stand_on_the_grid_of_their_accumulator(written: Writer) -> None:
    proto = written("digits", "int8").proto
    arrays = stored(proto)
    maker = {o: n for n in proto.graph.node for o in n.output}
    layers = [n for n in proto.graph.node if n.op_type in ("Conv", "Gemm")]
    assert [n.name for n in layers] == ["conv1", "conv2", "conv3", "head"]
    for node in layers:
        source, weight, bias = (maker[name] for name in node.input)
        product = arrays[source.input[1]] * arrays[weight.input[1]]
        assert np.allclose(arrays[bias.input[1]], product, rtol=1e-6)
        assert arrays[bias.input[0]].dtype == np.int32
        assert arrays[weight.input[0]].dtype == np.int8


def parameters(model: Model) -> dict[str, np.ndarray[Any, Any]]:
    return {n: t.detach().numpy() for n, t in model.module().named_parameters()}


def test_stored_weights_are_the_ones_that_were_measured(written: Writer) -> None:
    for numerics in ("int8-weights", "int8-dynamic"):
        file = written("digits", numerics)
        arrays, floats = stored(file.proto), parameters(file.model)
        for layer in ("conv1", "conv2", "conv3"):
            integers, scale = arrays[f"{layer}.weight_int8"], arrays[f"{layer}.weight_scale"]
            assert integers.dtype == np.int8 and f"{layer}.weight" not in arrays
            assert np.allclose(integers * scale, floats[f"{layer}.weight"], rtol=1e-6, atol=0)
    half = written("digits", "fp16")
    weight = stored(half.proto)["conv1.weight"]
    assert weight.dtype == np.float16
    assert np.array_equal(weight.astype(np.float32), parameters(half.model)["conv1.weight"])


def test_tables_and_linears_are_stored_on_their_grid(written: Writer) -> None:
    file = written("bert", "int8-dynamic")
    arrays, floats = stored(file.proto), parameters(file.model)
    table = arrays["tokens.weight_rows"] * arrays["tokens.weight_row_scale"]
    assert np.allclose(table, floats["tokens.weight"], rtol=1e-6, atol=0)
    linears = {n: a for n, a in arrays.items() if n.endswith("_quantized") and a.ndim == 2}
    found = [a * arrays[n.replace("_quantized", "_scale")] for n, a in linears.items()]
    wanted = [a.T for n, a in floats.items() if n.startswith(("layers", "head")) and a.ndim == 2]
    assert len(found) == len(wanted) == 9
    for weight in wanted:
        same = [f for f in found if f.shape == weight.shape]
        assert any(np.allclose(f, weight, rtol=1e-5, atol=1e-8) for f in same)


def test_linears_are_dynamic_and_stored_convolutions_fold_at_load(written: Writer) -> None:
    _, ops = run(written("vit", "int8-dynamic").path, trained("vit")[1][:8])
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 9
    assert ops["Conv"] == 1 and not ops["ConvInteger"] and not ops["DequantizeLinear"]


def test_fewer_bits_make_smaller_files(written: Writer) -> None:
    files = {numerics: written("vit", numerics).path for numerics in MODES}
    sizes = {numerics: path.stat().st_size for numerics, path in files.items()}
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    for numerics in ("int8", "int8-dynamic", "int8-weights"):
        assert sizes[numerics] < 0.35 * sizes["fp32"]
    for path in files.values():  # no weights beside the file
        assert {p.name for p in path.parent.iterdir()} <= {path.name, "model.optimised.onnx"}


@pytest.mark.parametrize(
    ("opset", "numerics"), [(18, "int8"), (23, "int8"), (21, "int8-dynamic"), (22, "fp16")]
)
def test_the_opset_is_kept(opset: int, numerics: Numerics, tmp_path: Path) -> None:
    dense, x = trained("digits")
    proto = write(reduced("digits", numerics)[0], tmp_path / "model.onnx", 1, opset)
    assert {e.domain: e.version for e in proto.opset_import}[""] == opset
    got, _ = run(tmp_path / "model.onnx", x, fixed=1)
    assert noise_db(outputs(dense, x), got) > 25


_AGAIN = """
import hashlib, sys
from pathlib import Path
from edgeprune.export.onnx import write_onnx
from edgeprune.model import read
for name in sys.argv[1:]:
    path = Path(name)
    write_onnx(read(path), path.with_suffix(".onnx"), opset=20, batch=1)
    print(hashlib.sha256(path.with_suffix(".onnx").read_bytes()).hexdigest())
"""


def test_equal_models_give_equal_bytes_in_another_process(tmp_path: Path) -> None:
    from edgeprune.model import save

    hashes, files = [], []
    for numerics in ("int8", "int8-dynamic"):
        model, path = reduced("digits", numerics)[0], tmp_path / f"{numerics}.pt2"
        save(model, path)
        files.append(str(path))
        write(model, tmp_path / "here.onnx", 1)
        content = (tmp_path / "here.onnx").read_bytes()
        hashes.append(hashlib.sha256(content).hexdigest())
        for word in (
            b"torch",
            b"site-packages",
            str(tmp_path).encode(),
            b"/home",
            b"FloatFunctional",
        ):
            assert word not in content
    command = [sys.executable, "-c", _AGAIN, *files]
    environment = {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == hashes
    assert done.stderr == ""


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(left), self.two(left + right)


def test_inputs_keep_their_names_and_outputs_are_numbered(tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    model, _ = capture(TwoHeads(), (x, x), event=Event("load"))
    proto = write(model, tmp_path / "model.onnx")
    assert [i.name for i in proto.graph.input] == ["left", "right"]
    assert [o.name for o in proto.graph.output] == ["output_0", "output_1"]
    got, _ = run(tmp_path / "model.onnx", x, x)
    assert noise_db(model.module()(x, x)[0].detach(), got) > 110


class Swin(nn.Module):
    """Windowed attention: its result is made contiguous and viewed."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"image_size": 8, "patch_size": 2, "window_size": 2, "embed_dim": 8}
        config = transformers.SwinConfig(depths=[1], num_heads=[2], **sizes)
        self.model = transformers.SwinForImageClassification(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def test_views_on_attention_survive_its_translation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    model = captured(Swin().eval(), x)
    write(model, tmp_path / "model.onnx", 1)
    got, _ = run(tmp_path / "model.onnx", x, fixed=1)
    assert noise_db(outputs(model, x), got) > 90


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3, 8) * 2


def test_a_fixed_batch_is_kept_and_dynamic_is_refused(tmp_path: Path) -> None:
    model, _ = capture(Fixed(), (torch.zeros(3, 2, 4),), event=Event("load"))
    proto = write(model, tmp_path / "model.onnx", 1)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3
    with pytest.raises(InputError, match="a batch of 3 and no other"):
        write(model, tmp_path / "model.onnx", "dynamic")


class Untranslatable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ x.transpose(1, 2))


def test_an_operator_without_a_form_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    model = captured(Untranslatable(), torch.randn(2, 3, 3))
    with pytest.raises(InputError, match=r"onnx: .*eigh") as caught:
        write(model, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise EdgepruneError("no")

    monkeypatch.setattr(onnx_room, "finish", fail)
    with pytest.raises(EdgepruneError, match="no"):
        write(trained("digits")[0], path, 1)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for numerics in ("int8", "int8-dynamic", "fp16"):
        write(reduced("digits", numerics)[0], tmp_path / "model.onnx", 1)
    assert capfd.readouterr() == ("", "")


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 10, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


def test_a_gru_resets_after_the_product_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Gated().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    assert_same(module, torch.randn(2, 5, 6), 1, tmp_path)


class Attends(nn.Module):
    """Attention over three or five dimensions."""

    def __init__(self, *lead: int) -> None:
        super().__init__()
        self.lead, self.qkv = lead, nn.Linear(4, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.lead:
            q, k, v = (t.view(x.shape[0], *self.lead, -1, 4) for t in (q, k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v).flatten(1)


class Steps(nn.Module):
    """Places made of integers, scaled by a fraction."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + torch.arange(6) * 0.5 - torch.arange(6).mul(1.0)


@pytest.mark.parametrize("lead", [(), (2, 3), (2, 3, 1)])
@pytest.mark.parametrize("batch", [1, "dynamic"])
def test_attention_of_any_rank(lead: tuple[int, ...], batch: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert_same(Attends(*lead), torch.randn(2, 6, 4), batch, tmp_path)


def test_integers_that_meet_a_fraction(tmp_path: Path) -> None:
    assert_same(Steps(), torch.randn(2, 6), 1, tmp_path)


def assert_same(module: nn.Module, x: Tensor, batch: Any, folder: Path) -> None:
    model, _ = capture(module.eval(), (x,), event=Event("capture"))
    path = folder / "m.onnx"
    write_onnx(model, path, opset=18, batch=batch, activations="uint8")
    session = onnxruntime.InferenceSession(path.read_bytes())
    given = x if batch == "dynamic" else x[:1]
    (out,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    np.testing.assert_allclose(out, module(given).detach().numpy(), rtol=1e-4, atol=1e-5)
