# SPDX-License-Identifier: Apache-2.0
"""What weights are worth: each formula against a plain computation of it."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.data import Batch
from edgeprune.errors import DataError
from edgeprune.mask import About, Mask, look
from edgeprune.model import Model
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import AtInitOptions, TicketOptions
from edgeprune.tickets.scores import (
    Probe,
    fisher,
    magnitude,
    movement,
    random,
    saliency,
    score,
)
from tests.unit.finetune.toy import cnn, context, data

SAMPLES = 50  # in batches of 16: the last has two


@pytest.fixture(scope="module")
def model() -> Model:
    return cnn()


def make(model: Model, folder: Path) -> Probe:
    options = TicketOptions(
        at_init=AtInitOptions(samples=SAMPLES), train=FinetuneOptions(batch_size=16, distill=0.0)
    )
    return Probe.of(model, options, context(folder, data=data(), seed=4), Ledger(look(model)))


def plain(model: Model, batch: Batch) -> dict[str, Tensor]:
    """The gradient of the mean cross-entropy, by ``backward``."""
    module = model.module()
    assert batch.labels is not None
    F.cross_entropy(module(*batch.inputs), batch.labels).backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def test_formulas_by_hand() -> None:
    weights = {"w": torch.tensor([[2.0, -3.0], [0.5, 0.0]])}
    gradients = {"w": torch.tensor([[-1.0, 2.0], [4.0, 9.0]])}
    assert magnitude(weights)["w"].tolist() == [[2, 3], [0.5, 0]]
    assert saliency(weights, gradients)["w"].tolist() == [[2, 6], [2, 0]]
    squared = {"w": gradients["w"] ** 2}
    assert fisher(weights, squared)["w"].tolist() == [[2, 18], [2, 0]]
    once = movement({"w": torch.zeros(2, 2)}, weights, gradients)
    assert once["w"].tolist() == [[2, 6], [-2, 0]]
    twice = movement(once, {"w": torch.ones(2, 2)}, gradients)
    assert twice["w"].tolist() == [[3, 4], [-6, -9]]


def test_movement_rewards_leaving_zero() -> None:
    """Gradient descent makes a positive weight with a negative gradient larger."""
    weights, gradients = (
        {"w": torch.tensor([1.0, -1.0, 1.0])},
        {"w": torch.tensor([-1.0, 1.0, 1.0])},
    )
    moved = movement({"w": torch.zeros(3)}, weights, gradients)["w"]
    grows = (weights["w"] - 0.1 * gradients["w"]).abs() > weights["w"].abs()
    assert torch.equal(moved > 0, grows)


def test_random_scores_have_a_stream_of_their_own_a_layer(model: Model) -> None:
    network = look(model)
    first, again, other = random(network, 0), random(network, 0), random(network, 1)
    fewer = random(look(model, exclude=["conv1.weight"]), 0)
    for layer in network.layers:
        assert torch.equal(first[layer.name], again[layer.name])
        assert not torch.equal(first[layer.name], other[layer.name])
        assert layer.name == "conv1.weight" or torch.equal(fewer[layer.name], first[layer.name])
    values = torch.cat([s.flatten() for s in first.values()])
    assert len(values.unique()) == len(values)


def test_gradients_are_those_of_the_mean_loss_over_all_samples(
    model: Model, tmp_path: Path
) -> None:
    probe = make(model, tmp_path)
    found = probe.gradients()
    whole = next(iter(probe.batches(SAMPLES)))
    expected = plain(model, whole)
    assert len(whole) == SAMPLES
    assert set(found) == {layer.name for layer in probe.ledger.network.layers}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in probe.module.parameters())
    assert probe.ledger.dense == 2 * 3 * SAMPLES * probe.ledger.network.macs
    assert probe.ledger.steps == 0
    assert probe.ledger.seconds > 0


def test_squared_gradients_are_the_mean_over_single_samples(model: Model, tmp_path: Path) -> None:
    probe = make(model, tmp_path)
    found = probe.squared_gradients()
    each = [plain(model, batch) for batch in probe.batches(1)]
    assert len(each) == SAMPLES
    for name, squared in found.items():
        expected = torch.stack([one[name] for one in each]).square().mean(0)
        torch.testing.assert_close(squared, expected, atol=1e-7, rtol=1e-4)
        assert (squared >= probe.gradients()[name].square() - 1e-7).all()  # Jensen


def test_each_criterion_is_its_formula(model: Model, tmp_path: Path) -> None:
    probe, network = make(model, tmp_path), look(model)
    weights = {layer.name: model.program.state_dict[layer.name] for layer in network.layers}
    expected = {
        "magnitude": magnitude(weights),
        "random": random(network, 7),
        "saliency": saliency(weights, probe.gradients()),
        "fisher": fisher(weights, probe.squared_gradients()),
    }
    for criterion, scores in expected.items():
        found = score(criterion, model.program.state_dict, network, 7, lambda: probe)  # type: ignore[arg-type]
        assert found.keys() == scores.keys()
        assert all(torch.equal(found[name], scores[name]) for name in scores)
    with pytest.raises(ValueError, match="movement"):
        score("movement", weights, network, 7, lambda: probe)


def test_first_order_saliency_is_what_the_loss_loses(model: Model, tmp_path: Path) -> None:
    probe = make(model, tmp_path)
    scores = saliency(model.program.state_dict, probe.gradients())["head.weight"]
    batch = next(iter(probe.batches(SAMPLES)))
    module = model.module()
    before = probe.loss(module, batch).loss.item()
    head = dict(module.named_parameters())["head.weight"]
    place = divmod(int(scores.argmax()), head.shape[1])
    with torch.no_grad():
        head[place] *= 0.99
    change = (probe.loss(module, batch).loss.item() - before) / 0.01
    assert abs(change) == pytest.approx(scores.max().item(), rel=0.05)


def test_a_mask_makes_a_gradient_cheaper(model: Model, tmp_path: Path) -> None:
    probe = make(model, tmp_path)
    shapes = {layer.name: layer.shape for layer in probe.ledger.network.layers}
    none = Mask({n: torch.zeros(s, dtype=torch.bool) for n, s in shapes.items()}, About("none"))
    probe.gradients(none)
    assert probe.ledger.dense == 2 * 3 * SAMPLES * probe.ledger.network.macs
    assert probe.ledger.sparse == 2 * 3 * SAMPLES * probe.ledger.network.fixed


def test_without_data_there_is_no_gradient(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one-shot needs --data"):
        Probe.of(model, TicketOptions(method="one-shot"), context(tmp_path), Ledger(look(model)))
