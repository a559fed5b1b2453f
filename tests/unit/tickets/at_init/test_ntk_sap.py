# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.data import Data
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.at_init.inputs import gaussian, tables
from edgeprune.tickets.at_init.ntk_sap import EPSILON, Kernel
from edgeprune.tickets.at_init.steps import begin
from edgeprune.tickets.options import AtInitOptions, TicketOptions
from edgeprune.tickets.streams import generator
from tests.unit.finetune.toy import context
from tests.unit.tickets.at_init.nets import altered, full, mlp, model_of, run

SIZES = (6, 8, 4)
BATCH, SAMPLES = 64, 100


@pytest.fixture(scope="module")
def chain() -> Model:
    return model_of(mlp(SIZES), torch.zeros(2, 6))


def plain_scores(mask: Mask, seed: int, step: int) -> dict[str, Tensor]:
    """Algorithm 1 with gates as leaves of autograd: the same draws, another computation."""
    gates = {n: kept.double().requires_grad_() for n, kept in mask.keep.items()}
    apart = torch.zeros(()).double()
    for place, count in enumerate((BATCH, SAMPLES - BATCH)):
        random = generator(seed, "ntk-sap", step, place)
        weights, moved = {}, {}
        for name, gate in gates.items():
            drawn = torch.randn(gate.shape, generator=random) * (2 / gate.shape[1]) ** 0.5
            noise = torch.randn(gate.shape, generator=random) * EPSILON
            weights[name], moved[name] = drawn.double() * gate, (drawn + noise).double() * gate
        x = torch.randn((count, 6), generator=random).double()
        outputs = [F.relu(x @ w["0.weight"].T) @ w["2.weight"].T for w in (weights, moved)]
        apart = apart + (outputs[0] - outputs[1]).square().sum()
    found = torch.autograd.grad(apart, list(gates.values()))
    return {n: g.abs() * mask.keep[n] for n, g in zip(gates, found, strict=True)}


def scored(
    model: Model, mask: Mask, folder: Path, step: int = 0, seed: int = 3
) -> dict[str, Tensor]:
    train = FinetuneOptions(batch_size=BATCH, distill=0.0)
    options = TicketOptions(method="ntk-sap", train=train, at_init=AtInitOptions(samples=SAMPLES))
    where = context(folder, seed=seed)
    start = begin(model, options)
    return dict(Kernel.of(start, options, where).scores(mask, step, start.ledger))


def test_a_softmax_changes_no_score(chain: Model, tmp_path: Path) -> None:
    ended = model_of(torch.nn.Sequential(*mlp(SIZES), torch.nn.Softmax(1)), torch.zeros(2, 6))
    found = scored(ended, full(ended), tmp_path / "ended")
    torch.testing.assert_close(found, scored(chain, full(chain), tmp_path / "chain"))


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_scores_are_those_of_gates_in_autograd(
    chain: Model, tmp_path: Path, density: float
) -> None:
    random = torch.Generator().manual_seed(1)
    keep = {n: torch.rand(k.shape, generator=random) < density for n, k in full(chain).keep.items()}
    mask = Mask(keep, full(chain).about)
    found = scored(chain, mask, tmp_path, step=2)
    for name, wanted in plain_scores(mask, 3, 2).items():
        torch.testing.assert_close(found[name].double(), wanted, rtol=2e-2, atol=1e-6)
    assert all(not found[n][~k].any() for n, k in keep.items())


def test_the_finite_difference_is_the_trace_of_the_kernel(chain: Model) -> None:
    """E ||f(w) - f(w + d)||^2 / epsilon^2 = ||J||^2, over many perturbations."""
    random = torch.Generator().manual_seed(0)
    one = torch.randn((8, 6), generator=random).double() * (2 / 6) ** 0.5
    two = torch.randn((4, 8), generator=random).double() * (2 / 8) ** 0.5
    x = torch.randn((20, 6), generator=random).double()
    f = lambda a, b: F.relu(x @ a.T) @ b.T  # noqa: E731
    rows = torch.autograd.functional.jacobian(f, (one, two))
    exact = sum(float(row.square().sum()) for row in rows)
    apart = 0.0
    for _ in range(400):
        moves = [EPSILON * torch.randn(w.shape, generator=random).double() for w in (one, two)]
        apart += float((f(one, two) - f(one + moves[0], two + moves[1])).square().sum())
    assert apart / 400 / EPSILON**2 == pytest.approx(exact, rel=0.1)


def test_neither_weights_nor_statistics_nor_data_count(
    cnn: Model, images: Data, tmp_path: Path
) -> None:
    few = AtInitOptions(iterations=2, samples=40)
    first = run("ntk-sap", cnn, tmp_path, density=0.2, at_init=few)
    other = altered(cnn, lambda _, value: value * 2 + 1)
    second = run("ntk-sap", other, tmp_path, density=0.2, at_init=few, data=images)
    assert first.ticket.mask.same(second.ticket.mask)
    assert first.ticket.mask.hamming(
        run("ntk-sap", cnn, tmp_path, density=0.2, at_init=few, seed=1).ticket.mask
    )
    macs = first.ledger.network.macs
    assert first.ledger.dense == 2 * 40 * (2 + 2 * 6) * macs
    assert first.details == {
        "iterations": 2, "samples": 40, "epsilon": EPSILON, "collapsed": [],
        "effective_density": first.details["effective_density"],
    }  # fmt: skip


def test_batch_norms_hold_the_statistics_of_the_batch(cnn: Model, tmp_path: Path) -> None:
    options = TicketOptions(method="ntk-sap", at_init=AtInitOptions(samples=16))
    where = context(tmp_path)
    start = begin(cnn, options)
    kernel = Kernel.of(start, options, where)
    kernel.scores(full(cnn), 0, start.ledger)
    random = generator(0, "ntk-sap", 0, 0)
    weights, _ = kernel._draw(random)
    (x,) = gaussian(cnn, 16, random)
    first = F.conv2d(x, weights["conv1.weight"], padding=1)
    for module in (kernel.still, kernel.moved):
        held = dict(module.named_buffers())
        torch.testing.assert_close(held["bn1.running_mean"], first.mean((0, 2, 3)))
        torch.testing.assert_close(held["bn1.running_var"], first.var((0, 2, 3)))


def test_twenty_steps_keep_every_layer_alive(deep: Model, tmp_path: Path) -> None:
    found = run("ntk-sap", deep, tmp_path, density=0.002, at_init=AtInitOptions(samples=64))
    assert found.details["iterations"] == 20
    assert found.details["collapsed"] == []
    assert found.ticket.mask.kept == round(0.002 * found.ticket.mask.size)


def test_transformers_and_fixed_batches(
    bert: Model, vit: Model, fixed: Model, tmp_path: Path
) -> None:
    few = AtInitOptions(iterations=2, samples=6)
    for model in (bert, vit, fixed):
        found = run("ntk-sap", model, tmp_path, density=0.3, at_init=few)
        assert found.ticket.mask.density == pytest.approx(0.3, abs=0.03)
        assert found.details["samples"] == (8 if model is fixed else 6)
    assert list(tables(bert)) == ["ids"]
    (ids,) = gaussian(bert, 500, torch.Generator().manual_seed(0))
    assert (ids.dtype, int(ids.min()), int(ids.max())) == (torch.int64, 0, 99)
