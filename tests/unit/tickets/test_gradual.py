# SPDX-License-Identifier: Apache-2.0
"""Train, prune, retrain: the schedule, the criteria, the zeros, and a kill in the middle."""

from pathlib import Path
from typing import Any

import pytest
import torch

from edgeprune.errors import DataError, InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import About, Mask, look
from edgeprune.model import Event
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.found import about
from edgeprune.tickets.gradual import (
    Gradual,
    Scoring,
    count_changes,
    find_gradual,
    find_one_shot,
    progress,
    window,
)
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import AtInitOptions, GradualOptions, TicketOptions
from edgeprune.tickets.training import Training
from tests.unit.finetune.toy import context
from tests.unit.tickets.small import alive_only, digits, killed_after, network, outcome, run, same

TRAIN = FinetuneOptions(epochs=2, batch_size=256, learning_rate=0.1, distill=0.0)
STEPS = 12  # 1294 samples in batches of 256, twice


def options(method: str = "gradual", **changes: Any) -> TicketOptions:
    given = {
        "train": TRAIN,
        "gradual": GradualOptions(begin=0.0, end=0.7, every=2),
        "at_init": AtInitOptions(samples=40),
        **changes,
    }
    return TicketOptions(method=method, **given)  # type: ignore[arg-type]


def test_the_cubic_schedule_by_hand() -> None:
    """Zhu and Gupta 2017, eq. 1: s_f = 0.8, t_0 = 100, n = 10, dt = 20."""
    expected = {0: 0, 100: 0, 120: 0.8 * (1 - 0.9**3), 200: 0.8 * 0.875, 300: 0.8, 900: 0.8}
    for step, sparsity in expected.items():
        assert 0.8 * progress(step, 100, 300, "cubic") == pytest.approx(sparsity)
    assert [progress(s, 100, 300, "linear") for s in (100, 150, 300)] == [0, 0.25, 1]


@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_densities_follow_the_schedule_and_weights_never_come_back(
    schedule: Any, tmp_path: Path
) -> None:
    limits = GradualOptions(begin=0.1, end=0.7, every=2, schedule=schedule)
    found = run(find_gradual, tmp_path, options(density=0.1, gradual=limits))
    size = look(network()).size
    changes = found.details["changes"]
    assert [c["step"] for c in changes] == [3, 5, 7, 8]  # from 1 to 8, the last at the end
    for change in changes:
        way = (change["step"] - 1) / 7
        done = 1 - (1 - way) ** 3 if schedule == "cubic" else way
        kept = size - done * (size - round(0.1 * size))
        assert change["density"] * size == pytest.approx(kept, abs=0.51)
    assert found.ticket.mask.kept == round(0.1 * size)
    assert found.ticket.start is None
    alive_only(found)
    assert found.details["history"][-1]["epoch"] == 2
    assert found.ledger.steps == STEPS
    assert found.ledger.sparse < found.ledger.dense


@pytest.mark.parametrize("total", [1, 2, 7, 50])
@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize(("begin", "end"), [(0.0, 0.1), (0.2, 0.7), (0.5, 1.0), (0.9, 0.95)])
def test_changes_can_be_counted_beforehand(
    total: int, every: int, begin: float, end: float
) -> None:
    given = options(gradual=GradualOptions(begin=begin, end=end, every=every))
    net = look(network())
    during = Gradual(given, net, 0, about(network(), given, 0))
    during.first, during.last = window(given.gradual, total)
    due = sum(during.due(step) for step in range(1, total + 1))
    assert due == count_changes(given.gradual, total) > 0


def test_layers_with_densities_of_their_own_get_there_together(tmp_path: Path) -> None:
    by_hand = {"conv1.weight": 1.0, "head.weight": 0.5}
    found = run(find_gradual, tmp_path, options(density=0.1, alloc="erk", densities=by_hand))
    mask = found.ticket.mask
    assert (mask.densities["conv1.weight"], mask.densities["head.weight"]) == (1, 0.5)
    assert mask.kept == round(0.1 * mask.size)
    assert all(c["density"] > 0.1 for c in found.details["changes"][:-1])


@pytest.mark.parametrize("criterion", ["random", "saliency", "movement", "fisher"])
def test_each_criterion_prunes_to_the_density(criterion: Any, tmp_path: Path) -> None:
    found = run(find_gradual, tmp_path, options(criterion=criterion, density=0.3))
    assert found.ticket.mask.kept == round(0.3 * found.ticket.mask.size)
    alive_only(found)
    looks = len(found.details["changes"]) if criterion in ("saliency", "fisher") else 0
    passes = 2 * 3 * (2 * 1294 + 40 * looks) + 2 * 2 * digits().sizes["holdout"]
    assert found.ledger.dense == passes * found.ledger.network.macs


def test_a_pattern_is_met_in_the_end(tmp_path: Path) -> None:
    given = options(density=0.5, pattern="2:4", exclude=("conv1.weight",))
    found = run(find_gradual, tmp_path, given)
    assert found.ticket.mask.about.structure == "n:m"
    assert "conv1.weight" not in found.ticket.mask.keep
    for kept in found.ticket.mask.keep.values():
        assert (kept.movedim(1, -1).reshape(-1, 4).sum(1) == 2).all()
    alive_only(found)


class Watching(Gradual):
    """Looks at the zeros after each step, and at what was chosen."""

    looked = 0

    def after_step(self, training: Training) -> None:
        before = training.mask
        magnitudes = {name: w.abs() for name, w in training.weights().items()}
        buffers = {name: b.clone() for name, b in training.module.named_buffers()}
        if before is not None and self.moved:  # however dear the dead are
            self.moved = {n: m.masked_fill(~before.keep[n], 1e6) for n, m in self.moved.items()}
        super().after_step(training)
        after = training.mask
        assert before is not None
        assert after is not None
        assert after <= before
        for name, buffer in training.module.named_buffers():
            assert torch.equal(buffer, buffers[name])  # scoring is no training
        if self.options.criterion == "magnitude":
            alive = torch.cat([magnitudes[n][k] for n, k in after.keep.items()])
            gone = torch.cat([magnitudes[n][k & ~after.keep[n]] for n, k in before.keep.items()])
            assert len(gone) == 0 or gone.max() <= alive.min()
        parameters = dict(training.module.named_parameters())
        for name, kept in after.keep.items():
            assert not parameters[name].detach()[~kept].any()
            for value in training.optimizer.state[parameters[name]].values():
                if value.shape == kept.shape:
                    assert not value[~kept].any()
                    self.looked += 1


@pytest.mark.parametrize(
    ("optimizer", "moments", "criterion"),
    [
        ("sgd", 1, "magnitude"),
        ("adamw", 2, "magnitude"),
        ("sgd", 1, "movement"),
        ("sgd", 1, "saliency"),
    ],
)
def test_after_each_step_zeros_are_zero_and_the_smallest_went(
    optimizer: Any, moments: int, criterion: Any, tmp_path: Path
) -> None:
    train = TRAIN.model_copy(update={"optimizer": optimizer, "learning_rate": 0.01})
    given, net = options(train=train, criterion=criterion), look(network())
    origin = about(network(), given, 3)
    during = Watching(given, net, 3, origin)
    full = Mask.full({layer.name: layer.shape for layer in net.layers}, origin)
    surroundings = context(tmp_path, data=digits(), seed=3)
    training = Training(network(), train, surroundings, Ledger(net), mask=full, during=during)
    training.run()
    assert during.looked == STEPS * len(net.layers) * moments
    assert training.mask is not None
    assert training.mask.kept == round(0.2 * net.size)


def test_movement_is_the_sum_over_all_steps(tmp_path: Path) -> None:
    """Plain SGD moves a weight by -rate * g, so w * g can be read off the weights."""
    train = TRAIN.model_copy(update={"momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0})
    given = options("one-shot", criterion="movement", train=train)
    surroundings, net = context(tmp_path, data=digits(), seed=3), look(network())
    scoring = Scoring(given, net)
    training = Training(network(), train, surroundings, Ledger(net), during=scoring)
    expected = {layer.name: torch.zeros(layer.shape) for layer in net.layers}
    for step in range(4):  # each part calls ``begin`` again, and must not count twice
        before = {name: training.weights()[name].clone() for name in expected}
        training.run(step + 1)
        for name, old in before.items():
            expected[name] += old * (training.weights()[name] - old) / training.schedule(step)
    found = scoring.scores(training)
    for name, total in expected.items():
        torch.testing.assert_close(found[name], total, atol=2e-5, rtol=1e-3)


def test_one_shot_trains_prunes_by_the_trained_weights_and_retrains(tmp_path: Path) -> None:
    found = run(find_one_shot, tmp_path, options("one-shot", density=0.1))
    mask, start = found.ticket.mask, found.ticket.start
    assert start is not None
    alive = torch.cat([start[name][kept].abs() for name, kept in mask.keep.items()])
    gone = torch.cat([start[name][~kept].abs() for name, kept in mask.keep.items()])
    assert gone.max() <= alive.min()
    assert gone.max() > 0  # the ticket's own weights aren't masked
    assert len(found.details["dense"]) == len(found.details["retrain"]) == 2
    assert found.ledger.steps == 2 * STEPS
    alive_only(found)
    assert found.trained is not None
    assert [e.stage for e in found.trained.history] == ["load", "ticket"]
    # The second training is that of the ticket, from its weights.
    begun = with_state(network(), start, Event("start"))
    surroundings, ledger = context(tmp_path, data=digits(), seed=3), Ledger(found.ledger.network)
    again = Training(begun, TRAIN, surroundings, ledger, mask=mask)
    again.run()
    assert same(read_state(again.module), read_state(found.trained.module()))


@pytest.mark.parametrize("without", ["data", "epochs"])
def test_one_shot_without_training_prunes_the_model_as_it_is(without: str, tmp_path: Path) -> None:
    train = TRAIN.model_copy(update={"epochs": 0}) if without == "epochs" else TRAIN
    changes = {"data": None} if without == "data" else {}
    found = run(find_one_shot, tmp_path, options("one-shot", train=train), **changes)
    state = network().program.state_dict
    alive = torch.cat([state[name][k].abs() for name, k in found.ticket.mask.keep.items()])
    gone = torch.cat([state[name][~k].abs() for name, k in found.ticket.mask.keep.items()])
    assert gone.max() <= alive.min()
    assert (found.trained, found.ticket.start, found.ledger.dense) == (None, None, 0)
    assert found.notes == (
        "no data: not trained" if without == "data" else "0 epochs: not trained",
    )


def test_one_shot_can_look_at_data_without_training(tmp_path: Path) -> None:
    train = TRAIN.model_copy(update={"epochs": 0})
    found = run(find_one_shot, tmp_path, options("one-shot", train=train, criterion="fisher"))
    assert found.ledger.dense == 2 * 3 * 40 * found.ledger.network.macs
    assert found.ticket.mask.kept == round(0.2 * found.ticket.mask.size)


@pytest.mark.parametrize(
    ("find", "given", "saves"),
    [
        (find_gradual, options(criterion="movement", density=0.1), (3, 12)),
        (find_gradual, options(criterion="saliency"), (5,)),
        (find_one_shot, options("one-shot", criterion="movement"), (5, 17)),
        (find_one_shot, options("one-shot", criterion="fisher"), (20,)),
    ],
    ids=["gradual-movement", "gradual-saliency", "one-shot-movement", "one-shot-fisher"],
)
def test_killed_anywhere_it_goes_on_bit_for_bit(
    find: Any, given: TicketOptions, saves: tuple[int, ...], tmp_path: Path
) -> None:
    undisturbed = outcome(run(find, tmp_path / "whole", given))
    for count in saves:
        with killed_after(count):
            run(find, tmp_path / f"{count}", given)
        assert same(outcome(run(find, tmp_path / f"{count}", given)), undisturbed)


@pytest.mark.parametrize(
    ("find", "given", "said"),
    [
        (find_gradual, {"gradual": GradualOptions(begin=0.7, end=0.7)}, "begin 0.7 takes a share"),
        (find_gradual, {"train": TRAIN.model_copy(update={"epochs": 0})}, "takes 1 epoch or more"),
        (find_gradual, {"pattern": "2:4"}, "'conv1.weight' has 1 inputs"),
        (find_one_shot, {"pattern": "2:4"}, "--exclude conv1.weight"),
        (
            find_one_shot,
            {"pattern": "1:4", "density": 0.5, "exclude": ("conv1.weight",)},
            r"density 0\.5 is more than the pattern 1:4 allows: 0\.25",
        ),
        (find_one_shot, {"densities": {"conv9*": 0.1}}, "'conv9\\*' fits no weight"),
        (find_gradual, {"alloc": "by-hand"}, "takes densities"),
    ],
)
def test_what_cannot_be_is_refused_before_any_step(
    find: Any, given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        run(find, tmp_path, options(**given))
    assert list(tmp_path.iterdir()) == []


def test_what_needs_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gradual needs --data"):
        run(find_gradual, tmp_path, options(), data=None)
    with pytest.raises(DataError, match="one-shot needs --data"):
        run(find_one_shot, tmp_path, options("one-shot", criterion="saliency"), data=None)
    with pytest.raises(InputError, match="'movement' is summed up in training"):
        run(find_one_shot, tmp_path, options("one-shot", criterion="movement"), data=None)


def test_the_origin_is_written_down(tmp_path: Path) -> None:
    mask = run(find_one_shot, tmp_path, options("one-shot"), data=None).ticket.mask
    assert mask.about == About(
        "one-shot",
        3,
        network().fingerprint(),
        "unstructured",
        {"options": options("one-shot").model_dump(mode="json")},
    )
