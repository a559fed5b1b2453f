# SPDX-License-Identifier: Apache-2.0
"""SNIP and GraSP."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.data import Data, open_data
from edgeprune.errors import DataError, InputError
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.at_init.grasp import preservation
from edgeprune.tickets.at_init.snip import sensitivity
from edgeprune.tickets.at_init.steps import begin, probe_at, put, weights_of
from edgeprune.tickets.options import AtInitOptions, TicketOptions
from edgeprune.tickets.scores import Probe
from tests.unit.finetune.toy import context, data
from tests.unit.tickets.at_init.nets import ONE_BATCH, altered, full, mlp, model_of, run

TEMPERATURE = 3.0


class Flat(nn.Module):
    """Two layers on flattened digits, smooth, so that differences converge."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp((64, 5, 10), bias=True, activation=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1))


@pytest.fixture(scope="module")
def small() -> Model:
    return model_of(Flat(), torch.zeros(2, 1, 8, 8))


def probe_of(model: Model, images: Data, folder: Path, **train: object) -> Probe:
    options = TicketOptions(
        train=ONE_BATCH.model_copy(update=train), at_init=AtInitOptions(samples=60)
    )
    where = context(folder, data=images)
    return probe_at(begin(model, options), options, where)


def in_double(probe: Probe) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    weights = {n: w.double() for n, w in weights_of(probe.module).items()}
    batches = []
    for batch in probe.batches():
        assert batch.labels is not None
        batches.append((batch.inputs[0].double(), batch.labels))
    return weights, batches


def plain_loss(
    weights: dict[str, Tensor], batches: list[tuple[Tensor, Tensor]], temperature: float = 1.0
) -> Tensor:
    """The loss over all samples, written out."""
    x, y = (torch.cat(column) for column in zip(*batches, strict=True))
    hidden = torch.tanh(x.flatten(1) @ weights["body.0.weight"].T + weights["body.0.bias"])
    logits = hidden @ weights["body.2.weight"].T + weights["body.2.bias"]
    return F.cross_entropy(logits / temperature, y)


def test_snip_is_the_derivative_by_a_gate(small: Model, images: Data, tmp_path: Path) -> None:
    probe = probe_of(small, images, tmp_path, batch_size=16)
    scores = sensitivity(probe, full(small))
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(1, abs=1e-5)
    weights, batches = in_double(probe)
    slopes = {}
    for name, place in [("body.0.weight", (2, 20)), ("body.2.weight", (7, 1))]:
        both = []
        for gate in (1 + 1e-5, 1 - 1e-5):
            gated = weights[name].clone()
            gated[place] *= gate
            both.append(plain_loss({**weights, name: gated}, batches))
        slopes[name, place] = abs(float(both[0] - both[1])) / 2e-5
    (one, a), (two, b) = slopes.items()
    ratio = float(scores[one[0]][one[1]]) / float(scores[two[0]][two[1]])
    assert ratio == pytest.approx(a / b, rel=1e-3)


def flow(weights: dict[str, Tensor], batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The squared norm of the gradient of the two weight matrices."""
    leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
    covered = [leaves["body.0.weight"], leaves["body.2.weight"]]
    found = torch.autograd.grad(plain_loss(leaves, batches, TEMPERATURE), covered)
    return torch.stack([g.square().sum() for g in found]).sum()


def test_grasp_is_the_change_of_the_gradients_norm(
    small: Model, images: Data, tmp_path: Path
) -> None:
    """Against the gradient of the norm by autograd twice, and against its finite differences."""
    probe = probe_of(small, images, tmp_path, batch_size=16)
    scores = preservation(probe, full(small), TEMPERATURE)
    weights, batches = in_double(probe)
    leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
    names = ["body.0.weight", "body.2.weight"]
    covered = [leaves[n] for n in names]
    first = torch.autograd.grad(
        plain_loss(leaves, batches, TEMPERATURE), covered, create_graph=True
    )
    norm = torch.stack([g.square().sum() for g in first]).sum()
    second = torch.autograd.grad(norm, covered)
    expected = {n: w.detach() * s / 2 for n, w, s in zip(names, covered, second, strict=True)}
    total = sum(float(e.abs().sum()) for e in expected.values())
    for name in names:
        torch.testing.assert_close(
            scores[name].double(), expected[name] / total, rtol=1e-3, atol=1e-6
        )
    name, place = "body.2.weight", (3, 2)
    gates = []
    for gate in (1 + 1e-4, 1 - 1e-4):
        gated = weights[name].clone()
        gated[place] *= gate
        gates.append(flow({**weights, name: gated}, batches))
    slope = float(gates[0] - gates[1]) / 2e-4 / 2  # of half the norm, as the gate opens
    assert float(scores[name][place]) * total == pytest.approx(slope, rel=1e-3)


def test_grasp_keeps_the_weights_whose_removal_costs_the_gradient_most(
    small: Model, images: Data, tmp_path: Path
) -> None:
    probe = probe_of(small, images, tmp_path)
    scores = preservation(probe, full(small), TEMPERATURE)["body.2.weight"].flatten()
    weights, batches = in_double(probe)
    before = float(flow(weights, batches))

    def after(place: int) -> float:
        """Shrunk, not removed: the score is of first order."""
        less = weights["body.2.weight"].clone()
        less.view(-1)[place] *= 0.95
        return float(flow({**weights, "body.2.weight": less}, batches))

    order = scores.argsort()
    assert after(int(order[-1])) < before < after(int(order[0]))
    found = run(
        "grasp", small, tmp_path, data=images, density=0.3, train=ONE_BATCH,
        at_init=AtInitOptions(samples=60, temperature=TEMPERATURE),
    )  # fmt: skip
    kept = found.ticket.mask.keep["body.2.weight"].flatten()
    assert bool(kept[order[-1]])
    assert not bool(kept[order[0]])


def test_the_temperature_matters_to_grasp(small: Model, images: Data, tmp_path: Path) -> None:
    probe = probe_of(small, images, tmp_path)
    hot, cold = (preservation(probe, full(small), t)["body.0.weight"] for t in (200.0, 0.2))
    assert not torch.allclose(hot, cold, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_iterations_score_the_pruned_network_again(
    small: Model, images: Data, tmp_path: Path, method: str
) -> None:
    masks = []
    for iterations in (1, 4):
        found = run(
            method, small, tmp_path, data=images, density=0.1, train=ONE_BATCH,
            at_init=AtInitOptions(samples=60, iterations=iterations),
        )  # fmt: skip
        assert found.ticket.mask.kept == round(0.1 * (64 * 5 + 5 * 10))
        assert found.details["iterations"] == iterations
        assert any("scored again" in note for note in found.notes) == (iterations > 1)
        masks.append(found.ticket.mask)
    assert masks[0].hamming(masks[1]) > 0


def test_a_second_step_of_snip_is_the_score_of_the_masked_weights(
    small: Model, images: Data, tmp_path: Path
) -> None:
    probe = probe_of(small, images, tmp_path)
    mask = full(small)
    every_other = {
        name: torch.arange(kept.numel()).reshape(kept.shape) % 2 == 0
        for name, kept in mask.keep.items()
    }
    half = Mask(every_other, mask.about)
    put(probe.module, weights_of(probe.module), half)
    scores = sensitivity(probe, half)
    weights, batches = in_double(probe)
    leaf = weights["body.0.weight"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        plain_loss({**weights, "body.0.weight": leaf}, batches), [leaf]
    )
    expected = (gradient * leaf).abs().detach()
    found = scores["body.0.weight"].double()
    torch.testing.assert_close(found / found.sum(), expected / expected.sum(), rtol=1e-3, atol=1e-7)
    assert not found[~half.keep["body.0.weight"]].any()


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_batch_norms_take_the_statistics_of_the_batch(
    cnn: Model, images: Data, tmp_path: Path, method: str
) -> None:
    """As in training: what the running statistics are doesn't matter."""
    model = cnn
    options = {"data": images, "density": 0.3, "train": ONE_BATCH}
    before = model.fingerprint()
    first = run(method, model, tmp_path, **options)
    moved = altered(model, lambda n, value: 3 * value + 0.5 if "running" in n else value)
    assert run(method, moved, tmp_path, **options).ticket.mask.same(first.ticket.mask)
    assert model.fingerprint() == before


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_transformers_and_fixed_batches(
    bert: Model, fixed: Model, tmp_path: Path, method: str
) -> None:
    options = {"density": 0.2, "at_init": AtInitOptions(samples=6)}
    found = run(method, bert, tmp_path, data=data("tokens"), **options)
    assert found.ticket.mask.density == pytest.approx(0.2, rel=1e-3)
    assert 0 < found.details["effective_density"] <= found.ticket.mask.density
    few = run(method, fixed, tmp_path, data=open_data(f"{__name__}:rows", seed=0), **options)
    assert few.ticket.mask.kept == round(0.2 * 18)
    assert few.details["samples"] == 6


def rows() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    return {"x": x, "y": np.arange(20) % 3}


def test_costs_are_counted(small: Model, images: Data, tmp_path: Path) -> None:
    options = {"data": images, "train": ONE_BATCH, "at_init": AtInitOptions(samples=60)}
    macs = 64 * 5 + 5 * 10
    assert run("snip", small, tmp_path, **options).ledger.dense == 60 * 6 * macs
    grasp = run("grasp", small, tmp_path, **options).ledger
    assert (grasp.dense, grasp.steps) == (3 * 60 * 6 * macs, 0)


def test_the_last_single_sample_of_a_batch_is_left_out(
    cnn: Model, images: Data, tmp_path: Path
) -> None:
    found = run(
        "snip", cnn, tmp_path, data=images, at_init=AtInitOptions(samples=9),
        train=FinetuneOptions(batch_size=4, distill=0.0),
    )  # fmt: skip
    assert found.details["samples"] == 8


def test_bad_input(small: Model, images: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="snip needs --data"):
        run("snip", small, tmp_path)
    nothing = altered(small, lambda _, value: torch.zeros_like(value))
    with pytest.raises(InputError, match="grasp: all scores are zero"):
        run("grasp", nothing, tmp_path, data=images)
