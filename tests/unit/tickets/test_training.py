# SPDX-License-Identifier: Apache-2.0
"""One loop for all methods: zeros stay, a kill anywhere changes no bit, a method has its say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import DataError, InputError
from edgeprune.mask import About, Mask, look
from edgeprune.model import Event
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets import training as under_test
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.training import During, Training, default_rate
from tests.unit.finetune.toy import cnn, context, data

OPTIONS = FinetuneOptions(epochs=2, batch_size=32, learning_rate=0.05, distill=0.0)


class Killed(BaseException):
    """What no handler catches, as ``kill -9``."""


class Shrinking(During):
    """Takes a tenth of the living weights every third step, and counts its calls."""

    def __init__(self) -> None:
        self.changes = 0
        self.epochs: list[int] = []

    def before_step(self, training: Training) -> None:
        assert training.held is not None
        training.held.watch = training.step % 2 == 0

    def after_step(self, training: Training) -> None:
        if training.step % 3:
            return
        self.changes += 1
        mask = training.mask
        assert mask is not None
        drawn = torch.Generator().manual_seed(training.step)
        keep = {n: k & (torch.rand(k.shape, generator=drawn) < 0.9) for n, k in mask.keep.items()}
        training.hold(replace(mask, keep=keep))

    def after_epoch(self, training: Training) -> bool:
        self.epochs.append(training.epoch)
        return False

    def state(self) -> dict[str, Any]:
        return {"changes": self.changes, "epochs": self.epochs}

    def load(self, state: dict[str, Any]) -> None:
        self.changes, self.epochs = state["changes"], list(state["epochs"])


def half(model: Any) -> Mask:
    drawn = torch.Generator().manual_seed(5)
    return Mask(
        {
            layer.name: torch.rand(layer.shape, generator=drawn) < 0.5
            for layer in look(model).layers
        },
        About("by hand"),
    )


def make(folder: Path, during: During | None = None, **changes: Any) -> Training:
    model, options = cnn(), OPTIONS.model_copy(update=changes.pop("options", {}))
    full = Mask.full({la.name: la.shape for la in look(model).layers}, About("test"))
    mask = changes.pop("mask", full)
    surroundings = context(folder, data=changes.pop("data", data()), seed=3)
    return Training(
        model, options, surroundings, Ledger(look(model)), mask=mask, during=during, **changes
    )


def outcome(training: Training) -> dict[str, Any]:
    costs = training.ledger.state()
    return {
        "state": under_test.read_state(training.module),
        "optimizer": training.optimizer.state_dict()["state"],
        "mask": dict(training.mask.keep) if training.mask else None,
        "history": training.history,
        "step": training.step,
        "during": training.during.state(),
        "costs": {n: costs[n] for n in ("dense", "sparse", "steps", "samples")},
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    return bool(one == other)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    training = make(tmp_path_factory.mktemp("undisturbed"), Shrinking())
    training.run()
    return outcome(training)


def killed_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step writes a checkpoint, and after so many the process is gone."""
    done = 0

    def store(*given: Any) -> None:
        nonlocal done
        real(*given)
        done += 1
        if done == saves:
            raise Killed

    real = under_test.store
    monkeypatch.setattr(under_test, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(under_test, "store", store)


@pytest.mark.parametrize("saves", [1, 3, 4, 5, 7])
def test_killed_anywhere_it_goes_on_bit_for_bit(
    saves: int, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    with monkeypatch.context() as patch:
        killed_after(saves, patch)
        with pytest.raises(Killed):
            make(tmp_path, Shrinking()).run(checkpoint=path, key="k")
    again = make(tmp_path, Shrinking())
    again.run(checkpoint=path, key="k")
    assert same(outcome(again), undisturbed)


def test_the_seconds_before_a_kill_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "run.pt", [0.0]
    with monkeypatch.context() as patch:
        patch.setattr("edgeprune.tickets.ledger.perf_counter", lambda: now[0])
        killed_after(3, patch)
        training = make(tmp_path, Shrinking())
        monkeypatch.setattr(training.during, "after_step", lambda _: now.append(now.pop() + 10))
        with pytest.raises(Killed):
            training.run(checkpoint=path, key="k")
    again = make(tmp_path, Shrinking())
    again.run(again.step, checkpoint=path, key="k")
    assert again.ledger.seconds == pytest.approx(10 * again.step, abs=5)


def test_one_of_these_kills_falls_between_the_last_step_and_the_end_of_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make(tmp_path, Shrinking())
    killed_after(training.plan.steps, monkeypatch)
    with pytest.raises(Killed):
        training.run(checkpoint=tmp_path / "run.pt", key="k")
    assert training.step == training.plan.steps
    assert training.history == []
    assert training.plan.steps in (1, 3, 4, 5, 7)


def test_a_run_in_parts_is_the_run_in_one(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    training = make(tmp_path, Shrinking())
    for until in (1, 4, 5, training.total):
        training.run(until)
        assert training.step == until
    assert same(outcome(training), undisturbed)


def test_a_checkpoint_of_another_key_is_not_taken_up(
    undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    make(tmp_path, Shrinking()).run(2, checkpoint=path, key="seed 1")
    make(tmp_path, Shrinking()).run(4, checkpoint=path, key="seed 1")
    training = make(tmp_path, Shrinking())
    training.run(checkpoint=path, key="seed 3")
    assert same(outcome(training), undisturbed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_masked_weights_and_their_moments_are_zero_after_each_step(
    optimizer: str, precision: str, tmp_path: Path
) -> None:
    seen = 0

    class Looking(During):
        def after_step(self, training: Training) -> None:
            nonlocal seen
            assert training.mask is not None
            parameters = dict(training.module.named_parameters())
            for name, kept in training.mask.keep.items():
                assert not parameters[name].detach()[~kept].any()
                for value in training.optimizer.state[parameters[name]].values():
                    if value.shape == kept.shape:
                        assert not value[~kept].any()
                        seen += 1

    options = {"optimizer": optimizer, "precision": precision}
    training = make(tmp_path, Looking(), mask=half(cnn()), options=options)
    before = training.weights()
    before = {name: before[name].clone() for name in training.mask.keep}  # type: ignore[union-attr]
    training.run()
    assert seen
    assert any(not torch.equal(before[n], w) for n, w in training.weights().items() if n in before)


def test_rewinding_gives_the_same_training_again(tmp_path: Path) -> None:
    training = make(tmp_path)
    training.run(2)
    early = training.snapshot()
    training.run()
    first = outcome(training)
    training.rewind(early)
    assert training.step == 2
    assert same(under_test.read_state(training.module), early.state)
    assert len(training.history) == 0
    training.run()
    second = outcome(training)
    del first["costs"], second["costs"]  # the second training costs, too
    assert same(first, second)


def test_rewinding_leaves_the_mask_in_force(tmp_path: Path) -> None:
    training = make(tmp_path)
    start = training.snapshot()
    training.run(2)
    mask = half(training.model)
    training.hold(mask)
    training.rewind(start)
    for name, kept in mask.keep.items():
        expected = torch.where(kept, start.state[name], torch.zeros(()))
        assert torch.equal(training.weights()[name], expected)


class Pulled(During):
    """Adds ``strength`` times the sum of the squares of one weight to the loss."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, module: nn.Module) -> Tensor | None:
        weight = dict(module.named_parameters())["head.weight"]
        return self.strength * (weight * weight).sum() if self.strength else None


def one_step(folder: Path, during: During) -> tuple[Tensor, Tensor]:
    options = {"momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0}
    training = make(folder, during, mask=None, options=options)
    before = training.weights()["head.weight"].clone()
    training.run(1)
    return before, training.weights()["head.weight"].clone()


def test_a_penalty_adds_its_gradient(tmp_path: Path) -> None:
    before, plain = one_step(tmp_path, Pulled(0.0))
    _, pulled = one_step(tmp_path, Pulled(0.7))
    torch.testing.assert_close(pulled, plain - 0.05 * 2 * 0.7 * before, rtol=1e-5, atol=1e-7)


def test_a_penalty_is_no_part_of_held_out_losses(tmp_path: Path) -> None:
    class Constant(During):
        def penalty(self, module: nn.Module) -> Tensor | None:
            return torch.tensor(100.0)

    plain, shifted = make(tmp_path), make(tmp_path, Constant())
    for training in (plain, shifted):
        training.run()
    for one, other in zip(plain.history, shifted.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"] + 100)
        assert other["holdout_loss"] == pytest.approx(one["holdout_loss"])


def test_a_method_stops_the_training(tmp_path: Path) -> None:
    class Once(During):
        def after_epoch(self, training: Training) -> bool:
            return True

    training = make(tmp_path, Once())
    training.run()
    assert training.stopped
    assert (training.epoch, len(training.history)) == (1, 1)
    training.run()
    assert training.epoch == 1


def test_watched_gradients_are_those_before_the_mask(tmp_path: Path) -> None:
    class Looking(During):
        def before_step(self, training: Training) -> None:
            assert training.held is not None
            training.held.watch = True

        def after_step(self, training: Training) -> None:
            assert training.held is not None
            dead = ~training.held.mask.keep["conv2.weight"]
            assert training.held.gradients["conv2.weight"][dead].abs().sum() > 0

    training = make(tmp_path, Looking(), mask=half(cnn()))
    training.run(1)
    kept, whole = training.ledger.kept_macs(training.mask), training.ledger.network.macs
    samples = training.ledger.samples
    assert training.ledger.sparse == pytest.approx(2 * samples * (2 * kept + whole))


def test_the_model_is_as_it_was(tmp_path: Path) -> None:
    training = make(tmp_path)
    before = training.model.fingerprint()
    training.run()
    assert training.model.fingerprint() == before
    after = training.trained(Event("train"))
    assert after.fingerprint() != before
    weights = dict(after.module().named_parameters())
    assert torch.equal(weights["conv1.weight"], training.weights()["conv1.weight"])


def test_rates_for_training_from_the_start() -> None:
    assert default_rate(FinetuneOptions()).learning_rate == 0.1
    assert default_rate(FinetuneOptions(optimizer="adamw")).learning_rate == 0.001
    assert default_rate(FinetuneOptions(learning_rate=0.3)).learning_rate == 0.3


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="imp needs --data"):
        make(tmp_path, data=None, title="imp")
    other = Mask({"conv1.weight": torch.ones(3, 3, dtype=torch.bool)}, About("by hand"))
    with pytest.raises(InputError, match=r"for another network: 'conv1.weight'"):
        make(tmp_path, mask=other)
    with pytest.raises(InputError, match="diverged"):
        make(tmp_path, options={"learning_rate": 1e30}).run()


def test_weights_that_the_last_step_broke_are_told(tmp_path: Path) -> None:
    wild = {"epochs": 1, "batch_size": 4096, "learning_rate": 1e38}
    with pytest.raises(InputError, match=r"diverged: .* after step 1; set a lower"):
        make(tmp_path, options=wild).run()
