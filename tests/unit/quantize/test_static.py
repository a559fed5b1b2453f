# SPDX-License-Identifier: Apache-2.0
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from edgeprune.errors import InputError
from edgeprune.model import Model
from tests.unit.quantize.blocks import (
    BLOCKS,
    Block,
    DeadChannels,
    Dropped,
    HardSwish,
    Transposed,
    block,
)
from tests.unit.quantize.toy import noise_db, outputs, reduced, static, trained

quantized = torch.ops.quantized_decomposed
PER_TENSOR = quantized.quantize_per_tensor.default
PER_CHANNEL = quantized.quantize_per_channel.default


def kinds(model: Model) -> Counter[object]:
    return Counter(n.target for n in model.program.graph.nodes if n.op == "call_function")


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.__name__)
def test_each_block_keeps_its_signal(kind: type[Block]) -> None:
    module, x = block(kind)
    model, result, report = static(module, x)
    assert result.numerics == "int8" and result.dynamic_batch
    assert noise_db(outputs(model, x), outputs(result, x)) > 30
    assert not report.details["float_ops"] or kind is Transposed


@pytest.mark.parametrize(
    ("name", "floor"),
    [("digits", 30), ("resnet", 30), ("mobilenet", 25), ("vit", 30), ("bert", 28)],
)
def test_each_network_keeps_its_signal(name: str, floor: float) -> None:
    model, x = trained(name)
    result, _ = reduced(name, "int8")
    assert noise_db(outputs(model, x), outputs(result, x)) > floor


def test_scales_lie_where_the_runtimes_want_them() -> None:
    result, _ = reduced("digits", "int8")
    found = kinds(result)
    assert found[PER_CHANNEL] == 4  # three convolutions and the head: weights alone
    # the input, three fused convolutions, the addition with its relu, the mean, the output:
    # none between a convolution and its relu, none for the dropout
    assert found[PER_TENSOR] == 7
    weights = [n for n in result.program.graph.nodes if n.target is PER_CHANNEL]
    assert [n.args[4] for n in weights] == [-127] * 4


def test_a_bias_fits_its_accumulator_even_in_dead_channels() -> None:
    module, x = block(DeadChannels)
    _, result, _ = static(module, x)
    convolutions = [
        n for n in result.program.graph.nodes if n.target is torch.ops.aten.conv2d.default
    ]
    state = result.program.state_dict | result.program.constants
    names = {
        **result.program.graph_signature.inputs_to_parameters,
        **result.program.graph_signature.inputs_to_buffers,
        **result.program.graph_signature.inputs_to_lifted_tensor_constants,
    }

    def read(node: object) -> Tensor:
        assert isinstance(node, Node)
        value = state[names[node.name]]
        assert isinstance(value, Tensor)
        return value

    for node in convolutions:
        source, weight = node.args[0], node.args[1]
        assert isinstance(source, Node) and isinstance(weight, Node)
        steps = read(node.args[2]) / (source.args[1] * read(weight.args[1]))
        assert steps.abs().max() <= 2**30 * 1.001


def test_dropout_leaves_no_trace_in_the_scales() -> None:
    module, x = block(Dropped)
    model, result, _ = static(module, x)
    assert kinds(result)[PER_TENSOR] == 5  # input, stem, conv, mean, head
    assert noise_db(outputs(model, x), outputs(result, x)) > 30


def test_additions_of_a_transformer_stay_float_and_the_report_says_why() -> None:
    _, report = reduced("vit", "int8")
    assert report.details["int8_ops"]["linear"] == 9
    assert "add" not in report.details["int8_ops"]
    assert any("additions stay float" in note for note in report.notes)
    assert any("2 scaled_dot_product_attention" in note for note in report.notes)


def test_hard_swish_is_warned_of() -> None:
    module, x = block(HardSwish)
    _, _, report = static(module, x)
    assert any("1 hard-swish" in note and "--numerics fp32" in note for note in report.notes)


class Overflow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two((self.one(x) * 1e30) * 1e30)


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(InputError, match=r"the model itself .* aren't finite, at mul"):
        static(Overflow(), torch.randn(4, 3))
