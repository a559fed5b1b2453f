# SPDX-License-Identifier: Apache-2.0
"""Early-bird tickets: what judges, when masks have settled, and what is cut out then."""

from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch

from edgeprune.channels import analyse
from edgeprune.data import open_data
from edgeprune.errors import DataError, InputError
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import look, removed_channels
from edgeprune.model import Event
from edgeprune.progress import Silent
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets import training as loop
from edgeprune.tickets.early_bird import Search, find_early_bird, make_judge
from edgeprune.tickets.found import Work
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import EarlyBirdOptions, TicketOptions
from edgeprune.tickets.training import Training
from tests.unit.finetune.toy import cnn, context, data
from tests.unit.tickets.transformers import surroundings

TRAIN = FinetuneOptions(epochs=5, batch_size=32, learning_rate=0.05, distill=0.0)
LENIENT = EarlyBirdOptions(window=2, threshold=0.99)


@cache
def net(width=4):
    return cnn(0, width)


def options(density=0.5, train=TRAIN, bird=LENIENT, **changes):
    return TicketOptions(
        method="early-bird", density=density, train=train, early_bird=bird, **changes
    )


def find(folder, asked, **more):
    around = context(folder, data=data(), seed=3, **more)
    return find_early_bird(net(), asked, around, Work(folder, "run"))


def judge_of(asked, model=None):
    model = model or net()
    return make_judge(model, look(model), analyse(model), asked)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The ticket is drawn after the second of five epochs."""
    return find(tmp_path_factory.mktemp("found"), options())


def test_scores_are_summed_scales_and_coefficients():
    _, judge, notes = judge_of(options())
    assert judge.scales == ("bn1.weight", "bn2.weight")
    assert notes == ()
    first, second = torch.tensor([1.0, -2, 3, 0]), torch.tensor([3.0, 2, -1, 0])
    own = torch.linspace(-1, 1, 8)
    weights = {"bn1.weight": first, "bn2.weight": second, judge.coefficients.name: own}
    conv1, conv3 = judge.groups.groups
    scores = judge.scores(weights)
    np.testing.assert_allclose(scores[conv1.channels], [4, 4, 4, 0])
    np.testing.assert_allclose(scores[conv3.channels], own.abs())


def test_the_penalty_is_their_l1_norm():
    trainee, judge, _ = judge_of(options(bird=EarlyBirdOptions(penalty=0.25)))
    module = trainee.module()
    parameters = dict(module.named_parameters())
    names = ["bn1.weight", "bn2.weight", judge.coefficients.name]
    expected = sum(float(parameters[name].detach().abs().sum()) for name in names)
    search = Search(judge, options(bird=EarlyBirdOptions(penalty=0.25)))
    assert search.penalty(module).item() == pytest.approx(0.25 * expected)
    assert Search(judge, options(bird=EarlyBirdOptions(penalty=0))).penalty(module) is None


def scaled(judge, size=4):
    """Scores 0..3 for conv1, 10..17 for conv3."""
    ramp = torch.arange(float(size))
    return {
        "bn1.weight": ramp,
        "bn2.weight": ramp,
        judge.coefficients.name: torch.arange(10.0, 10.0 + 2 * size),
    }


@pytest.mark.parametrize(
    ("alloc", "density", "first", "second"),
    [
        (None, 0.5, 2, 4),
        ("uniform", 0.25, 1, 2),
        ("global", 0.5, 1, 5),  # 6 of 12; conv1 is worst, but keeps its best channel
        ("global", 0.01, 1, 1),
        ("global", 0.75, 1, 8),
        (None, 1.0, 4, 8),
    ],
)
def test_the_best_channels_are_drawn_and_no_group_dies(alloc, density, first, second):
    _, judge, _ = judge_of(options(alloc=alloc))
    kept = judge.draw(scaled(judge), density)
    conv1, conv3 = judge.groups.groups
    assert kept[conv1.channels].tolist() == [False] * (4 - first) + [True] * first
    assert kept[conv3.channels].tolist() == [False] * (8 - second) + [True] * second


class Scripted:
    """A judge that draws given masks."""

    def __init__(self, masks):
        self.masks, self.judged = [np.array(mask, bool) for mask in masks], np.array([0, 1, 2, 3])

    def draw(self, weights, density):
        return self.masks.pop(0)


class Nothing:
    def weights(self):
        return {}


def test_found_when_the_newest_is_near_all_others_in_a_full_queue():
    """The last entry is judged by nothing and doesn't count."""
    masks = [[1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 1]]
    search = Search(Scripted(masks), options(bird=EarlyBirdOptions(window=3, threshold=0.5)))
    assert [search.after_epoch(Nothing()) for _ in range(5)] == [False, False, False, True, True]
    assert search.distances == [[], [0.5], [0.5, 0.0], [0.0, 0.0], [0.25, 0.25]]
    assert len(search.queue) == 3
    again = Search(search.judge, search.options)
    again.load(search.state())
    assert again.distances == search.distances
    assert all((a == b).all() for a, b in zip(again.queue, search.queue, strict=True))
    assert again.found


def test_a_steady_drift_is_no_ticket():
    """Each mask is near the one before, as the paper's words ask, but not near the first."""
    masks = [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    search = Search(Scripted(masks), options(bird=EarlyBirdOptions(window=3, threshold=0.3)))
    assert not any(search.after_epoch(Nothing()) for _ in range(4))


def test_it_is_drawn_early_cut_and_trained_on(found):
    details, groups = found.details, analyse(net())
    assert details["found"]
    assert details["epoch"] == 2
    assert details["share"] == pytest.approx(0.4)
    assert details["channels"] == {"conv1": [4, 2], "conv3": [8, 4]}
    assert details["judged_by"] == {"conv1": "batch-norm scale", "conv3": "coefficient"}
    assert [entry["epoch"] for entry in details["epochs"]] == [1, 2, 3, 4, 5]
    assert found.ticket.mask.about.structure == "channels"
    assert int(removed_channels(groups, found.ticket.mask).sum()) == 6
    assert found.trained.program.state_dict["conv2.weight"].shape == (2, 2, 3, 3)
    assert "the ticket was drawn after epoch 2, 40% of the training" in found.notes


def grown(found):
    """The dense network that holds the small one's trained weights where the mask has ones."""
    model = net()
    mask, groups = found.ticket.mask, analyse(model)
    state = mask.masked(found.ticket.start)
    small = read_state(found.trained.module())
    removed = removed_channels(groups, mask)
    for name, value in state.items():
        if name in mask.keep:
            value[mask.keep[name]] = small[name].flatten()
        elif (name, 0) in groups.labels:
            label = groups.labels[name, 0]
            value[torch.from_numpy((label < 0) | ~removed[label])] = small[name]
        else:
            state[name] = small[name]
    return with_state(model, state, Event("test"))


def test_the_small_network_computes_what_the_mask_says(found):
    x = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    dense = grown(found)
    state = read_state(dense.module())
    for name, kept in found.ticket.mask.keep.items():
        assert not state[name][~kept].any()
    torch.testing.assert_close(found.trained.module()(x), dense.module()(x), rtol=1e-4, atol=1e-5)


def test_the_ledger_counts_the_smaller_network_after_the_cut(found):
    sizes = data().sizes
    before, after = look(net()).macs, look(found.trained).macs
    epoch = 6 * sizes["train"] + 2 * sizes["holdout"]
    assert found.ledger.dense == pytest.approx(epoch * (2 * before + 3 * after))
    assert found.ledger.steps == 5 * data().train_steps(32)
    assert after < 0.5 * before
    assert found.ledger.relative(5 * sizes["train"])[0] < 1


class Titles(Silent):
    """Remembers the bars."""

    def __init__(self):
        self.titles = []

    def bar(self, title, total):
        self.titles.append(title)
        return super().bar(title, total)


def test_masks_that_never_settle_are_cut_at_the_end(tmp_path):
    told = Titles()
    found = find(tmp_path, options(bird=EarlyBirdOptions(window=5, threshold=1e-6)), progress=told)
    assert told.titles == ["early-bird: search"]  # nothing is left to train on
    assert not found.details["found"]
    assert found.details["share"] == 1
    assert len(found.details["distances"]) == 5
    assert any("never settled" in note for note in found.notes)
    assert found.trained.program.state_dict["conv2.weight"].shape == (2, 2, 3, 3)
    for name, value in read_state(found.trained.module()).items():
        if name == "conv3.weight":
            kept = found.ticket.mask.keep[name]
            assert torch.equal(value.flatten(), found.ticket.start[name][kept])


class Killed(BaseException):
    """What no handler catches."""


class Deadly:
    def __init__(self, at):
        self.left = at

    @contextmanager
    def bar(self, title, total):
        yield self

    def advance(self, steps=1, **figures):
        self.left -= 1
        if self.left == 0:
            raise Killed

    def say(self, text):
        pass


def test_killed_at_any_step_it_ends_the_same(tmp_path, monkeypatch, found):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    kills = 0
    while True:
        try:
            again = find(tmp_path, options(), progress=Deadly(6 + kills))
            break
        except Killed:
            kills += 1
            assert kills < 20
    assert kills >= 2
    assert again.ticket.mask.same(found.ticket.mask)
    assert again.trained.fingerprint() == found.trained.fingerprint()
    assert again.details == found.details
    assert again.ledger.dense == found.ledger.dense


def test_a_strong_penalty_makes_scales_small(tmp_path):
    asked = [
        options(bird=EarlyBirdOptions(window=5, threshold=1e-6, penalty=p)) for p in (0.0, 0.5)
    ]
    sums = []
    for number, one in enumerate(asked):
        start = find(tmp_path / str(number), one).ticket.start
        sums.append(float(start["bn1.weight"].abs().sum() + start["bn2.weight"].abs().sum()))
    assert sums[1] < 0.5 * sums[0]


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_transformers_lose_heads_and_neurons(tmp_path, kind):
    model, around = surroundings(kind, tmp_path)
    train = FinetuneOptions(epochs=3, batch_size=32, optimizer="adamw", distill=0.0)
    found = find_early_bird(model, options(0.5, train), around, Work(tmp_path, "run"))
    widths = found.details["channels"]
    stream = "patch" if kind == "vit" else "norm"
    assert widths.pop(stream) == [16, 16]
    assert widths == {
        f"layers.{i}.{part}": [size, size // 2]
        for i in (0, 1)
        for part, size in (("attention.qkv", 4), ("mlp.0", 64))
    }
    assert set(found.details["judged_by"].values()) == {"coefficient"}
    assert found.details["epoch"] == 2
    shapes = found.trained.program.state_dict
    assert shapes["layers.0.attention.out.weight"].shape == (16, 8)
    assert shapes["layers.1.mlp.0.weight"].shape == (32, 16)
    assert any(f"{stream}: nothing judges its 16 channels" in note for note in found.notes)
    assert not any("early_bird" in name for name in read_state(found.trained.module()))


def test_excluded_channels_stay(tmp_path):
    found = find(tmp_path, options(0.25, exclude=("head.*",)))
    assert found.details["channels"] == {"conv1": [4, 1], "conv3": [8, 8]}
    assert any("conv3: excluded" in note for note in found.notes)


def test_what_it_refuses(tmp_path):
    with pytest.raises(InputError, match="--alloc erk: early-bird ranks channels"):
        find(tmp_path, options(alloc="erk"))
    with pytest.raises(InputError, match="--pattern 2:4: early-bird's masks"):
        find(tmp_path, options(pattern="2:4"))
    with pytest.raises(InputError, match="no channel of this model can be judged"):
        judge_of(options(exclude=("conv*",)))
    with pytest.raises(InputError, match="--exclude nowhere"):
        find(tmp_path, options(exclude=("nowhere",)))
    with pytest.raises(DataError, match="needs --data"):
        find_early_bird(net(), options(), context(tmp_path), Work(tmp_path, "run"))


def test_on_digits_it_is_found_in_the_first_quarter(tmp_path):
    """With the paper's window of 5 and threshold of 0.1; the rest isn't trained here."""
    train = FinetuneOptions(epochs=64, batch_size=32, learning_rate=0.05, distill=0.0)
    model, asked = cnn(1, 16), options(train=train, bird=EarlyBirdOptions())
    trainee, judge, _ = judge_of(asked, model)
    search = Search(judge, asked)
    around = context(tmp_path, data=open_data("digits", seed=0), seed=1)
    training = Training(trainee, train, around, Ledger(look(model)), during=search)
    training.run()
    assert search.found
    assert 5 <= training.epoch <= 16
    assert training.step < 0.25 * training.total
    assert max(search.distances[-1]) < 0.1 < max(search.distances[1])
