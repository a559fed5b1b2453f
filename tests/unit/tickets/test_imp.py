# SPDX-License-Identifier: Apache-2.0
"""Iterative magnitude pruning against a plain loop of its own, and killed wherever it can be."""

from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import DataError, InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import About, Mask, look
from edgeprune.model import Event
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets import imp
from edgeprune.tickets import training as loop
from edgeprune.tickets.found import Work
from edgeprune.tickets.imp import find_imp, levels
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import ImpOptions, TicketOptions
from edgeprune.tickets.training import Training
from tests.unit.finetune.toy import cnn, context, data
from tests.unit.tickets.transformers import surroundings

TRAIN = FinetuneOptions(epochs=2, batch_size=32, learning_rate=0.05, distill=0.0)
STEPS, BACK = 6, 2  # in the middle of the first epoch


FIRST = ("conv1.*",)  # it has one input


@cache
def net(seed=0):
    return cnn(seed)


def options(density=0.4, train=TRAIN, **changes):
    table = {k: changes.pop(k) for k in ("rate", "rewind", "mode") if k in changes}
    table = {"rate": 0.3, "rewind": 0.4, **table}
    return TicketOptions(density=density, imp=ImpOptions(**table), train=train, **changes)


def find(folder, asked, key="run", progress=None, model=None):
    more = {} if progress is None else {"progress": progress}
    surroundings = context(folder, data=data(), seed=3, **more)
    return find_imp(model or net(), asked, surroundings, Work(folder, key))


def same(found, expected):
    assert found.ticket.mask.same(expected.ticket.mask)
    for name, value in expected.ticket.start.items():
        assert torch.equal(found.ticket.start[name], value), name
    assert found.trained.fingerprint() == expected.trained.fingerprint()
    assert without_seconds(found.details) == without_seconds(expected.details)
    mine, theirs = found.ledger.state(), expected.ledger.state()
    for name in ("dense", "sparse", "steps", "samples"):
        assert mine[name] == theirs[name]


def without_seconds(details):
    entries = [{k: v for k, v in e.items() if k != "seconds"} for e in details["levels"]]
    return {**details, "levels": entries}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return find(tmp_path_factory.mktemp("whole"), options())


@pytest.fixture(scope="module")
def kept_on(tmp_path_factory):
    """In the mode in which weights stay."""
    return find(tmp_path_factory.mktemp("kept_on"), options(mode="learning-rate"))


def test_levels_of_the_papers():
    assert levels(0.512, 0.2) == pytest.approx((0.8, 0.64, 0.512))
    assert levels(0.5, 0.2) == pytest.approx((0.8, 0.64, 0.512, 0.5))
    assert levels(0.9, 0.2) == (0.9,)
    assert levels(1.0, 0.2) == ()


@settings(max_examples=40)
@given(st.floats(0.001, 1.0), st.floats(0.01, 0.99))
def test_no_level_takes_more_than_its_rate_and_the_last_is_exact(density, rate):
    found = (1.0, *levels(density, rate))
    assert found[-1] == density
    for before, after in pairwise(found[:-1]):
        assert after == pytest.approx(before * (1 - rate))
    if len(found) > 1:
        assert found[-2] > found[-1] >= found[-2] * (1 - rate) * (1 - 1e-6)


@pytest.mark.parametrize(("density", "rate"), [(0, 0.2), (1.1, 0.2), (0.5, 0.0), (0.5, 1.0)])
def test_levels_refuse_shares_that_are_none(density, rate):
    with pytest.raises(InputError, match="takes a density above 0"):
        levels(density, rate)


def test_each_level_has_its_exact_density(whole):
    size = look(net()).size
    kept = [round(entry["density"] * size) for entry in whole.details["levels"]]
    assert kept == [round(share * size) for share in (1.0, 0.7, 0.49, 0.4)]
    assert whole.ticket.mask.kept == round(0.4 * size)
    assert whole.details["rewind_step"] == BACK
    assert whole.details["steps"] == STEPS
    assert all("holdout_score" in entry for entry in whole.details["levels"])


def plain(folder, mode, densities, model):
    """The algorithm as the papers write it, with no file and no level of the code under test."""
    network = look(model)
    full = Mask.full({layer.name: layer.shape for layer in network.layers}, About("test"))
    training = Training(
        model, TRAIN, context(folder, data=data(), seed=3), Ledger(network), mask=full
    )
    training.run(BACK)
    rewound = training.snapshot()
    weights, keep = rewound.state, full.keep
    for density in densities:
        training.rewind(rewound)
        training.hold(Mask(keep, About("test")))
        loop.write_state(training.module, weights)
        training.held.enforce()
        training.run()
        ends = read_state(training.module)
        values = torch.cat([ends[name].abs().flatten() for name in keep])
        values[~torch.cat([kept.flatten() for kept in keep.values()])] = -1
        living = torch.zeros(len(values), dtype=torch.bool)
        living[values.topk(round(density * len(values))).indices] = True
        parts = living.split([kept.numel() for kept in keep.values()])
        keep = {n: p.reshape(keep[n].shape) for n, p in zip(keep, parts, strict=True)}
        if mode == "learning-rate":
            weights = ends
    return keep, weights, rewound.state


@pytest.mark.parametrize("mode", ["weights", "learning-rate"])
def test_it_is_the_papers_loop(tmp_path, mode):
    model = net(1)
    found = find(tmp_path, options(mode=mode, density=0.5), model=model)
    keep, weights, rewound = plain(tmp_path, mode, (0.7, 0.5), model)
    assert all(torch.equal(found.ticket.mask.keep[name], kept) for name, kept in keep.items())
    alike = []
    for name, value in found.ticket.start.items():
        assert torch.equal(value, weights[name]), name
        alike.append(torch.equal(value, rewound[name]))
    assert all(alike) == (mode == "weights")


def test_the_trained_network_is_the_ticket_trained(whole, tmp_path):
    """Zeros are held, and a training of the ticket by hand gives it again."""
    model, mask = net(), whole.ticket.mask
    state = read_state(whole.trained.module())
    for name, kept in mask.keep.items():
        assert not state[name][~kept].any()
        assert state[name][kept].abs().min() > 0
    begun = with_state(model, whole.ticket.start, Event("test"))
    surroundings = context(tmp_path, data=data(), seed=3)
    first = Training(model, TRAIN, surroundings, Ledger(look(model)))
    first.run(BACK)  # its momentum goes back too
    again = Training(begun, TRAIN, surroundings, Ledger(look(model)), mask=mask)
    again.rewind(first.snapshot())
    again.run()
    for name, value in read_state(again.module).items():
        assert torch.equal(value, state[name]), name


def test_without_rewind_the_ticket_begins_with_the_weights_as_given(tmp_path):
    model = net(4)
    found = find(tmp_path, options(density=0.7, rewind=0.0), model=model)
    for name, value in read_state(model.module()).items():
        assert torch.equal(found.ticket.start[name], value), name
    assert found.details["rewind_step"] == 0


def test_the_ledger_has_every_training(whole):
    entries, ledger = whole.details["levels"], whole.ledger
    assert ledger.steps == BACK + 4 * (STEPS - BACK)
    assert [entry["steps"] for entry in entries] == [STEPS, *[STEPS - BACK] * 3]
    for name, total in (("dense_flops", ledger.dense), ("sparse_flops", ledger.sparse)):
        assert sum(entry[name] for entry in entries) == pytest.approx(total)
    shares = [entry["sparse_flops"] / entry["dense_flops"] for entry in entries]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    kept = ledger.kept_macs(whole.ticket.mask) / ledger.network.macs
    assert shares[-1] == pytest.approx(kept)


class Killed(BaseException):
    """What no handler catches, as ``kill -9``."""


class Deadly:
    """Progress that kills the run at one of its steps."""

    def __init__(self, at=None):
        self.left, self.said = at, []

    @contextmanager
    def bar(self, title, total):
        yield self

    def advance(self, steps=1, **figures):
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise Killed

    def say(self, text):
        self.said.append(text)


def test_the_levels_are_told_before_anything_is_trained(tmp_path):
    deadly = Deadly(1)
    with pytest.raises(Killed):
        find(tmp_path, options(), progress=deadly)
    assert deadly.said == ["imp: 4 trainings of 6 steps from step 2, at density 1, 0.7, 0.49, 0.4"]


@pytest.mark.parametrize("seconds", [0, 1000])
def test_killed_at_any_step_it_ends_the_same(tmp_path, monkeypatch, whole, seconds):
    """Killed after every fifth call of the bar, again and again: with a checkpoint at each step, or
    at each epoch's end only (then the run gets further each time by what is whole)."""
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", float(seconds))
    kills = 0
    while True:
        try:
            found = find(tmp_path, options(), progress=Deadly(6 + kills % 3))
            break
        except Killed:
            kills += 1
            assert kills < 40
    assert kills >= 3
    same(found, whole)


@pytest.mark.parametrize(
    ("at", "when", "mode"),
    [
        (1, "before", "weights"),
        (1, "after", "weights"),
        (3, "before", "learning-rate"),
        (3, "after", "learning-rate"),
        (4, "after", "weights"),
    ],
)
def test_killed_while_a_level_is_written(tmp_path, monkeypatch, request, at, when, mode):
    """The first file is the state of step k, the others are levels."""
    expected = request.getfixturevalue("whole" if mode == "weights" else "kept_on")
    asked, calls, real = options(mode=mode), 0, imp.store

    def store(*args):
        nonlocal calls
        calls += 1
        if calls == at and when == "before":
            raise Killed
        real(*args)
        if calls == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(imp, "store", store)
        with pytest.raises(Killed):
            find(tmp_path, asked)
    same(find(tmp_path, asked), expected)


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch, whole):
    find(tmp_path, options())
    monkeypatch.setattr(loop, "run_steps", None)
    same(find(tmp_path, options()), whole)


def test_another_runs_levels_are_left_aside(tmp_path, whole):
    find(tmp_path, options(density=0.8), key="other")
    quiet = Deadly()
    same(find(tmp_path, options(), progress=quiet), whole)
    assert "> rewind.pt belongs to another run: started anew" in quiet.said


def test_local_and_by_hand(tmp_path):
    network = look(net())
    found = find(tmp_path / "uniform", options(density=0.5, alloc="uniform", rate=0.4))
    for layer in network.layers:
        kept = found.ticket.mask.densities[layer.name]
        assert kept == pytest.approx(0.5, abs=1 / layer.size)
    hand = {"conv2.weight": 0.9, "head.weight": 0.0}
    found = find(tmp_path / "hand", options(density=0.5, densities=hand, rate=0.4))
    assert found.ticket.mask.densities["conv2.weight"] == pytest.approx(0.9, abs=0.01)
    assert found.ticket.mask.densities["head.weight"] == 0
    assert found.ticket.mask.kept == round(0.5 * network.size)
    assert "layer collapse: no weight lives in head.weight" in found.notes


def test_excluded_weights_stay_out(tmp_path):
    found = find(tmp_path, options(density=0.6, exclude=("head.*",)))
    assert "head.weight" not in found.ticket.mask.keep
    assert found.ticket.mask.kept == round(0.6 * look(net(), ["head.*"]).size)


def test_a_pattern_is_met_at_the_last_level(tmp_path):
    found = find(tmp_path, options(density=0.5, rate=0.3, pattern="2:4", exclude=FIRST))
    mask = found.ticket.mask
    assert mask.about.structure == "n:m"
    for layer in look(net(), FIRST).layers:
        blocks = mask.keep[layer.name].movedim(layer.in_dim, -1).reshape(-1, 4)
        assert (blocks.sum(1) == 2).all()
    densities = [entry["density"] for entry in found.details["levels"]]
    assert densities == pytest.approx([1, 0.7, 0.5], abs=0.01)


def test_a_rate_near_zero_is_refused_and_not_counted_out():
    for rate in (1e-9, 1e-17):
        with pytest.raises(InputError, match="at most 1000 are done"):
            levels(0.2, rate)


def test_what_it_refuses(tmp_path):
    with pytest.raises(InputError, match=r"density 0\.6 is more than the pattern 2:4 allows"):
        find(tmp_path, options(density=0.6, pattern="2:4", exclude=FIRST))
    with pytest.raises(DataError, match="imp needs --data"):
        find_imp(net(), options(), context(tmp_path), Work(tmp_path, "run"))


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_transformers(tmp_path, kind):
    model, around = surroundings(kind, tmp_path)
    train = FinetuneOptions(epochs=1, batch_size=32, optimizer="adamw", distill=0.0)
    found = find_imp(model, options(0.5, train, rate=0.4), around, Work(tmp_path, "run"))
    size = look(model).size
    assert [round(e["density"] * size) for e in found.details["levels"]] == [
        size,
        round(0.6 * size),
        round(0.5 * size),
    ]
    state = read_state(found.trained.module())
    for name, kept in found.ticket.mask.keep.items():
        assert not state[name][~kept].any()
