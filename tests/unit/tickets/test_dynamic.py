# SPDX-License-Identifier: Apache-2.0
"""SET and RigL: what goes, what begins, how many, until when, and at what cost."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.errors import DataError, InputError
from edgeprune.finetune import read_state, write_state
from edgeprune.finetune.loop import _step_seed
from edgeprune.mask import Mask, look
from edgeprune.model import set_training
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.dynamic import Dynamic, exchange, find_rigl, find_set, fraction_at
from edgeprune.tickets.found import Work, about
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import DynamicOptions, TicketOptions
from edgeprune.tickets.scores import random
from edgeprune.tickets.select import Ranking, select
from edgeprune.tickets.streams import generator
from edgeprune.tickets.training import Training
from tests.unit.finetune.toy import captured, context
from tests.unit.tickets.small import alive_only, digits, killed_after, network, outcome, run, same

TRAIN = FinetuneOptions(epochs=2, batch_size=256, learning_rate=0.1, distill=0.0)
STEPS = 12  # 1294 samples in batches of 256, twice
METHODS = pytest.mark.parametrize(("find", "method"), [(find_set, "set"), (find_rigl, "rigl")])


def options(method: str, **changes: Any) -> TicketOptions:
    given = {"train": TRAIN, "dynamic": DynamicOptions(every=3, end=0.9), "density": 0.2, **changes}
    return TicketOptions(method=method, **given)  # type: ignore[arg-type]


def start(given: TicketOptions) -> Mask:
    """The mask that a run begins with."""
    net = look(network(), given.exclude)
    ranking = Ranking.of(given, 3)
    return select(net, random(net, 3), given.density, ranking, about(network(), given, 3))


def training(during: Dynamic, given: TicketOptions, folder: Path) -> Training:
    surroundings = context(folder, data=digits(), seed=3)
    ledger = Ledger(look(network()))
    return Training(network(), given.train, surroundings, ledger, mask=start(given), during=during)


def test_an_exchange_by_hand() -> None:
    weight = torch.tensor([[0.1, -5.0, 0.3, 0.0], [-0.2, 4.0, 0.0, 0.0]])
    kept = torch.tensor([[True, True, True, False], [True, True, False, False]])
    wanted = torch.tensor([[9.0, 99.0, 1.0, 2.0], [3.0, 98.0, 4.0, 0.5]])
    # 0.45 of five: two go, 0.1 and -0.2. Of what isn't left, 9 and 4 are wanted most; the first of
    # these went a moment before, while 99 and 98 stayed and can't begin.
    change = exchange(weight, kept, wanted, 0.45, generator(0))
    assert change.dropped.int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert change.grown.int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert change.kept.int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 0]]


def test_a_dense_layer_stays_as_it_is() -> None:
    weight, kept = torch.randn(5, 5), torch.ones(5, 5, dtype=torch.bool)
    change = exchange(weight, kept, torch.rand(5, 5), 0.5, generator(0))
    assert change.kept.all()
    assert change.dropped.sum() == change.grown.sum() == 12


def test_the_fraction_falls_by_half_a_cosine() -> None:
    assert fraction_at(0, 100, 0.3) == 0.3
    assert fraction_at(50, 100, 0.3) == pytest.approx(0.15)
    assert fraction_at(100, 100, 0.3) == pytest.approx(0)
    assert fraction_at(25, 100, 0.3) == pytest.approx(0.15 * (1 + math.sqrt(0.5)))


@METHODS
def test_density_is_constant_and_the_counts_are_the_formulas(
    find: Any, method: str, tmp_path: Path
) -> None:
    given = options(method)
    found = run(find, tmp_path, given)
    mask, first = found.ticket.mask, start(given)
    assert mask.densities == first.densities
    assert mask.kept == round(0.2 * mask.size)
    assert not mask.same(first)
    assert found.details["moved"] == pytest.approx((first - mask).kept / first.kept)
    changes = found.details["changes"]
    assert [c["step"] for c in changes] == [3, 6, 9]  # of 12, up to 0.9 of them
    for change in changes:
        share = 0.15 * (1 + math.cos(math.pi * change["step"] / 11))
        assert change["fraction"] == pytest.approx(share)
        counts = {name: int(share * int(kept.sum())) for name, kept in mask.keep.items()}
        assert change["dropped"] == change["grown"] == counts
        assert all(0 <= change["back"][name] <= count for name, count in counts.items())
    assert found.ticket.start is None
    alive_only(found)


def plain_gradients(session: Training) -> dict[str, Tensor]:
    """Of the next step, of all weights, the dead too; the session is left alone."""
    module = network().module()
    write_state(module, read_state(session.module))
    set_training(module, True)
    epoch, first = divmod(session.step, session.plan.steps)
    batch = next(digits().train(256, seed=3, epoch=epoch, first_step=first))
    assert batch.labels is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_step_seed(3, session.step))  # the same dropout
        F.cross_entropy(module(*batch.inputs), batch.labels).backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rigl_grows_where_the_gradient_is_largest(optimizer: Any, tmp_path: Path) -> None:
    """One change of the mask against plain sorting, with gradients by ``backward``."""
    train = TRAIN.model_copy(update={"optimizer": optimizer, "learning_rate": 0.01})
    given = options("rigl", train=train)
    session = training(Dynamic(given.dynamic, "gradient", 3), given, tmp_path)
    still = training(Dynamic(DynamicOptions(every=1000), "gradient", 3), given, tmp_path)
    still.run(2)
    gradients = plain_gradients(still)
    still.run(3)
    session.run(3)
    assert session.mask is not None
    begun = 0
    for name, kept in start(given).keep.items():
        living = set(kept.flatten().nonzero().flatten().tolist())
        count = int(fraction_at(3, 11, 0.3) * len(living))
        sizes = still.weights()[name].flatten().abs().tolist()
        slopes = gradients[name].flatten().abs().tolist()
        staying = set(sorted(living, key=lambda i: -sizes[i])[: len(living) - count])
        others = [i for i in range(kept.numel()) if i not in staying]
        grown = set(sorted(others, key=lambda i: -slopes[i])[:count])
        now = session.mask.keep[name].flatten()
        assert set(now.nonzero().flatten().tolist()) == staying | grown
        new = sorted(grown - living)
        begun += len(new)
        parameter = dict(session.module.named_parameters())[name]
        moments = [v for v in session.optimizer.state[parameter].values() if v.shape == kept.shape]
        for value in (parameter.detach(), *moments):
            assert not value.flatten()[new].any()
            assert not value.flatten()[~now].any()
            assert value.flatten()[sorted(staying)].any()
    assert begun > 50


def test_set_begins_anywhere(tmp_path: Path) -> None:
    given = options("set")
    session = training(Dynamic(given.dynamic, "random", 3), given, tmp_path)
    session.run(3)
    assert session.mask is not None
    kept, now = start(given).keep["conv3.weight"], session.mask.keep["conv3.weight"]
    new = (now & ~kept).flatten().nonzero().flatten()
    assert len(new) > 100
    assert 0.4 < float(new.float().mean()) / kept.numel() < 0.6
    again = training(Dynamic(given.dynamic, "random", 3), given, tmp_path)
    again.run(3)
    assert again.mask is not None
    assert again.mask.same(session.mask)


def test_each_change_draws_other_places(tmp_path: Path) -> None:
    given = options("set", dynamic=DynamicOptions(every=1, fraction=0.5, end=1.0))
    session = training(Dynamic(given.dynamic, "random", 3), given, tmp_path)
    lived = {name: kept.clone() for name, kept in start(given).keep.items()}
    for step in range(1, STEPS):
        session.run(step)
        assert session.mask is not None
        lived = {name: seen | session.mask.keep[name] for name, seen in lived.items()}
    first = start(given).keep["conv3.weight"].sum()
    # The same places each time would be dropped and taken again, and hardly any other be tried.
    assert lived["conv3.weight"].sum() > 2.2 * first


class Watching(Dynamic):
    """Looks at the zeros after each step, those that just changed too."""

    looked = 0

    def after_step(self, training: Training) -> None:
        super().after_step(training)
        assert training.mask is not None
        parameters = dict(training.module.named_parameters())
        for name, kept in training.mask.keep.items():
            assert not parameters[name].detach()[~kept].any()
            for value in training.optimizer.state[parameters[name]].values():
                if value.shape == kept.shape:
                    assert not value[~kept].any()
                    self.looked += 1


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 1), ("adamw", 2)])
@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_after_each_step_zeros_are_zero(
    optimizer: Any, moments: int, growth: Any, tmp_path: Path
) -> None:
    train = TRAIN.model_copy(update={"optimizer": optimizer, "learning_rate": 0.01})
    given = options("rigl", train=train)
    during = Watching(given.dynamic, growth, 3)
    training(during, given, tmp_path).run()
    assert during.looked == STEPS * 4 * moments
    assert len(during.changes) == 3


@METHODS
def test_only_growing_by_gradient_costs_dense_gradients(
    find: Any, method: str, tmp_path: Path
) -> None:
    found = run(find, tmp_path, options(method))
    ledger, mask = found.ledger, found.ticket.mask
    kept, whole = ledger.kept_macs(mask), ledger.network.macs
    held_out = digits().sizes["holdout"]
    expected = 2 * (2 * 1294 * 3 + 2 * held_out) * kept
    if method == "rigl":
        expected += 2 * 3 * 256 * (whole - kept)  # three changes, after steps 3, 9 and 6
        assert found.details["changes"][1]["step"] == 6
        expected -= 2 * (256 - (1294 - 5 * 256)) * (whole - kept)  # the epoch's last batch is small
    assert ledger.sparse == pytest.approx(expected)
    assert ledger.dense == 2 * (2 * 1294 * 3 + 2 * held_out) * whole


@METHODS
def test_killed_anywhere_it_goes_on_bit_for_bit(find: Any, method: str, tmp_path: Path) -> None:
    given = options(method)
    undisturbed = outcome(run(find, tmp_path / "whole", given))
    for saves in (2, 3, 8):
        with killed_after(saves):
            run(find, tmp_path / f"{saves}", given)
        assert same(outcome(run(find, tmp_path / f"{saves}", given)), undisturbed)


def test_allocation_and_exclusion_are_the_options(tmp_path: Path) -> None:
    given = options("set", alloc="uniform", exclude=("conv1.weight",))
    mask = run(find_set, tmp_path, given).ticket.mask
    assert "conv1.weight" not in mask.keep
    assert all(share == pytest.approx(0.2, abs=0.01) for share in mask.densities.values())


def test_a_mask_that_never_changes_is_told(tmp_path: Path) -> None:
    given = options("rigl", dynamic=DynamicOptions(every=100))
    found = run(find_rigl, tmp_path, given)
    assert "the mask never changed: 12 steps, every 100" in found.notes
    assert found.ticket.mask.same(start(given))
    assert found.details["moved"] == 0


@METHODS
def test_what_cannot_be_is_refused(find: Any, method: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{method}: weights move without regard to a pattern"):
        run(find, tmp_path, options(method, pattern="2:4"))
    with pytest.raises(InputError, match=f"{method} moves weights in training: it takes 1 epoch"):
        run(find, tmp_path, options(method, train=TRAIN.model_copy(update={"epochs": 0})))
    with pytest.raises(DataError, match=f"{method} needs --data"):
        run(find, tmp_path, options(method), data=None)
    assert list(tmp_path.iterdir()) == []


class TwoHeads(nn.Module):
    """The loss looks at the first output alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 10), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x.flatten(1)), self.two(x.flatten(1))


def test_a_layer_without_gradient_keeps_its_mask(tmp_path: Path) -> None:
    given = options("rigl", alloc="uniform")
    surroundings = context(tmp_path, data=digits(), seed=3)
    model = captured(TwoHeads(), torch.zeros(2, 1, 8, 8))
    found = find_rigl(model, given, surroundings, Work(tmp_path, "key"))
    first = found.details["changes"][0]
    assert first["dropped"]["one.weight"] > 0
    assert first["dropped"]["two.weight"] == first["grown"]["two.weight"] == 0
    assert found.ticket.mask.densities["two.weight"] == pytest.approx(0.2, abs=0.01)
