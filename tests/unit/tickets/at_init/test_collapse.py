# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.mask import About, Mask
from edgeprune.model import Model
from edgeprune.tickets.at_init.collapse import (
    collapse_notes,
    collapsed,
    effective,
    effective_density,
)
from tests.unit.finetune.toy import captured
from tests.unit.tickets.at_init.nets import full, mlp, model_of

SIZES = (3, 5, 4, 2)


@pytest.fixture(scope="module")
def chain() -> Model:
    return model_of(mlp(SIZES, bias=True), torch.zeros(2, 3))


def changed(mask: Mask, **keep: Tensor) -> Mask:
    return Mask({**mask.keep, **{n.replace("__", "."): k for n, k in keep.items()}}, mask.about)


@given(st.integers(0, 2**20), st.floats(0.1, 0.9))
@settings(max_examples=12)
def test_the_living_paths_of_an_mlp_are_those_of_boolean_matrices(
    chain: Model, seed: int, density: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    keep = {n: torch.rand(k.shape, generator=random) < density for n, k in full(chain).keep.items()}
    first, second, third = (k.double() for k in keep.values())
    reached = [torch.ones(3).double(), first.sum(1), second @ (first.sum(1))]
    needed = [(third @ second).sum(0), third.sum(0), torch.ones(2).double()]
    expected = [
        kept & (down[:, None] > 0) & (up[None] > 0)
        for kept, down, up in zip(keep.values(), needed, reached, strict=True)
    ]
    found = effective(chain, Mask(keep, About("by hand")))
    for name, wanted in zip(keep, expected, strict=True):
        assert torch.equal(found.keep[name], wanted)


@pytest.mark.parametrize("net", ["cnn", "deep", "vit", "bert"])
def test_a_dense_network_is_alive_everywhere(net: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(net)
    assert effective_density(model, full(model)) == 1
    assert collapse_notes(model, full(model)) == ()


def test_a_shortcut_keeps_a_network_alive_whose_block_has_collapsed(
    cnn: Model,
) -> None:
    model = cnn
    mask = full(model)
    gone = changed(mask, conv2__weight=torch.zeros_like(mask.keep["conv2.weight"]))
    assert collapsed(gone) == ("conv2.weight",)
    assert effective(model, gone).same(gone)
    (note,) = collapse_notes(model, gone)
    assert note == "layer collapse: no weight lives in conv2.weight (1 of 4 layers)"


def test_a_dead_channel_takes_the_weights_before_and_behind_it_along(cnn: Model) -> None:
    model = cnn
    head = full(model).keep["head.weight"].clone()
    head[:, 2] = False
    found = effective(model, changed(full(model), head__weight=head))
    assert not found.keep["conv3.weight"][2].any()
    assert bool(found.keep["conv3.weight"][[0, 1, 3]].all())
    assert bool(found.keep["conv1.weight"].all())


def test_a_bias_alone_is_no_path(chain: Model) -> None:
    mask = full(chain)
    nothing = changed(mask, **{"0__weight": torch.zeros_like(mask.keep["0.weight"])})
    assert effective_density(chain, nothing) == 0
    assert collapse_notes(chain, nothing) == (
        "layer collapse: no weight lives in 0.weight (1 of 3 layers)",
        "no living path leads from the input to the output",
    )


@pytest.mark.parametrize("gone", range(6))
def test_a_deep_chain_that_is_cut_anywhere_is_dead_everywhere(gone: int) -> None:
    """Nothing is divided by the maximum of nothing: that of two layers in a row was no number."""
    model = model_of(mlp((4, 4, 4, 4, 4, 4, 2), bias=False), torch.zeros(2, 4))
    mask = full(model)
    name = list(mask.keep)[gone]
    cut = Mask({**mask.keep, name: torch.zeros_like(mask.keep[name])}, mask.about)
    assert effective(model, cut).kept == 0
    assert "no living path leads from the input to the output" in collapse_notes(model, cut)


def test_a_head_without_queries_keeps_its_values(vit: Model) -> None:
    name = "layers.0.attention.qkv.weight"
    qkv = full(vit).keep[name].clone()
    qkv[:16] = False  # the queries' biases still ask the keys
    mask = changed(full(vit), **{name.replace(".", "__"): qkv})
    assert effective(vit, mask).same(mask)
    nowhere = torch.zeros_like(full(vit).keep["layers.0.attention.out.weight"])
    mask = changed(mask, layers__0__attention__out__weight=nowhere)
    assert not effective(vit, mask).keep[name].any()


class Gated(nn.Module):
    """A squeeze-and-excite gate, and a maximum over all places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.gate = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[..., None, None]
        return self.head(nn.functional.max_pool2d(x, 4).amax((2, 3)))


def test_a_dead_gate_lets_its_input_pass() -> None:
    model = captured(Gated(), torch.zeros(2, 1, 8, 8))
    mask = full(model)
    gone = changed(mask, gate__weight=torch.zeros_like(mask.keep["gate.weight"]))
    assert effective(model, mask).same(mask)
    assert effective(model, gone).same(gone)


def test_recurrent_layers_are_alive_too() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.LSTM(4, 8, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)[0][:, -1])

    model = captured(Recurrent(), torch.zeros(2, 3, 4))
    mask = full(model)
    assert effective(model, mask).same(mask)
    gone = changed(mask, head__weight=torch.zeros_like(mask.keep["head.weight"]))
    assert effective(model, gone).kept == 0


def test_the_mask_of_another_network_is_refused(chain: Model) -> None:
    with pytest.raises(InputError, match="another network"):
        effective_density(chain, Mask.full({"conv.weight": (2, 2)}, About("by hand")))
