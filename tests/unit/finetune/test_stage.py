# SPDX-License-Identifier: Apache-2.0
import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeprune.errors import DataError, InputError
from edgeprune.finetune import finetune
from edgeprune.model import Event
from edgeprune.recipe import FinetuneOptions
from tests.networks import TinyBert
from tests.unit.finetune.toy import FixedBatch, TwoOutputs, captured, cnn, context, data, vectors

QUICK = FinetuneOptions(epochs=2, batch_size=16)


class Watch:
    """A progress that remembers."""

    def __init__(self):
        self.total, self.steps, self.figures = 0, 0, {}

    @contextmanager
    def bar(self, title, total):
        assert title == "fine-tune"
        self.total = total
        yield self

    def say(self, text):
        pass

    def advance(self, steps=1, **figures):
        self.steps += steps
        self.figures = figures or self.figures


def weights(model):
    return model.program.state_dict


def equal(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_from_labels(tmp_path):
    watch, model = Watch(), cnn(width=8)
    before = {name: tensor.clone() for name, tensor in weights(model).items()}
    options = FinetuneOptions(epochs=12, batch_size=16, learning_rate=0.1)
    new, report = finetune(model, options, context(tmp_path, data=data(), progress=watch))
    epochs = report.details["epochs"]
    assert [entry["epoch"] for entry in epochs] == list(range(13))
    assert epochs[-1]["holdout_loss"] < 0.6 * epochs[0]["holdout_loss"]
    assert epochs[-1]["train_score"] > 60
    assert report.details["metric"] == "accuracy"
    assert report.notes[0] == "loss: 1 x cross-entropy to the labels"
    assert watch.steps == watch.total == report.details["steps"]
    assert watch.figures.keys() == {"loss", "accuracy"}
    assert watch.figures["loss"] == pytest.approx(epochs[-1]["train_loss"])
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    assert not equal(model, new)
    event = new.history[-1]
    assert (event.stage, event.options["epochs"], event.facts["epochs"]) == ("finetune", 12, 12)


def test_figures_are_of_the_kept_epoch_and_measured(tmp_path):
    _, report = finetune(cnn(), QUICK, context(tmp_path, data=data()))
    last = report.details["epochs"][-1]
    assert report.figures.keys() == {"train_loss", "holdout_loss", "holdout_score"}
    for name, figure in report.figures.items():
        assert figure.value == last[name]
        assert figure.origin.kind == "measured"
    score = report.figures["holdout_score"]
    assert score.low <= score.value <= score.high
    assert score.origin.runs == last["holdout_samples"] == data().sizes["holdout"]


def test_the_held_out_figures_are_those_of_the_model_that_is_given_back(tmp_path):
    given = data()
    new, report = finetune(cnn(), QUICK, context(tmp_path, data=given))
    batch = next(given.holdout(1000))
    with torch.no_grad():
        outputs = new.module()(*batch.inputs)
    loss = torch.nn.functional.cross_entropy(outputs, batch.labels).item()
    assert report.figures["holdout_loss"].value == pytest.approx(loss, rel=1e-5)
    right = (outputs.argmax(1) == batch.labels).float().mean().item()
    assert report.figures["holdout_score"].value == pytest.approx(100 * right)


def test_equal_runs_give_equal_models_and_another_seed_another(tmp_path):
    def run(name, seed):
        return finetune(cnn(), QUICK, context(tmp_path / name, data=data(), seed=seed))[0]

    first, torch_state = run("a", 0), torch.get_rng_state()
    assert equal(first, run("b", 0))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert not equal(first, run("c", 1))


def test_it_learns_from_the_dense_model_alone(tmp_path):
    dense, _ = finetune(
        cnn(1, width=8),
        FinetuneOptions(epochs=8, batch_size=16, learning_rate=0.1),
        context(tmp_path / "dense", data=data()),
    )
    surroundings = context(tmp_path, data=data("unlabelled"), dense=dense)
    options = FinetuneOptions(epochs=8, batch_size=16, learning_rate=0.1)
    _, report = finetune(cnn(width=8), options, surroundings)
    epochs = report.details["epochs"]
    assert epochs[-1]["holdout_loss"] < 0.7 * epochs[0]["holdout_loss"]
    assert report.details["metric"] is None  # ten outputs without labels may be anything
    text = "squared error in units of the variance"
    assert report.notes == (f"loss: 1 x distillation from the dense model ({text})",)


def test_outputs_without_classes_are_matched(tmp_path):
    torch.manual_seed(0)
    dense = captured(TwoOutputs(8), torch.zeros(2, 6))
    student = captured(TwoOutputs(6), torch.zeros(2, 6))
    options = FinetuneOptions(epochs=10, batch_size=8, optimizer="adamw", learning_rate=0.03)
    watch = Watch()
    surroundings = context(tmp_path, data=data("vectors"), dense=dense, progress=watch)
    new, report = finetune(student, options, surroundings)
    epochs = report.details["epochs"]
    assert epochs[-1]["holdout_loss"] < 0.3 * epochs[0]["holdout_loss"]
    text = "1 x distillation from the dense model (squared error in units of the variance)"
    assert report.notes == (f"loss: output 0: {text}; output 1: {text}",)
    assert report.details["metric"] is None
    assert watch.figures.keys() == {"loss"}
    x = torch.from_numpy(vectors()["x"])
    with torch.no_grad():
        pairs = zip(new.module()(x), dense.module()(x), strict=True)
        assert all((a - b).abs().mean() < 0.3 for a, b in pairs)


def test_token_models_are_trained_too(tmp_path):
    torch.manual_seed(0)
    model = captured(TinyBert(), torch.zeros(2, 16, dtype=torch.long))
    options = FinetuneOptions(epochs=4, batch_size=8, optimizer="adamw", learning_rate=0.003)
    new, report = finetune(model, options, context(tmp_path, data=data("tokens")))
    losses = [entry["train_loss"] for entry in report.details["epochs"][1:]]
    assert losses[-1] < losses[0]
    assert not equal(model, new)


def test_patience_stops_early_and_keeps_the_best_epoch(tmp_path, monkeypatch):
    kept = []
    losses = iter([9.0, 3.0, 2.0, 2.5, 2.1])

    def held_out(module, batches, loss, after_batch):
        kept.append({n: t.detach().clone() for n, t in module.named_parameters()})
        totals = real(module, batches, loss, after_batch)
        totals.loss = next(losses) * totals.samples
        return totals

    from edgeprune.finetune import run

    real = run.evaluate
    monkeypatch.setattr(run, "evaluate", held_out)
    options = FinetuneOptions(epochs=9, batch_size=32, patience=2)
    new, report = finetune(cnn(), options, context(tmp_path, data=data()))
    assert len(kept) == 5
    assert report.details["kept_epoch"] == new.history[-1].facts["kept_epoch"] == 2
    assert report.figures["holdout_loss"].value == pytest.approx(2.0)
    assert "stopped after epoch 4 of 9: no better held-out loss" in report.notes
    assert "kept the weights of epoch 2, the best held-out loss" in report.notes
    assert all(torch.equal(weights(new)[name], tensor) for name, tensor in kept[2].items())
    assert not torch.equal(kept[2]["head.weight"], kept[4]["head.weight"])


@pytest.mark.parametrize("patience", [None, 1])
def test_training_that_does_harm_is_undone_and_told(tmp_path, patience):
    model, _ = finetune(
        cnn(width=8),
        FinetuneOptions(epochs=12, batch_size=16, learning_rate=0.1),
        context(tmp_path / "first", data=data()),
    )
    harm = FinetuneOptions(epochs=1, batch_size=64, learning_rate=3.0, warmup=0, patience=patience)
    same, report = finetune(model, harm, context(tmp_path, data=data()))
    assert report.details["kept_epoch"] == same.history[-1].facts["kept_epoch"] == 0
    assert equal(model, same)
    before, after = (entry["holdout_loss"] for entry in report.details["epochs"])
    assert after > before
    assert report.figures["holdout_loss"].value == before
    assert any(note.startswith("kept the weights from before") for note in report.notes)


def test_the_evaluation_part_is_never_touched(tmp_path):
    class Untouchable:
        labels = np.zeros(5, np.int64)

        def __len__(self):
            return 5

        def take(self, rows):
            raise AssertionError("evaluation data was read")

    given = replace(data(), evaluating=Untouchable())
    options = FinetuneOptions(epochs=1, batch_size=32, patience=1)
    finetune(cnn(), options, context(tmp_path, data=given))


def test_no_held_out_part(tmp_path):
    given = data()
    given = replace(given, holding=given.holding.load(np.arange(0), keep=True, progress=None))
    _, report = finetune(cnn(), QUICK, context(tmp_path, data=given))
    assert report.figures.keys() == {"train_loss"}
    assert "holdout_loss" not in report.details["epochs"][0]
    with pytest.raises(DataError, match="patience needs a held-out part"):
        finetune(cnn(), FinetuneOptions(patience=1), context(tmp_path, data=given))


@pytest.mark.parametrize(
    ("options", "given", "note"),
    [
        (FinetuneOptions(), None, "no data: not fine-tuned"),
        (FinetuneOptions(epochs=0), "images", "0 epochs: not fine-tuned"),
    ],
)
def test_nothing_to_do_gives_the_same_model(tmp_path, options, given, note):
    model = cnn()
    same, report = finetune(model, options, context(tmp_path, data=given and data(given)))
    assert same is model
    assert report.notes == (note,)
    assert report.figures == {}
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_is_used_and_told(tmp_path):
    torch.manual_seed(0)
    model = captured(FixedBatch(), torch.zeros(4, 6))
    dense = captured(FixedBatch(), torch.zeros(4, 6))
    assert not model.dynamic_batch
    given = data("vectors")
    samples = given.sizes["train"]
    assert samples % 4
    assert given.sizes["holdout"] % 4
    options = FinetuneOptions(epochs=3, batch_size=8)
    new, report = finetune(model, options, context(tmp_path, data=given, dense=dense))
    left = f"; {samples % 4} of {samples} samples left out in each epoch"
    assert f"trained with the model's fixed batch of 4, not 8{left}" in report.notes
    assert report.details["steps"] == 3 * (samples // 4)
    assert report.details["learning_rate"] == 0.01
    assert report.figures["holdout_loss"].origin.runs == given.sizes["holdout"]
    assert not torch.equal(weights(new)["norm.running_mean"], weights(model)["norm.running_mean"])


def test_batches_of_one_leave_norms_in_eval_mode(tmp_path):
    model = cnn()
    options = FinetuneOptions(epochs=1, batch_size=1)
    new, report = finetune(model, options, context(tmp_path, data=data()))
    assert "batches of one sample: batch norm and dropout stay in eval mode" in report.notes
    assert torch.equal(weights(new)["bn1.running_var"], weights(model)["bn1.running_var"])
    assert not torch.equal(weights(new)["bn1.weight"], weights(model)["bn1.weight"])


def test_a_batch_norm_that_never_moves_is_told(tmp_path):
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(6, momentum=None), torch.nn.Linear(6, 3))
    model = captured(network, torch.zeros(2, 6))
    surroundings = context(tmp_path, data=data("vectors"), dense=model)
    _, report = finetune(model, QUICK, surroundings)
    assert "1 of 1 batch norms have momentum 0: their running statistics stay" in report.notes


def test_divergence_stops_with_one_line(tmp_path):
    options = FinetuneOptions(epochs=3, batch_size=16, learning_rate=1e30, warmup=0.0)
    with pytest.raises(InputError, match=r"diverged: .* set a lower learning_rate") as caught:
        finetune(cnn(), options, context(tmp_path, data=data()))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_weights_that_only_fail_in_eval_mode_are_found(tmp_path, monkeypatch):
    from edgeprune.finetune import run

    monkeypatch.setattr(run, "evaluate", lambda *_: run.Totals(math.inf, 1))
    with pytest.raises(InputError, match="the held-out loss is inf after epoch 0"):
        finetune(cnn(), QUICK, context(tmp_path, data=data()))


def test_a_quantized_model_is_refused(tmp_path):
    model = cnn()
    model = model.evolve(model.program, Event("quantize"), "int8")
    with pytest.raises(InputError, match=r"the model is quantized \(int8\)"):
        finetune(model, QUICK, context(tmp_path, data=data()))


def test_data_of_another_shape_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"takes x: torch.float32 \(batch, 1, 8, 8\), but the data"):
        finetune(cnn(), QUICK, context(tmp_path, data=data("vectors")))


def test_too_few_samples_for_a_fixed_batch(tmp_path):
    given = data("vectors")
    few = replace(given, training=given.training.load(np.arange(3), keep=True, progress=None))
    model = captured(FixedBatch(), torch.zeros(4, 6))
    with pytest.raises(DataError, match="has 3 samples, too few for a batch of 4"):
        finetune(model, QUICK, context(tmp_path, data=few, dense=model))


def test_different_fixed_batches_are_refused(tmp_path):
    class Eight(FixedBatch):
        def forward(self, x):
            return self.head(self.norm(x.reshape(8, 6)))

    model = captured(FixedBatch(), torch.zeros(4, 6))
    dense = captured(Eight(), torch.zeros(8, 6))
    with pytest.raises(InputError, match=r"different fixed batches: \[4, 8\]"):
        finetune(model, QUICK, context(tmp_path, data=data("vectors"), dense=dense))
