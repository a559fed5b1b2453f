# SPDX-License-Identifier: Apache-2.0
"""Stages are found in the graph, whatever the names."""

import pytest
import torch
from torch import Tensor, nn

from edgeprune.model import Model
from edgeprune.tickets.carry.stages import Stage, find_stages
from tests import networks
from tests.unit.channels.graphs import captured

PICTURE = torch.randn(2, 3, 32, 32)
TOKENS = torch.randint(0, 100, (2, 16))


def names(module: nn.Module, x: Tensor = PICTURE) -> list[str]:
    return [str(stage) for stage in find_stages(captured(module, x)).stages]


@pytest.mark.parametrize("n", [2, 3])
def test_stages_of_a_resnet(n: int) -> None:
    found = names(networks.ResNet(n, 8))
    assert found == [" ".join(f"layer{s}.{b}" for b in range(n)) for s in (1, 2, 3)]


def test_a_block_that_never_comes_again_is_no_stage() -> None:
    assert names(networks.tiny_resnet()) == []


def test_parts_are_whole_and_in_order() -> None:
    model = captured(networks.ResNet(2, 8), PICTURE)
    layout = find_stages(model)
    blocks = [
        block
        for part in layout.parts
        for block in (part.blocks if isinstance(part, Stage) else (part,))
    ]
    layers = [name for block in blocks for name in block.layers]
    assert layers == [n for n, p in model.program.named_parameters() if p.ndim > 1]
    used = {state for block in blocks for use in block.uses for state in use.states}
    assert used == {n for n in model.program.state_dict if not n.endswith("batches_tracked")}


def test_stages_of_transformers() -> None:
    assert names(networks.TinyViT(depth=3)) == ["layers.0 layers.1 layers.2"]
    assert names(networks.TinyBert(), TOKENS) == ["layers.0 layers.1"]


class PostNorm(nn.Module):
    """A norm behind each addition, as in the first BERT, and one of that shape before them all."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(100, 16), nn.LayerNorm(16)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(depth)
        )
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.table(x))
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


def test_names_decide_where_a_run_begins() -> None:
    assert names(PostNorm(3), TOKENS) == ["layers.0 layers.1 layers.2"]


def test_a_first_block_may_be_a_chain() -> None:
    assert names(networks.TinyMobileNet()) == ["features.4.body features.5.body"]


class Unnamed(nn.Module):
    """A ResNet whose layers have numbers for names."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(m for m in net.modules() if not list(m.children()))
        self.blocks = [m for m in net.modules() if isinstance(m, networks.BasicBlock)]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.parts[1](self.parts[0](x)))
        for i, block in enumerate(self.blocks):
            a, b, c, d = self.parts[2 + 4 * i : 6 + 4 * i]
            y = d(c(torch.relu(b(a(x)))))
            if block.pad:
                x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, block.pad, block.pad))
            x = torch.relu(x + y)
        return self.parts[-1](x.mean((2, 3)))


def layers_of(model: Model) -> list[list[int]]:
    return [[len(b.layers) for b in stage.blocks] for stage in find_stages(model).stages]


def test_names_that_say_nothing() -> None:
    model = captured(Unnamed(networks.ResNet(3, 8)), PICTURE)
    assert layers_of(model) == [[2, 2, 2]] * 3


def test_a_chain_of_equal_layers() -> None:
    net = nn.Sequential(nn.Linear(4, 8), *[nn.Linear(8, 8) for _ in range(3)], nn.Linear(8, 2))
    assert layers_of(captured(net, torch.randn(2, 4))) == [[1, 1, 1, 1]]
