# SPDX-License-Identifier: Apache-2.0
"""Softmax and sigmoid are seen at the end of a graph, and what stands before them is given."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.model import Event, Model, capture
from edgeprune.tasks import Ending, endings, logits

Graph = Callable[[Tensor], Tensor | tuple[Tensor, ...]]


class Ends(nn.Module):
    """A linear layer, and what follows."""

    def __init__(self, after: Graph) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.after = nn.Linear(5, 6), after

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.after(self.head(x))


def ends(after: Graph) -> Model:
    return capture(Ends(after).eval(), (torch.rand(3, 5),), event=Event("load"))[0]


CLASSES = Ending("softmax", 1, (6,))
SIGMOID = Ending("sigmoid")
OPEN = Ending()


@pytest.mark.parametrize(
    ("after", "ending", "before"),
    [
        (lambda x: x.softmax(1), CLASSES, lambda x: x),
        (lambda x: F.softmax(x / 2.5, dim=-1), CLASSES, lambda x: x / 2.5),
        (lambda x: x.log_softmax(1), Ending("log_softmax", 1, (6,)), lambda x: x),
        (lambda x: x.log_softmax(1).exp(), CLASSES, lambda x: x),
        (lambda x: x.softmax(1).clamp(1e-7, 1).log(), Ending("log_softmax", 1, (6,)), lambda x: x),
        (lambda x: x.sigmoid(), SIGMOID, lambda x: x),
        (lambda x: torch.sigmoid(x).clamp(1e-6, 1 - 1e-6), SIGMOID, lambda x: x),
        (lambda x: 1 - x.sigmoid(), SIGMOID, lambda x: -x),
        (lambda x: x.clone().sigmoid_(), SIGMOID, lambda x: x),
        (
            lambda x: F.dropout(x.softmax(1).contiguous(), 0.5, False).view(-1, 6, 1, 1),
            CLASSES,
            lambda x: x.view(-1, 6, 1, 1),
        ),
        (
            lambda x: x.view(-1, 2, 3).softmax(2).transpose(1, 2),
            Ending("softmax", 1, (3,)),
            lambda x: x.view(-1, 2, 3).transpose(1, 2),
        ),
        (
            lambda x: x.view(-1, 2, 3).softmax(-1).unsqueeze(1).squeeze(1)[:, :1],
            Ending("softmax", 2, (3,)),
            lambda x: x.view(-1, 2, 3)[:, :1],
        ),
        (
            lambda x: torch.cat([x.sigmoid()[:, :2], x.sigmoid()[:, 4:]], 1),
            SIGMOID,
            lambda x: torch.cat([x[:, :2], x[:, 4:]], 1),
        ),
        (
            lambda x: torch.cat([x[:, :2].softmax(1), x[:, 2:].softmax(1)], 1),
            Ending("softmax", 1, (2, 4)),
            lambda x: x,
        ),
        (
            lambda x: torch.stack([x[:, :3].softmax(1), x[:, 3:].softmax(1)], 1),
            Ending("softmax", 2, (3,)),
            lambda x: x.view(-1, 2, 3),
        ),
        (lambda x: x.view(-1, 6, 1).sigmoid().mean(2), SIGMOID, lambda x: x),
        # None of these is probabilities, or they aren't one output's.
        (lambda x: x, OPEN, lambda x: x),
        (lambda x: x.sigmoid() * 640, OPEN, lambda x: x.sigmoid() * 640),
        (lambda x: x.softmax(0), OPEN, lambda x: x.softmax(0)),
        (lambda x: x.softmax(1)[:, 1:], OPEN, lambda x: x.softmax(1)[:, 1:]),
        (lambda x: x.softmax(1).sum(1), OPEN, lambda x: x.softmax(1).sum(1)),
        (
            lambda x: torch.cat([x[:, :2] * 640, x[:, 2:].sigmoid()], 1),
            OPEN,
            lambda x: torch.cat([x[:, :2] * 640, x[:, 2:].sigmoid()], 1),
        ),
    ],
)  # fmt: skip
def test_an_ending_is_seen_and_undone(after: Graph, ending: Ending, before: Graph) -> None:
    model = ends(after)
    assert endings(model) == (ending,)
    module, x = logits(model), torch.rand(4, 5)
    with torch.no_grad():
        found, wanted = module(x), before(_head(model, x))
    torch.testing.assert_close(found, wanted)
    names = {name for name, _ in model.module().named_parameters()}
    assert {name for name, _ in module.named_parameters()} == names


def _head(model: Model, x: Tensor) -> Tensor:
    state = model.program.state_dict
    return F.linear(x, state["head.weight"], state["head.bias"])


def test_each_of_several_outputs_has_its_own() -> None:
    model = ends(lambda x: (x, x.softmax(1), x[:, :1].sigmoid(), x[:, 2:]))
    kinds = [ending.kind for ending in endings(model)]
    assert kinds == ["logits", "softmax", "sigmoid", "open"]
    x = torch.rand(4, 5)
    with torch.no_grad():
        raw, again, score, rest = logits(model)(x)
    torch.testing.assert_close(raw, again)
    torch.testing.assert_close(score, raw[:, :1])
    torch.testing.assert_close(rest, raw[:, 2:])
