# SPDX-License-Identifier: Apache-2.0
"""Second-order scores against fitting anew by hand, one removal after the other."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.channels import analyse
from edgeprune.data import Batch
from edgeprune.model import Event, Model, capture
from edgeprune.prune.criteria import CRITERIA, Samples, Scores, Subject
from edgeprune.prune.criteria.elimination import Part, eliminate
from edgeprune.tasks import Classes
from tests import networks

RIDGE = 1e-2
KIND = Classes(1, (10,), labelled=True)


def captured(module: nn.Module, data: Sequence[Batch]) -> Model:
    return capture(module, data[0].inputs, event=Event("capture"))[0]


def scored(module: nn.Module, data: Sequence[Batch]) -> Scores:
    model = captured(module, data)
    groups = analyse(model)
    samples = Samples(iter(data), [KIND], sum(map(len, data)))
    return CRITERIA["obs"].score(Subject(model, groups, samples=samples))


def images(count: int, size: int, channels: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(
            (torch.randn(8, channels, size, size, generator=generator),),
            torch.randint(0, 10, (8,), generator=generator),
        )
        for _ in range(count)
    ]


def by_hand(layers: Sequence[tuple[Tensor, Tensor, Tensor]], count: int) -> Scores:
    """The scores of ``count`` channels: of each layer inputs ``[n, channels * size]``, weights
    ``[channels * size, outputs]`` and what each output matters."""

    def error(gone: list[int]) -> float:
        total = 0.0
        for x, weight, matters in layers:
            gram = np.cov(x.double().numpy().T, bias=True)
            gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
            out = np.repeat(np.isin(np.arange(count), gone), len(gram) // count)
            change = -weight.double().numpy()
            rest = np.ix_(~out, ~out)
            change[~out] = np.linalg.solve(gram[rest], gram[np.ix_(~out, out)]) @ -change[out]
            total += float(np.einsum("io,ij,jo,o->", change, gram, change, matters.numpy()))
        return total

    scores, gone, before, floor = np.zeros(count), [], 0.0, 0.0
    while len(gone) < count:
        costs = {c: error([*gone, c]) - before for c in range(count) if c not in gone}
        cheapest = min(costs, key=costs.__getitem__)
        floor = scores[cheapest] = max(floor, costs[cheapest])
        gone.append(cheapest)
        before = error(gone)
    return scores


def matter(out: Tensor, loss: Tensor) -> Tensor:
    """Half the squared gradients of one sample's loss, summed over positions."""
    (gradient,) = torch.autograd.grad(loss, out, retain_graph=True)
    squares = gradient.double().square().mean(0) / 2
    return squares.flatten(1).sum(1) if squares.dim() > 1 else squares


def test_a_residual_stream_that_two_convolutions_read() -> None:
    """Few enough positions that each is looked at."""
    torch.manual_seed(0)
    network = networks.DigitsCnn(4).eval()
    data = images(2, 4)
    x, labels = torch.cat([b.inputs[0] for b in data]), torch.cat([b.labels for b in data])
    first = F.relu(network.bn1(network.conv1(x)))
    second = network.conv2(first)
    stream = F.relu(first + network.bn2(second))
    third = network.conv3(stream)
    loss = F.cross_entropy(network.head(F.relu(third).mean((2, 3))), labels, reduction="sum")

    def patches(given: Tensor, stride: int) -> Tensor:
        return F.unfold(given, 3, padding=1, stride=stride).movedim(1, -1).flatten(0, 1).detach()

    layers = [
        (patches(first, 1), network.conv2.weight.detach().flatten(1).T, matter(second, loss)),
        (patches(stream, 2), network.conv3.weight.detach().flatten(1).T, matter(third, loss)),
    ]
    expected = by_hand(layers, 4)
    groups = analyse(captured(network, data))
    group = next(g for g in groups.groups if g.name == "conv1")
    np.testing.assert_allclose(scored(network, data)[group.channels], expected, rtol=1e-3)


class Copies(nn.Module):
    """Every second hidden channel says what another says already."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 12), nn.Linear(12, 10)
        with torch.no_grad():
            for parameter in (self.a.weight, self.a.bias):
                parameter[1::2] = 2 * parameter[::2]

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x.flatten(1))))


def test_what_another_channel_says_too_is_cheap() -> None:
    """However large its weights are: one of each pair costs next to nothing."""
    torch.manual_seed(0)
    scores = np.sort(scored(Copies().eval(), images(8, 4)))
    assert scores[5] < 0.05 * scores[6]


def test_a_wide_layer_is_not_fitted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.prune.criteria.surgeon._WIDE", 4)
    torch.manual_seed(0)
    network, data = Copies().eval(), images(8, 4)
    hidden = torch.cat([F.relu(network.a(b.inputs[0].flatten(1))) for b in data])
    out = network.b(hidden)
    labels = torch.cat([b.labels for b in data])
    matters = matter(out, F.cross_entropy(out, labels, reduction="sum"))
    error = hidden.detach().double().var(0, correction=0) * (
        network.b.weight.detach().double().square().T @ matters
    )
    order = np.maximum.accumulate(np.sort(error.numpy()))
    np.testing.assert_allclose(np.sort(scored(network, data)), order, rtol=1e-4)


class Lookup(nn.Module):
    """Queries and keys meet each other only."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, width) for width in (6, 6, 8))
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        return self.head(((self.q(x) @ self.k(x).mT).softmax(2) @ self.v(x)).mean(1))


def test_what_no_layer_reads_has_the_score_of_fisher() -> None:
    torch.manual_seed(0)
    network, data = Lookup().eval(), images(2, 4)
    model = captured(network, data)
    groups = analyse(model)
    samples = Samples(iter(data), [KIND], 16)
    expected = CRITERIA["fisher"].score(Subject(model, groups, samples=samples))
    found = scored(network, data)
    same = {
        group.name: np.allclose(found[group.channels], expected[group.channels], rtol=1e-6)
        for group in groups.groups
    }
    assert same == {"q": True, "v": False}


def parts() -> Iterator[tuple[Part, float]]:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 4):
        x = torch.randn(200, 12 * size, generator=generator, dtype=torch.float64)
        weight = torch.randn(12 * size, 3, generator=generator, dtype=torch.float64)
        yield Part(torch.linalg.inv(x.T @ x), weight, size), float((x @ weight).square().sum())


@pytest.mark.parametrize("step", [1, 3, 5, 12])
def test_the_costs_add_up_to_all_that_the_layers_give(step: int) -> None:
    """However many go between two rankings, none is counted twice and none left out."""
    both = list(parts())
    order, costs = zip(*eliminate([part for part, _ in both], 12, step), strict=True)
    assert sorted(order) == list(range(12))
    assert sum(costs) == pytest.approx(sum(total for _, total in both), rel=1e-9)
