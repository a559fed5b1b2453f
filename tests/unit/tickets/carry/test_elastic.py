# SPDX-License-Identifier: Apache-2.0
"""Tickets go from one depth to another, block by block, with weights and statistics."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgeprune.channels import analyse
from edgeprune.errors import InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import About, Mask, Ticket, channel_mask, look
from edgeprune.model import Event, Model
from edgeprune.tickets.carry.elastic import Stretched, stretch
from tests import networks
from tests.unit.channels.graphs import captured
from tests.unit.tickets.carry.test_stages import Unnamed

PICTURE = torch.randn(2, 3, 32, 32)


def model_of(module: nn.Module, x: Tensor = PICTURE) -> Model:
    return captured(module, x)


def ticket_of(model: Model, start: bool = True) -> Ticket:
    """Masks and weights that are nowhere alike."""
    drawn = torch.Generator().manual_seed(0)
    keep = {n.name: torch.rand(n.shape, generator=drawn) < 0.5 for n in look(model).layers}
    state = {
        name: torch.full_like(value, i) for i, (name, value) in enumerate(state_of(model).items())
    }
    return Ticket(Mask(keep, About("imp", model=model.fingerprint())), state if start else None)


def state_of(model: Model) -> dict[str, Tensor]:
    return read_state(model.module())


def origins(got: Stretched, stage: str) -> list[str]:
    return [o.source.split(".")[-1] for o in got.origins if o.block.startswith(stage)]


@pytest.fixture(scope="module")
def resnets() -> dict[int, Model]:
    return {n: model_of(networks.ResNet(n, 4)) for n in (1, 2, 3, 5)}


def assert_blocks_are_copies(got: Stretched, ticket: Ticket) -> None:
    """Each block's masks, weights, norms and statistics are those of one block of the source."""
    assert got.ticket.start is not None and ticket.start is not None
    checked = 0
    for origin in got.origins:
        if not origin.block.startswith("layer"):
            continue
        for name, value in got.ticket.start.items():
            if name.startswith(f"{origin.block}."):
                there = name.replace(origin.block, origin.source, 1)
                assert torch.equal(value, ticket.start[there]), name
                if name in got.ticket.mask.keep:
                    mine = got.ticket.mask.keep[name]
                    assert torch.equal(mine, ticket.mask.keep[there])
                checked += 1
    assert checked == sum(name.startswith("layer") for name in got.ticket.start)


@pytest.mark.parametrize(("order", "expected"), [("append", "01212"), ("interpolate", "01122")])
def test_deeper(resnets: dict[int, Model], order, expected: str) -> None:
    ticket = ticket_of(resnets[3])
    got = stretch(ticket, resnets[3], resnets[5], order=order)
    assert got.depths == ((3, 5),) * 3
    assert [o.block for o in got.origins if o.block.startswith("layer2")] == [
        f"layer2.{i}" for i in range(5)
    ]
    for stage in ("layer1", "layer2", "layer3"):
        assert "".join(origins(got, stage)) == expected
    assert_blocks_are_copies(got, ticket)
    assert got.left == (("linear.weight", "the head"),)
    assert got.notes == ()
    got.ticket.mask.check(resnets[5])
    facts = got.ticket.mask.about.facts["stretched"]
    assert facts["from"] == resnets[3].fingerprint() and facts["order"] == order
    assert got.ticket.mask.about.model == resnets[5].fingerprint()


@pytest.mark.parametrize(("order", "expected"), [("append", "012"), ("interpolate", "013")])
def test_shallower(resnets: dict[int, Model], order, expected: str) -> None:
    ticket = ticket_of(resnets[5])
    got = stretch(ticket, resnets[5], resnets[3], order=order)
    assert "".join(origins(got, "layer3")) == expected
    assert_blocks_are_copies(got, ticket)


def test_there_and_back(resnets: dict[int, Model]) -> None:
    ticket = ticket_of(resnets[3])
    deep = stretch(ticket, resnets[3], resnets[5], head="include")
    back = stretch(deep.ticket, resnets[5], resnets[3], head="include")
    assert back.ticket.mask.same(ticket.mask) and not back.left
    assert back.ticket.start is not None and ticket.start is not None
    assert all(torch.equal(v, ticket.start[n]) for n, v in back.ticket.start.items())


def test_down_to_first_blocks_and_not_up_from_them(resnets: dict[int, Model]) -> None:
    got = stretch(ticket_of(resnets[3]), resnets[3], resnets[1])
    assert [origins(got, f"layer{s}") for s in (1, 2, 3)] == [["0"]] * 3
    with pytest.raises(InputError, match=r"'layer2\.0' is the only block of its stage"):
        stretch(ticket_of(resnets[1]), resnets[1], resnets[3])
    twice = stretch(ticket_of(resnets[2]), resnets[2], resnets[5])
    assert origins(twice, "layer1") == ["0", "1", "1", "1", "1"]


@pytest.mark.parametrize(("have", "want"), [(3, 5), (5, 3), (3, 3)])
def test_without_the_source_the_ticket_says_enough(
    resnets: dict[int, Model], have: int, want: int
) -> None:
    ticket = ticket_of(resnets[have])
    alone = stretch(ticket, None, resnets[want])
    known = stretch(ticket, resnets[have], resnets[want])
    assert alone.ticket.mask.same(known.ticket.mask)
    assert alone.ticket.start is not None and known.ticket.start is not None
    assert alone.ticket.start.keys() == known.ticket.start.keys()
    for name, value in alone.ticket.start.items():
        assert torch.equal(value, known.ticket.start[name]), name
    headless = {n: k for n, k in ticket.mask.keep.items() if n != "linear.weight"}
    less = stretch(replace(ticket, mask=replace(ticket.mask, keep=headless)), None, resnets[want])
    assert less.ticket.mask.same(known.ticket.mask)


def test_names_need_not_be_alike(resnets: dict[int, Model]) -> None:
    ticket = ticket_of(resnets[3])
    got = stretch(ticket, resnets[3], model_of(Unnamed(networks.ResNet(2, 4))))
    known = stretch(ticket, resnets[3], resnets[2])
    mine, theirs = got.ticket.mask.keep.values(), known.ticket.mask.keep.values()
    assert len(mine) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert got.ticket.start is not None and not got.notes


def test_a_stretched_network_of_copies_computes_what_it_should(resnets: dict[int, Model]) -> None:
    source = resnets[3]
    ticket = replace(ticket_of(source), start=state_of(source))
    got = stretch(ticket, source, resnets[5], head="include")
    assert got.ticket.start is not None
    net = networks.ResNet(3, 4).eval()
    net.load_state_dict(state_of(source))
    for stage in (net.layer1, net.layer2, net.layer3):
        stage.extend([stage[1], stage[2]])
    deep = with_state(resnets[5], got.ticket.start, Event("test"))
    torch.testing.assert_close(deep.module()(PICTURE), net(PICTURE), rtol=1e-4, atol=1e-5)


def test_other_classes_keep_a_head_of_their_own(resnets: dict[int, Model]) -> None:
    other = model_of(networks.ResNet(2, 4, classes=7))
    got = stretch(ticket_of(resnets[3]), resnets[3], other)
    assert got.notes == ("2 tensors start as they are in the model: linear.weight, linear.bias",)
    assert got.ticket.start is not None
    own = state_of(other)
    assert torch.equal(got.ticket.start["linear.weight"], own["linear.weight"])
    with pytest.raises(InputError, match=r"'linear\.weight' of shape \(10, 16\)"):
        stretch(ticket_of(resnets[3]), resnets[3], other, head="include")


class Bert(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.layers = nn.Sequential(*[networks.EncoderLayer(16, 2) for _ in range(depth)])
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.table(x)).mean(1))


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda depth: networks.TinyViT(16, 2, depth), PICTURE),
        (Bert, torch.randint(0, 50, (2, 8))),
    ],
    ids=["vit", "bert"],
)
def test_transformers(make, x: Tensor) -> None:
    one, two, three = (model_of(make(depth), x) for depth in (1, 2, 3))
    assert origins(stretch(ticket_of(two), two, three), "layers") == ["0", "1", "1"]
    assert origins(stretch(ticket_of(three), three, two), "layers") == ["0", "1"]
    assert origins(stretch(ticket_of(one), one, three), "layers") == ["0", "0", "0"]


def test_what_does_not_correspond_is_refused(resnets: dict[int, Model]) -> None:
    ticket = ticket_of(resnets[3])
    wide = model_of(networks.ResNet(1, 6))
    for source in (resnets[3], None):
        with pytest.raises(
            InputError, match=r"has 'conv1\.weight' of shape \(4, 3, 3, 3\) where .* \(6, 3, 3, 3\)"
        ):
            stretch(ticket, source, wide)
    with pytest.raises(InputError, match="--from with the network of the ticket helps"):
        stretch(ticket, None, wide)
    with pytest.raises(InputError, match="don't correspond"):
        stretch(ticket, resnets[3], model_of(networks.TinyViT()))
    with pytest.raises(InputError, match="the mask is for another network"):
        stretch(ticket, resnets[1], resnets[5])
    groups = analyse(resnets[3])
    channels = Ticket(channel_mask(groups, groups.keep_all(), About("early-bird")))
    with pytest.raises(InputError, match="by channels can't be stretched"):
        stretch(channels, resnets[3], resnets[5])


def test_a_ticket_without_weights_stays_one(resnets: dict[int, Model]) -> None:
    got = stretch(ticket_of(resnets[3], start=False), resnets[3], resnets[5])
    assert got.ticket.start is None and got.notes == ()
