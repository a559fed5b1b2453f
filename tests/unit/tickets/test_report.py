# SPDX-License-Identifier: Apache-2.0
"""What no mask covers is said, so that a density is read as what it is."""

import torch
from torch import Tensor, nn

from edgeprune.mask import About, Mask, look
from edgeprune.model import Model
from edgeprune.tickets.report import uncovered
from tests.unit.finetune.toy import captured

EMBEDDING = "embedding.weight"


class Tied(nn.Module):
    """A table that is the head's weight too, another that isn't, and a weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.positions = nn.Embedding(5, 8)
        self.body = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.positions(torch.arange(5))
        return self.head(self.middle(self.body(x)))


def full(model: Model) -> Mask:
    return Mask.full({layer.name: layer.shape for layer in look(model).layers}, About("by hand"))


def test_tables_and_computed_weights_are_told_tied_ones_are_not() -> None:
    model = captured(Tied(), torch.zeros(2, 5, dtype=torch.int64))
    mask = full(model)
    assert mask.size == 64 + 96
    (note,) = uncovered(model, mask, ())
    # The direction (64) and the lengths (8 x 1) of the weight norm, and the positions (40).
    assert note.startswith("112 weights are covered by no mask and stay dense (")
    assert "positions.weight" in note and EMBEDDING not in note
    assert note.endswith("the density is of the other 160")


def test_what_was_excluded_is_not_told_again() -> None:
    torch.manual_seed(0)
    model = captured(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.zeros(2, 4))
    mask = full(model)
    assert uncovered(model, mask, ()) == ()
    part = Mask({"0.weight": mask.keep["0.weight"]}, About("by hand"))
    assert uncovered(model, part, ["1.*"]) == ()
    assert "1.weight" in uncovered(model, part, ())[0]
