# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.errors import ModelError
from edgeprune.model import Event, Model, recapture
from edgeprune.quantize.simplify import plain, prepare_static
from tests.unit.quantize.blocks import BLOCKS, Block, Pooled, Scalars, Silu, TwoReaders, block
from tests.unit.quantize.toy import captured, noise_db, outputs, trained

aten = torch.ops.aten


def targets(gm: GraphModule) -> list[object]:
    return [n.target for n in gm.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.__name__)
def test_preparing_changes_nothing_but_the_form(kind: type[Block]) -> None:
    module, x = block(kind)
    model = captured(module, x)
    gm = model.module()
    prepare_static(gm)
    with torch.no_grad():
        assert noise_db(module(x), gm(x)) > 110
    assert aten.batch_norm.default not in targets(gm)
    assert not [t for t in targets(gm) if "dropout" in str(t) or "silu" in str(t)]
    assert outputs(model, x).equal(module(x))  # the model itself was left alone


def test_only_what_nothing_else_reads_is_folded() -> None:
    module, x = block(TwoReaders)
    gm = captured(module, x).module()
    plain(gm)
    assert targets(gm).count(aten.batch_norm.default) == 1
    prepare_static(gm)
    assert targets(gm).count(aten.conv2d.default) == 3  # stem, conv, and the norm as depthwise


def test_folded_parameters_keep_their_names_and_the_norms_go() -> None:
    model, x = trained("digits")
    gm = model.module()
    plain(gm)
    names = dict(gm.named_parameters())
    assert "conv1.weight" in names and "conv1.bias" in names
    assert not [n for n in (*names, *dict(gm.named_buffers())) if n.startswith("bn")]
    again = recapture(model, gm, Event("quantize"))
    assert noise_db(outputs(model, x), outputs(again, x)) > 110
    assert set(names) == set(again.program.state_dict)


def test_special_forms_are_rewritten() -> None:
    for kind, gone, come in (
        (Silu, aten.silu.default, aten.sigmoid.default),
        (Scalars, aten.div.Tensor, aten.mul.Tensor),
        (Pooled, None, aten.constant_pad_nd.default),
    ):
        module, x = block(kind)
        gm = captured(module, x).module()
        prepare_static(gm)
        assert gone not in targets(gm)
        assert come in targets(gm)


@pytest.mark.parametrize("name", ["mobilenet", "vit"])
def test_a_decomposed_program_is_put_together_again(name: str) -> None:
    model, x = trained(name)
    core = model.program.run_decompositions()
    decomposed = Model(core, model.inputs, model.outputs)
    gm = decomposed.module()
    prepare_static(gm)
    left = targets(gm)
    assert aten.convolution.default not in left
    assert aten.addmm.default not in left
    assert aten._native_batch_norm_legit_no_training.default not in left
    assert aten.conv2d.default in left and aten.linear.default in left
    with torch.no_grad():
        assert noise_db(outputs(model, x), gm(x)) > 100


class Normed(nn.Module):
    """A weight that is computed from others, and a Conv1D as GPT-2 has it (weight in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.conv(x).mean((2, 3)), self.weight)


def test_computed_and_transposed_weights_become_constants() -> None:
    module, x = Normed().eval(), torch.randn(4, 3, 6, 6)
    gm = captured(module, x).module()
    plain(gm)
    assert targets(gm) == [aten.conv2d.default, aten.mean.dim, aten.linear.default]
    with torch.no_grad():
        assert noise_db(module(x), gm(x)) > 110


class WritesToView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        y[:, 0].mul_(2)
        return y


def test_a_write_to_a_view_that_matters_is_refused_by_name() -> None:
    gm = captured(WritesToView(), torch.randn(4, 3, 6, 6)).module()
    with pytest.raises(ModelError, match=r"mul_.* writes to a view of relu, which output reads"):
        prepare_static(gm)


class HarmlessWrites(nn.Module):
    """Views are written to, and nothing reads what they are views of."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout((x * 2).flatten(1), 0.5, self.training, inplace=True)
        left, right = F.relu(x, inplace=True).chunk(2, 1)
        total = left.sum(1, keepdim=True)
        return right.mul_(3) + total


def test_a_write_to_a_view_that_nothing_sees_is_made_pure() -> None:
    module, x = HarmlessWrites().eval(), torch.randn(4, 3, 6, 6)
    gm = captured(module, x).module()
    prepare_static(gm)
    schemas = [t._schema for t in targets(gm) if isinstance(t, torch._ops.OpOverload)]
    assert len(schemas) > 4 and not [s for s in schemas if s.is_mutable]
    assert gm(x).equal(module(x))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.norm(self.one(x)))


def test_a_shared_weight_is_not_folded_into() -> None:
    module, x = Tied().eval(), torch.randn(4, 3, 6, 6)
    module.norm.running_var.fill_(0.2)
    gm = captured(module, x).module()
    plain(gm)
    assert aten.batch_norm.default in targets(gm)
    with torch.no_grad():
        assert noise_db(module(x), gm(x)) > 110
