# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.data import Batch
from edgeprune.errors import InputError
from edgeprune.finetune.loop import Score, Totals, evaluate, train


def loss(module, batch):
    outputs = module(batch.inputs[0])
    right = int((outputs.argmax(1) == batch.labels).sum())
    return Score(F.cross_entropy(outputs, batch.labels), len(outputs), right, len(outputs))


def batches(count):
    random = torch.Generator().manual_seed(0)
    for step in range(count):
        x = torch.randn(8, 4, generator=random)
        yield step, Batch((x,), (x[:, 0] > 0).long())


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def run(module, numbered, *, seed=0, schedule=lambda _: 0.1, after=lambda _: None):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    train(module, numbered, loss, optimizer, schedule, after, seed)
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_it_learns():
    module = network()
    data = [b for _, b in batches(20)]
    before = evaluate(module.eval(), data, loss, lambda: None)
    run(module.train(), batches(60))
    after = evaluate(module.eval(), data, loss, lambda: None)
    assert after.mean_loss < before.mean_loss - 0.1
    assert after.percent > 75
    assert after.samples == after.judged == 160


def test_a_loop_that_starts_later_goes_on_exactly():
    whole = run(network(), batches(6))
    parts = network()
    run(parts, list(batches(6))[:2])
    torch.randn(100)  # the caller's own random numbers don't count
    assert torch.equal(run(parts, list(batches(6))[2:]), whole)


def test_random_numbers_depend_on_seed_and_step():
    assert not torch.equal(run(network(), batches(1), seed=0), run(network(), batches(1), seed=1))
    # Seeds that are equal in their low 32 bits, which is all that torch's generator keeps.
    assert not torch.equal(run(network(), batches(1)), run(network(), batches(1), seed=2**32))
    first, later = list(batches(1)), [(5, next(batches(1))[1])]
    assert not torch.equal(run(network(), first), run(network(), later))


def test_the_callers_random_state_is_left_alone():
    module = network()
    before = torch.get_rng_state()
    run(module, batches(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_schedule_and_callback_see_each_step():
    seen = []
    run(network(), list(batches(5))[2:], schedule=lambda s: s / 10, after=seen.append)
    assert [(s.done, s.rate) for s in seen] == [(3, 0.2), (4, 0.3), (5, 0.4)]
    assert all(s.score.samples == 8 for s in seen)


def test_a_mask_can_be_kept_by_the_callback():
    module = network()
    mask = torch.rand(8, 4) > 0.5

    def keep(_step):
        with torch.no_grad():
            module[0].weight.mul_(mask)

    run(module, batches(5), after=keep)
    assert not module[0].weight[~mask].any()
    assert module[0].weight[mask].all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(value):
    module = network()
    weights = module[0].weight.detach().clone()
    bad = (7, Batch((torch.full((8, 4), value),), torch.zeros(8, dtype=torch.long)))
    with pytest.raises(InputError, match=r"at step 8, with learning rate 0\.1; set a lower"):
        run(module, [bad])
    assert torch.equal(module[0].weight, weights)


def test_totals_of_nothing_are_no_number():
    assert str(Totals().mean_loss) == "nan"
    assert Totals().percent is None


def test_a_model_that_gives_no_finite_loss_as_it_is_isnt_told_to_learn_slower():
    bad = (0, Batch((torch.full((8, 4), float("nan")),), torch.zeros(8, dtype=torch.long)))
    with pytest.raises(InputError, match="the loss is nan before any step: the model gives NaN"):
        run(network(), [bad])
