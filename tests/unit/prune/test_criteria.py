# SPDX-License-Identifier: Apache-2.0
"""Each criterion against a plain computation over the network's own modules."""

import copy
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.channels import analyse
from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.model import Event, Model, capture
from edgeprune.prune.criteria import CRITERIA, Samples, Scores, Subject
from edgeprune.recipe import Importance
from edgeprune.tasks import Classes, Kind, Values
from tests import networks
from tests.unit.channels.graphs import captured

LABELLED, UNLABELLED = Classes(1, (10,), labelled=True), Classes(1, (10,))


def one(rank: int) -> Kind:
    """Values of unit variance."""
    return Values(np.ones((1,) * rank))


def scored(
    name: str, model: Model, data: Sequence[Batch] = (), kinds: Sequence[Kind] = (), seed: int = 0
) -> Scores:
    """The scores of all channels."""
    samples = Samples(iter(data), kinds, sum(map(len, data))) if data else None
    return CRITERIA[name].score(Subject(model, analyse(model), seed=seed, samples=samples))


def test_a_recipe_names_each_criterion() -> None:
    assert get_args(Importance) == tuple(CRITERIA)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(3)
    return networks.DigitsCnn(8).eval()


@pytest.fixture(scope="module")
def model(network):
    return captured(network, torch.randn(2, 1, 8, 8))


def by_name(groups, name: str):
    return next(g for g in groups.groups if g.name == name).channels


def rows_of_conv3(network: nn.Module) -> Tensor:
    """The weights of each of its channels; a bias is none."""
    return torch.cat([network.conv3.weight.flatten(1), network.head.weight.T], 1).detach()


def test_magnitudes_of_conv3(network, model) -> None:
    rows, mine = rows_of_conv3(network), by_name(analyse(model), "conv3")
    np.testing.assert_allclose(scored("l1", model)[mine], rows.abs().sum(1), rtol=1e-5)
    np.testing.assert_allclose(scored("l2", model)[mine], rows.norm(dim=1), rtol=1e-5)


def test_biases_of_norms_do_not_count(network, model) -> None:
    twin = copy.deepcopy(network)
    nn.init.uniform_(twin.bn1.bias, 5, 9)
    nn.init.uniform_(twin.conv3.bias, 5, 9)
    other, _ = capture(twin, (torch.randn(2, 1, 8, 8),), event=Event("capture"))
    for name in ("l1", "l2", "lamp", "fpgm"):
        assert (scored(name, other) == scored(name, model)).all(), name


def test_lamp_divides_by_what_is_left(network, model) -> None:
    squares = rows_of_conv3(network).square().sum(1).numpy()
    expected = [s / squares[squares >= s].sum() for s in squares]
    found = scored("lamp", model)[by_name(analyse(model), "conv3")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fpgm_adds_up_distances(network, model) -> None:
    rows = rows_of_conv3(network).numpy().astype(float)
    expected = [sum(np.linalg.norm(a - b) for b in rows) for a in rows]
    found = scored("fpgm", model)[by_name(analyse(model), "conv3")]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_batch_norm_scale_and_its_absence(network, model) -> None:
    groups = analyse(model)
    scores = scored("bn-scale", model)
    expected = network.bn1.weight.abs() + network.bn2.weight.abs()
    np.testing.assert_allclose(scores[by_name(groups, "conv1")], expected.detach(), rtol=1e-5)
    assert np.isnan(scores[by_name(groups, "conv3")]).all()


def batches(count: int, labelled: bool) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            (torch.randn(4, 1, 8, 8, generator=generator),),
            torch.randint(0, 10, (4,), generator=generator) if labelled else None,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("labelled", [True, False])
def test_taylor(network, model, labelled: bool) -> None:
    groups = analyse(model)
    data = batches(3, labelled)
    expected = []
    for batch in data:
        twin = copy.deepcopy(network)
        out = twin(*batch.inputs)
        labels = batch.labels if labelled else out.argmax(1)
        F.cross_entropy(out, labels).backward()
        products = {n: (p * p.grad).detach() for n, p in twin.named_parameters()}
        line = (
            products["conv3.weight"].sum((1, 2, 3))
            + products["conv3.bias"]
            + products["head.weight"].sum(0)
        )
        expected.append(line**2)
    kind = LABELLED if labelled else UNLABELLED
    scores = scored("taylor", model, data, [kind])
    np.testing.assert_allclose(
        scores[by_name(groups, "conv3")], torch.stack(expected).mean(0), rtol=1e-4
    )


def gradients(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Weight times gradient of all parameters."""
    twin = copy.deepcopy(network)
    F.cross_entropy(twin(*batch.inputs), batch.labels).backward()
    return {n: (p * p.grad).detach() for n, p in twin.named_parameters()}


def test_taylor_abs_adds_up_sizes_without_biases(network, model) -> None:
    data = batches(3, True)
    found = [gradients(network, batch) for batch in data]
    expected = torch.stack(
        [g["conv3.weight"].abs().sum((1, 2, 3)) + g["head.weight"].abs().sum(0) for g in found]
    )
    scores = scored("taylor-abs", model, data, [LABELLED])[by_name(analyse(model), "conv3")]
    np.testing.assert_allclose(scores, expected.mean(0), rtol=1e-4)


def test_fisher_is_half_the_squares_of_one_sample(network, model) -> None:
    """In batches of one it is exact."""
    (batch,) = batches(1, True)
    data = [Batch((batch.inputs[0][i : i + 1],), batch.labels[i : i + 1]) for i in range(4)]
    expected = torch.zeros(16)
    for batch in data:
        g = gradients(network, batch)
        squares = g["conv3.weight"].square().sum((1, 2, 3)) + g["conv3.bias"].square()
        expected += (squares + g["head.weight"].square().sum(0)) / 2 / len(data)
    scores = scored("fisher", model, data, [LABELLED])[by_name(analyse(model), "conv3")]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def pooled(network: nn.Module, data: Sequence[Batch]) -> Tensor:
    """What the head reads."""
    found: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.no_grad():
        for batch in data:
            network(*batch.inputs)
    handle.remove()
    return torch.cat(found)


def test_wanda_and_apoz_of_what_the_head_reads(network, model) -> None:
    data, mine = batches(3, False), by_name(analyse(model), "conv3")
    x = pooled(network, data)
    expected = network.head.weight.detach().abs().sum(0) * x.square().mean(0).sqrt()
    np.testing.assert_allclose(scored("wanda", model, data)[mine], expected, rtol=1e-4)
    np.testing.assert_allclose(scored("apoz", model, data)[mine], (x > 0).float().mean(0))


def test_taylor_predicts_the_loss_of_a_small_change(network, model) -> None:
    """Its square root is the change of the loss, to first order, when a channel fades a little."""
    groups = analyse(model)
    (batch,) = batches(1, True)
    scores = scored("taylor", model, [batch], [LABELLED])
    channel = 2
    twin, step = copy.deepcopy(network), 1e-3

    def loss() -> float:
        with torch.no_grad():
            return float(F.cross_entropy(twin(*batch.inputs), batch.labels))

    before = loss()
    with torch.no_grad():
        twin.conv3.weight[channel] *= 1 - step
        twin.conv3.bias[channel] *= 1 - step
        twin.head.weight[:, channel] *= 1 - step
    change = abs(loss() - before) / step
    assert change == pytest.approx(scores[by_name(groups, "conv3")[channel]] ** 0.5, rel=0.1)


class Squeezed(nn.Module):
    """The digits network with something after it."""

    def __init__(self, after) -> None:
        super().__init__()
        self.net, self.after = networks.DigitsCnn(8), after

    def forward(self, x):
        return self.after(self.net(x))


def test_taylor_of_probabilities_is_that_of_their_logits(network, model) -> None:
    data = batches(2, True)
    expected = scored("taylor", model, data, [LABELLED])
    example = (torch.randn(2, 1, 8, 8),)
    ended, _ = capture(nn.Sequential(network, nn.Softmax(1)), example, event=Event("capture"))
    scores = scored("taylor", ended, data, [LABELLED])
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_taylor_looks_at_all_outputs() -> None:
    """The layers behind the second of two outputs have scores as well."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 8), nn.Linear(6, 8)
            self.first, self.second = nn.Linear(8, 3), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.first(self.one(x).relu()), self.second(self.other(x).relu())

    torch.manual_seed(0)
    changed = captured(Two().eval(), torch.randn(2, 6))
    groups, batch = analyse(changed), Batch((torch.randn(16, 6),), None)
    scores = scored("taylor", changed, [batch], [one(2), one(2)])
    for group in groups.groups:
        assert scores[group.channels].any(), group.name


def test_taylor_names_a_label_that_is_no_class(model) -> None:
    batch = Batch(batches(1, False)[0].inputs, torch.tensor([0, 1, 12, 3]))
    with pytest.raises(DataError, match=r"label 12 is outside 0..9"):
        scored("taylor", model, [batch], [LABELLED])


def test_taylor_tells_of_an_index_outside_its_table() -> None:
    ids = nn.Sequential(nn.Embedding(5, 8), nn.Flatten(), nn.Linear(16, 3)).eval()
    changed = captured(ids, torch.zeros(2, 2, dtype=torch.int64))
    batch = Batch((torch.full((2, 2), 7),), None)
    with pytest.raises(DataError, match="token id"):
        scored("taylor", changed, [batch], [UNLABELLED])


def test_taylor_says_that_decisions_have_no_gradient() -> None:
    changed = captured(Squeezed(lambda y: y.argmax(1)).eval(), torch.randn(2, 1, 8, 8))
    with pytest.raises(InputError, match="use l1, l2 or bn-scale"):
        scored("taylor", changed, batches(1, True), [Classes(None)])


def test_random_depends_on_the_seed_alone(model) -> None:
    assert (scored("random", model, seed=1) == scored("random", model, seed=1)).all()
    assert (scored("random", model, seed=1) != scored("random", model, seed=2)).any()


class DeadHalf(nn.Module):
    """Every second channel of a normed convolution gives zero, though its filter is long."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = nn.Conv1d(4, 16, 3, padding=1)
        self.kind = kind
        self.scale = nn.Parameter(torch.ones(16, 1, 1))
        self.a = nn.utils.parametrizations.weight_norm(conv) if kind == "norm" else conv
        self.b = nn.Conv1d(16, 3, 1)
        with torch.no_grad():
            conv.bias[::2] = 0
            self.b.weight[:, ::2] = 0
            if kind == "norm":
                conv.parametrizations.weight.original0[::2] = 0
                conv.parametrizations.weight.original1[::2] *= 10
            else:
                self.scale[::2] = 0
                conv.weight[::2] *= 10

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "norm":
            return self.b(F.relu(self.a(x)))
        weight = self.a.weight
        weight = (weight - weight.mean((1, 2), keepdim=True)) / weight.std((1, 2), keepdim=True)
        return self.b(F.relu(F.conv1d(x, weight * self.scale, self.a.bias, padding=1)))


@pytest.mark.parametrize("kind", ["norm", "standardised"])
@pytest.mark.parametrize(
    "criterion", ["l1", "l2", "lamp", "taylor", "taylor-abs", "fisher", "obs", "wanda", "apoz"]
)
def test_a_weight_counts_as_it_is_computed(kind: str, criterion: str) -> None:
    model = captured(DeadHalf(kind).eval(), torch.randn(2, 4, 10))
    groups = analyse(model)
    (group,) = groups.groups
    batch = Batch((torch.randn(8, 4, 10),), None)
    scores = scored(criterion, model, [batch], [one(3)])
    assert np.flatnonzero(scores[group.channels] == 0).tolist() == list(range(0, 16, 2))


def test_the_norm_of_a_computed_weight_stands_in_for_its_parameters() -> None:
    network = DeadHalf("norm").eval()
    model = captured(network, torch.randn(2, 4, 10))
    rows = network.a.weight.flatten(1)
    expected = torch.cat([rows, network.b.weight[:, :, 0].T], 1).detach().norm(dim=1)
    np.testing.assert_allclose(scored("l2", model), expected, rtol=1e-5)
