# SPDX-License-Identifier: Apache-2.0
"""A ticket in the place of pruning, as a stage."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune.channels import analyse
from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.mask import About, Mask, Ticket, channel_mask, look, write_ticket
from edgeprune.model import Model
from edgeprune.recipe import Recipe
from edgeprune.tickets.initial import fresh_state
from edgeprune.tickets.use import open_ticket, use_ticket
from tests.unit.finetune.toy import captured, cnn, context

OWN = Recipe.model_validate({"ticket": {"weights": "ticket"}})


def mask_of(model: Model, seed: int = 0) -> Mask:
    drawn = torch.Generator().manual_seed(seed)
    keep = {n.name: torch.rand(n.shape, generator=drawn) < 0.5 for n in look(model).layers}
    return Mask(keep, About("imp"))


def used(model: Model, ticket: Ticket, folder: Path, recipe: Recipe | None = None) -> Model:
    write_ticket(folder / "t", ticket)
    found = open_ticket(folder / "t", recipe or Recipe(), model)
    assert found is not None
    return use_ticket(found, model, found.options, context(folder))[0]


def state_of(model: Model) -> dict[str, Tensor]:
    return read_state(model.module())


def assert_masked(got: Model, mask: Mask, weights: dict[str, Tensor]) -> None:
    expected = mask.masked(weights)
    for name, value in state_of(got).items():
        assert torch.equal(value, expected[name]), name


def test_the_models_weights_or_the_tickets_own(tmp_path: Path) -> None:
    model = cnn()
    before = state_of(model)
    ticket = Ticket(mask_of(model), fresh_state(model, 3))
    assert ticket.start is not None
    assert_masked(used(model, ticket, tmp_path), ticket.mask, before)
    assert_masked(used(model, ticket, tmp_path, OWN), ticket.mask, dict(ticket.start))
    assert all(torch.equal(v, before[n]) for n, v in state_of(model).items())
    for start, says in ((None, "no weights of its own"), ({"x": torch.ones(1)}, "'conv1.weight'")):
        with pytest.raises(InputError, match=says):
            used(model, Ticket(ticket.mask, start), tmp_path, OWN)
    endless = {**ticket.start, "bn1.bias": torch.full_like(before["bn1.bias"], torch.inf)}
    with pytest.raises(InputError, match=r"starts from hold NaN or infinity, in 'bn1\.bias'"):
        used(model, Ticket(ticket.mask, endless), tmp_path, OWN)
    with pytest.raises(InputError, match="name one, --ticket"):
        open_ticket(None, OWN, model)
    assert open_ticket(None, Recipe(), model) is None


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.table(x))

    model = captured(Tied(), torch.zeros(2, 3, dtype=torch.long))
    mask = mask_of(model)
    got = used(model, Ticket(mask), tmp_path).program.state_dict
    (kept,) = mask.keep.values()
    assert torch.equal(got["table.weight"], got["head.weight"])
    assert not got["table.weight"][~kept].any() and got["table.weight"][kept].all()


def test_a_ticket_that_cuts_the_network_in_two_is_refused(tmp_path: Path) -> None:
    model = cnn()
    groups = analyse(model)
    removed = groups.keep_all()
    removed[groups.groups[0].channels] = True
    ticket = Ticket(channel_mask(groups, removed, About("early-bird")))
    with pytest.raises(InputError, match=r"t: the ticket leaves no channel of 'conv\d'"):
        used(model, ticket, tmp_path)
