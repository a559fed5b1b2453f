# SPDX-License-Identifier: Apache-2.0
"""Controls keep the densities of layers and take one thing away; on digits a ticket beats them."""

from functools import cache

import numpy as np
import pytest
import torch

from edgeprune.channels import analyse
from edgeprune.data import open_data
from edgeprune.errors import InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.finetune.loop import evaluate
from edgeprune.finetune.loss import bind
from edgeprune.mask import About, Mask, Ticket, channel_mask, look, removed_channels
from edgeprune.model import Event
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.controls import CONTROLS, random_mask, reinitialised, shuffled
from edgeprune.tickets.found import Work
from edgeprune.tickets.imp import find_imp
from edgeprune.tickets.initial import fresh_state
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import ImpOptions, TicketOptions
from edgeprune.tickets.scores import magnitude
from edgeprune.tickets.select import Ranking, select
from edgeprune.tickets.training import Training
from tests.unit.finetune.toy import cnn, context


@cache
def net():
    return cnn(0, 8)


def start():
    return fresh_state(net(), 5)


def ticket(pattern=None, density=0.3):
    network = look(net(), ["conv1.weight"])
    structure = "n:m" if pattern else "unstructured"
    about = About("imp", 1, net().fingerprint(), structure, {"options": {"pattern": pattern}})
    mask = select(network, magnitude(start()), density, Ranking(pattern=pattern), about)
    return Ticket(mask, start())


def channels():
    groups = analyse(net())
    removed = groups.keep_all()
    removed[groups.groups[0].channels[:3]] = True
    removed[groups.groups[1].channels[5:]] = True
    return groups, Ticket(channel_mask(groups, removed, About("early-bird")), start())


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_reinitialised_weights_are_not_those_that_the_ticket_began_with():
    """By the same seed too, which both commands take when none is given."""
    drawn = fresh_state(net(), 5)
    control = reinitialised(Ticket(ticket().mask, drawn), net(), 5).start
    covered = ticket().mask.keep
    assert all(not torch.equal(control[name], drawn[name]) for name in covered)


@pytest.mark.parametrize("name", CONTROLS)
def test_layers_keep_their_densities(name):
    given = ticket()
    control = CONTROLS[name](given, net(), 9)
    assert control.mask.densities == given.mask.densities
    assert control.mask.about.facts["control"] == name
    assert control.mask.about.facts["control_seed"] == 9
    assert control.mask.about.method == "imp"
    assert control.mask.same(given.mask) == (name != "random-mask")
    assert equal(control.start, given.start) == (name == "random-mask")


@pytest.mark.parametrize("name", CONTROLS)
def test_a_seed_decides(name):
    one, again, other = (CONTROLS[name](ticket(), net(), seed) for seed in (9, 9, 10))
    assert one.mask.same(again.mask)
    assert equal(one.start, again.start)
    assert not (one.mask.same(other.mask) and equal(one.start, other.start))


def test_reinitialised_weights_are_fresh_ones():
    assert equal(reinitialised(ticket(), net(), 9).start, fresh_state(net(), 9, "reinitialised"))


def test_places_are_random_and_no_layer_like_another():
    """The overlap with the ticket is that of chance: the density itself."""
    given, drawn = ticket(), random_mask(ticket(), net(), 9)
    for name, kept in given.mask.keep.items():
        both = int((kept & drawn.mask.keep[name]).sum())
        share = int(kept.sum()) / kept.numel()
        spread = kept.numel() ** 0.5 * share * (1 - share)  # hypergeometric
        assert abs(both - kept.numel() * share * share) < 4 * spread + 1


def test_shuffled_values_stay_in_their_layer():
    given = ticket()
    mixed = shuffled(given, net(), 9)
    for name, value in given.start.items():
        kept = given.mask.keep.get(name)
        if kept is None:
            assert torch.equal(mixed.start[name], value)
            continue
        assert torch.equal(mixed.start[name][~kept], value[~kept])
        assert torch.equal(mixed.start[name][kept].sort().values, value[kept].sort().values)
        assert not torch.equal(mixed.start[name][kept], value[kept])
    assert equal(given.start, start())


def test_a_pattern_stays_one():
    drawn = random_mask(ticket("2:4", 0.5), net(), 9).mask
    for layer in look(net(), ["conv1.weight"]).layers:
        rows = drawn.keep[layer.name].movedim(layer.in_dim, -1).reshape(-1, 4)
        assert (rows.sum(1) == 2).all()
    assert not drawn.same(ticket("2:4", 0.5).mask)


def test_whole_channels_change_places_within_their_group():
    groups, given = channels()
    drawn = random_mask(given, net(), 9).mask
    assert drawn.about.structure == "channels"
    before, after = removed_channels(groups, given.mask), removed_channels(groups, drawn)
    for group in groups.groups:
        assert before[group.channels].sum() == after[group.channels].sum()
    assert not np.array_equal(before, after)


def test_a_ticket_without_weights_begins_with_the_models():
    bare = Ticket(ticket().mask)
    assert equal(random_mask(bare, net(), 9).start, read_state(net().module()))


@pytest.mark.parametrize("name", CONTROLS)
def test_another_networks_ticket_is_refused(name):
    with pytest.raises(InputError, match="the mask is for another network"):
        CONTROLS[name](ticket(), cnn(0, 4), 9)


def test_a_pattern_that_nobody_told_is_refused():
    mask = ticket("2:4", 0.5).mask
    silent = Ticket(Mask(mask.keep, About("imp", structure="n:m")), start())
    with pytest.raises(InputError, match="N:M, but not which"):
        random_mask(silent, net(), 9)


def scores(folder, seed, train, rate):
    """Accuracy in percent on digits' evaluation split at 10 % density: of IMP's ticket, and of the
    same mask drawn anew, each trained in the same way from its weights."""
    model = cnn(seed, 16)
    around = context(folder, data=open_data("digits", seed=0), seed=seed)
    asked = TicketOptions(density=0.1, imp=ImpOptions(rate=rate), train=train)
    found = find_imp(model, asked, around, Work(folder, "run")).ticket
    results = []
    for one in (found, reinitialised(found, model, 100 + seed)):
        begun = with_state(model, one.start, Event("test"))
        training = Training(begun, train, around, Ledger(look(model)), mask=one.mask)
        training.run()
        batches = around.data.evaluation(64)
        loss = bind(training.plan.objective, None, training.plan.fixed)
        results.append(evaluate(training.module, batches, loss, lambda: None).percent)
    return results


def test_a_ticket_beats_its_reinitialisation(tmp_path):
    """One seed, two levels, five epochs."""
    train = FinetuneOptions(epochs=5, batch_size=64, learning_rate=0.05, distill=0.0)
    ticket, anew = scores(tmp_path, 0, train, 0.7)
    assert ticket > anew + 15


@pytest.mark.slow
def test_tickets_beat_their_reinitialisation_on_digits(tmp_path):
    """Three seeds, eleven levels (20 % each), 20 epochs: a paired one-sided t test at 5 %."""
    train = FinetuneOptions(epochs=20, batch_size=64, learning_rate=0.05, distill=0.0)
    results = [scores(tmp_path / str(seed), seed, train, 0.2) for seed in range(3)]
    print("ticket, reinitialised:", results)
    gains = np.array([ticket - anew for ticket, anew in results])
    t = gains.mean() / (gains.std(ddof=1) / len(gains) ** 0.5)
    assert t > 2.92, results  # the 95 % quantile with two degrees of freedom
    assert gains.min() > 3, results
