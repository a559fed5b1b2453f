# SPDX-License-Identifier: Apache-2.0
"""A ticket goes to another network of the same architecture, and to no other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgeprune.channels import analyse
from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.mask import About, Mask, Ticket, channel_mask, look, removed_channels
from edgeprune.model import Model
from edgeprune.tickets.carry.transfer import heads, transfer
from tests import networks
from tests.unit.channels.graphs import captured

PICTURE = torch.randn(2, 3, 32, 32)
TOKENS = torch.randint(0, 100, (2, 16))


def model_of(module: nn.Module, x: Tensor = PICTURE) -> Model:
    torch.manual_seed(0)
    return captured(module, x)


def ticket_of(model: Model, exclude: tuple[str, ...] = (), start: bool = False) -> Ticket:
    drawn = torch.Generator().manual_seed(0)
    keep = {
        layer.name: torch.rand(layer.shape, generator=drawn) < 0.3
        for layer in look(model, exclude).layers
    }
    about = About("imp", model=model.fingerprint(), facts={"options": {"exclude": list(exclude)}})
    return Ticket(Mask(keep, about), read_state(model.module()) if start else None)


class Renamed(nn.Module):
    """``ResNet(1, width=8)`` with other names, its parts defined in another order."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        net = networks.ResNet(1, 8, classes)
        self.classifier = net.linear
        self.body = nn.Sequential(net.layer1, net.layer2, net.layer3)
        self.stem, self.stem_norm = net.conv1, net.bn1

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.relu(self.stem_norm(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


@pytest.fixture(scope="module")
def resnet() -> Model:
    return model_of(networks.tiny_resnet())


def test_by_name_to_other_classes_the_head_is_left_out(resnet: Model) -> None:
    ticket, other = ticket_of(resnet), model_of(networks.ResNet(1, 8, classes=7))
    got = transfer(ticket, other)
    assert got.pairs == tuple((n, n) for n in ticket.mask.keep if n != "linear.weight")
    assert all(torch.equal(k, ticket.mask.keep[n]) for n, k in got.ticket.mask.keep.items())
    assert got.left == (("linear.weight", "the head"),)
    sizes = {layer.name: layer.size for layer in look(other).layers}
    assert got.coverage == 1 - sizes["linear.weight"] / sum(sizes.values())
    assert got.ticket.mask.about.model == other.fingerprint()
    assert got.ticket.mask.about.facts["transferred"]["from"] == resnet.fingerprint()
    got.ticket.mask.check(other)
    with pytest.raises(InputError, match=r"'linear\.weight' has shape .* --head exclude leaves"):
        transfer(ticket, other, head="include")


def test_the_head_goes_along_where_it_is_asked_for(resnet: Model) -> None:
    got = transfer(ticket_of(resnet), resnet, head="include")
    assert got.coverage == 1.0 and not got.left
    assert got.ticket.mask.same(ticket_of(resnet).mask)


def test_by_order_where_names_differ(resnet: Model) -> None:
    other = model_of(Renamed(classes=4))
    got = transfer(ticket_of(resnet), other)
    assert got.pairs[:2] == (
        ("conv1.weight", "stem.weight"),
        ("layer1.0.conv1.weight", "body.0.0.conv1.weight"),
    )
    assert "classifier.weight" not in got.ticket.mask.keep
    assert got.left == (("classifier.weight", "the head"),)
    for theirs, mine in got.pairs:
        assert torch.equal(got.ticket.mask.keep[mine], ticket_of(resnet).mask.keep[theirs])
    with pytest.raises(InputError, match=r"no weight 'conv1\.weight' to mask; --by order"):
        transfer(ticket_of(resnet), other, by="name")


def test_weights_go_along_where_shapes_match(resnet: Model) -> None:
    other = model_of(networks.ResNet(1, 8, classes=7))
    ticket = ticket_of(resnet, start=True)
    assert ticket.start is not None
    got = transfer(ticket, other, weights=True)
    own = read_state(other.module())
    assert got.ticket.start is not None and got.ticket.start.keys() == own.keys()
    for name, value in got.ticket.start.items():
        source = own if name.startswith("linear") else ticket.start
        assert torch.equal(value, source[name]), name
    assert got.notes == ("2 tensors start as they are in the model: linear.weight, linear.bias",)
    assert transfer(ticket, other).ticket.start is None
    with pytest.raises(InputError, match="no weights to start from"):
        transfer(ticket_of(resnet), other, weights=True)


def test_weights_by_order_keep_to_what_is_certain(resnet: Model) -> None:
    ticket, other = ticket_of(resnet, start=True), model_of(Renamed())
    got = transfer(ticket, other, weights=True)
    assert got.ticket.start is not None and ticket.start is not None
    # Its parts stand in another order, so that norms can't be told by their place
    for theirs, mine in got.pairs:
        assert torch.equal(got.ticket.start[mine], ticket.start[theirs])
    assert "tensors start as they are in the model" in got.notes[0]
    prefixed = model_of(nn.Sequential(networks.tiny_resnet()))
    whole = transfer(ticket, prefixed, weights=True, head="include")
    assert whole.ticket.start is not None and not whole.notes
    for name, value in ticket.start.items():
        assert torch.equal(whole.ticket.start[f"0.{name}"], value)


@pytest.mark.parametrize(("make", "x"), [(networks.TinyViT, PICTURE), (networks.TinyBert, TOKENS)])
def test_transformers(make, x: Tensor) -> None:
    model = model_of(make(), x)
    got = transfer(ticket_of(model), model_of(make(), x))
    assert got.left == (("head.weight", "the head"),)
    assert len(got.pairs) == len(look(model).layers) - 1


def test_what_was_excluded_may_be_missing_a_deeper_network_may_not(resnet: Model) -> None:
    got = transfer(ticket_of(resnet, exclude=("conv1.weight",)), resnet)
    assert got.left == (("conv1.weight", "not in the ticket"), ("linear.weight", "the head"))
    deeper = model_of(networks.ResNet(2, 8))
    with pytest.raises(InputError, match=r"'layer1\.1\.conv1\.weight' of shape .*ticket stretch"):
        transfer(ticket_of(resnet), deeper)


def test_another_architecture_is_refused_at_its_first_mismatch(resnet: Model) -> None:
    with pytest.raises(InputError, match=r"'conv1\.weight' has shape \(12, 3, 3, 3\) there"):
        transfer(ticket_of(resnet), model_of(networks.ResNet(1, 12)))
    vit = model_of(networks.TinyViT())
    with pytest.raises(InputError, match=r"its 'conv1\.weight' of shape \(8, 3, 3, 3\), number 1"):
        transfer(ticket_of(resnet), vit)
    with pytest.raises(InputError, match="nothing but the head"):
        transfer(
            ticket_of(model_of(nn.Linear(4, 2), torch.randn(2, 4))),
            model_of(nn.Linear(4, 3), torch.randn(2, 4)),
        )


def test_by_order_nothing_is_guessed() -> None:
    x = torch.randn(2, 4)
    three = model_of(
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)), x
    )
    ticket = ticket_of(three, exclude=("1.weight",))
    named = nn.Sequential()
    for name in "abcd":
        named.add_module(name, nn.Linear(4, 2 if name == "d" else 4))
    with pytest.raises(InputError, match=r"by order '\S+' may be '\S+' or '\S+'"):
        transfer(ticket, model_of(named, x))


def test_a_mask_by_channels_takes_its_inputs_from_a_head_for_other_classes(resnet: Model) -> None:
    groups = analyse(resnet)
    removed = groups.keep_all()
    for group in groups.groups:
        removed[group.channels[:2]] = True
    ticket = Ticket(channel_mask(groups, removed, About("early-bird")))
    few = networks.ResNet(1, 8, classes=3)
    for other in (model_of(networks.ResNet(1, 8, classes=7)), model_of(nn.Sequential(few))):
        got = transfer(ticket, other).ticket.mask
        there = analyse(other)
        assert removed_channels(there, got).sum() == removed.sum()
    holes = replace(ticket.mask, keep={**ticket.mask.keep, "bn1.weight": torch.ones(8).bool()})
    with pytest.raises(InputError, match="channels that live elsewhere"):
        transfer(Ticket(holes), resnet)


def test_heads_are_all_that_end_at_an_output() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.box, self.score = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.body(x).relu()
            return self.box(x), self.score(x).sigmoid()

    model = model_of(Two(), torch.randn(2, 4))
    assert set(heads(model, look(model))) == {"box.weight", "score.weight"}
