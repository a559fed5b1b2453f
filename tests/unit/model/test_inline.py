# SPDX-License-Identifier: Apache-2.0
"""Blocks under no_grad and autocast are laid out in line, and mean what they meant."""

import pytest
import torch
from torch import Tensor, nn

from edgeprune.model import Event, capture


class Frozen(nn.Module):
    """A first layer that gets no gradient, with a block inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.a(x)
            with torch.autocast("cpu", enabled=False):
                y, z = torch.relu(y), y * 2
        return self.b(y + z)


def test_what_no_grad_gives_gets_no_gradient() -> None:
    module, x = Frozen(), torch.randn(2, 4)
    model, notes = capture(module, (x,), event=Event("capture"))
    assert not notes
    assert not any("wrap_with" in str(node.target) for node in model.program.graph.nodes)
    copy = model.module()
    out = copy(x)
    torch.testing.assert_close(out, module(x))
    out.sum().backward()
    state = dict(copy.named_parameters())
    assert state["a.weight"].grad is None
    assert state["b.weight"].grad is not None


class Mixed(nn.Module):
    def __init__(self, device: str, enabled: bool) -> None:
        super().__init__()
        self.device, self.enabled = device, enabled
        self.a = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.enabled):
            return self.a(x)


@pytest.mark.parametrize(
    ("device", "enabled", "stays"), [("cpu", False, False), ("cpu", True, True)]
)
def test_a_block_in_another_precision_stays(device: str, enabled: bool, stays: bool) -> None:
    module, x = Mixed(device, enabled), torch.randn(2, 4)
    model, _ = capture(module, (x,), event=Event("capture"))
    found = any("wrap_with_autocast" in str(node.target) for node in model.program.graph.nodes)
    assert found is stays
    torch.testing.assert_close(model.module()(x), module(x))
