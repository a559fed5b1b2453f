# SPDX-License-Identifier: Apache-2.0
"""Least squares after the cut: what the removed channels said is said by those that are left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.channels import analyse, apply, find_branches
from edgeprune.data import Batch
from edgeprune.model import Event, Model, capture
from edgeprune.prune import equations
from edgeprune.prune import recover as room
from edgeprune.prune.recover import Recovered, recover


def captured(net: nn.Module, *shape: int) -> Model:
    return capture(net.eval(), (torch.randn(shape),), event=Event("test"))[0]


def cut(model: Model, share: float = 0.5) -> tuple[Model, room.Kept]:
    """The last channels of each group go."""
    groups = analyse(model)
    removed = groups.keep_all()
    for group in groups.groups:
        removed[group.channels[round(group.size * share) :]] = True

    def kept(name: str, dim: int) -> Tensor | None:
        left = groups.left(removed, name, dim)
        return None if left is None else torch.from_numpy(left)

    return apply(model, groups, removed, Event("prune")), kept


def samples(*shape: int, count: int = 6) -> list[Batch]:
    random = torch.Generator().manual_seed(1)
    return [Batch((torch.randn(16, *shape, generator=random),), None) for _ in range(count)]


def fitted(net: nn.Module, *shape: int, count: int = 6) -> Recovered:
    torch.manual_seed(0)
    model = captured(net, 2, *shape)
    pruned, kept = cut(model)
    return recover(model, pruned, kept, samples(*shape, count=count), seed=0)


def doubled(layer: nn.Module) -> None:
    """Make the second half of a layer's outputs a copy of the first."""
    with torch.no_grad():
        for parameter in layer.parameters():
            half = len(parameter) // 2
            parameter[half:] = parameter[:half]


def twins(net: nn.Module, *names: str) -> nn.Module:
    torch.manual_seed(0)
    for name in names:
        doubled(net.get_submodule(name))
    return net


def conv_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.ConvTranspose2d(12, 4, 4, 2, 1),
    )  # fmt: skip
    return twins(net, "0", "2", "4")


class Repeated(nn.Module):
    """A layer called twice, and one that reads what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.twice, self.end = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        doubled(self.begin)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.begin(x).relu()).tanh()
        return self.end(self.twice(self.begin(x).relu()))


class Attention(nn.Module):
    """One block whose heads and inner width say everything twice."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        doubled(self.up)
        with torch.no_grad():
            for parameter in (self.attention.in_proj_weight, self.attention.in_proj_bias):
                for part in parameter.chunk(3):
                    part[4:] = part[:4]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return (x + self.down(nn.functional.gelu(self.up(x)))).mean(1)


@pytest.mark.parametrize(
    ("make", "shape"), [(conv_net, (3, 8, 8)), (Repeated, (6,)), (Attention, (5, 8))]
)
def test_what_was_said_twice_is_all_there_again(
    make: type[nn.Module], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equations, "_RIDGE", 1e-7)
    monkeypatch.setattr(equations, "_FEW", 0.0)
    found = fitted(make(), *shape)
    assert found.before < 25
    assert found.after > found.before + 20
    assert all(fit.after > fit.before for fit in found.fits)
    assert found.model.history[-1].stage == "recover"


def test_little_memory_fits_the_first_layers_on_fewer_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(equations, "_RIDGE", 1e-7)
    monkeypatch.setattr(equations, "_FEW", 0.0)
    monkeypatch.setattr(room, "_MEMORY", 200_000)  # two batches between the first layers
    seen: list[int] = []
    add = equations.Equations.add

    def counting(self: equations.Equations, x: Tensor, y: Tensor, bias: Tensor | None) -> None:
        seen.append(len(y))
        add(self, x, y, bias)

    monkeypatch.setattr(equations.Equations, "add", counting)
    found = fitted(conv_net(), 3, 8, 8, count=9)
    assert found.samples == 8 * 16
    assert len(seen) < 4 * 8  # four layers, eight batches
    assert found.after > 50


def test_the_change_is_that_of_ridge_regression() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model = captured(net, 2, 6)
    pruned, kept = cut(model)
    batches = samples(6)
    found = recover(model, pruned, kept, batches, seed=0)
    with torch.no_grad():
        x = torch.cat([b.inputs[0] for b in batches[:-1]]).double()
        hidden = net.double()[:2](x).numpy()
        right = net(x).numpy()
    small = hidden[:, :4]
    weight = net[2].weight.detach().numpy()[:, :4].T
    lack = right - small @ weight - net[2].bias.detach().numpy()
    centred = small - small.mean(0)
    gram = centred.T @ centred
    ridge = (equations._RIDGE + equations._FEW * 4 / len(x)) * np.diag(gram).mean()
    change = np.linalg.solve(gram + ridge * np.eye(4), centred.T @ (lack - lack.mean(0)))
    state = found.model.program.state_dict
    np.testing.assert_allclose(state["2.weight"].detach().numpy().T, weight + change, atol=1e-5)
    shift = lack.mean(0) - small.mean(0) @ change
    bias = net[2].bias.detach().numpy() + shift
    np.testing.assert_allclose(state["2.bias"].detach().numpy(), bias, atol=1e-5)


def test_a_wide_layer_is_fitted_by_the_samples_products(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
    by_sums = fitted(net, 6).model.program.state_dict["2.weight"]
    monkeypatch.setattr(equations, "_WIDE", 31)
    monkeypatch.setattr(equations.Equations, "each", 1, raising=False)
    by_rows = fitted(net, 6)
    assert by_rows.after > by_rows.before
    assert by_rows.model.program.state_dict["2.weight"].shape == by_sums.shape


class Blocks(nn.Module):
    """Two residual blocks, the second of them nearly idle."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.end = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.begin(x).relu()
        x = x + self.one(x.relu())
        x = x + self.two(x.relu())
        return self.end(x.relu())


def test_a_branch_that_went_is_made_up_for() -> None:
    torch.manual_seed(0)
    model = captured(Blocks(), 2, 3, 8, 8)
    groups = analyse(model)
    (branch, *_) = find_branches(model, groups)
    pruned = apply(model, groups, groups.keep_all(), Event("prune"), (branch,))
    found = recover(model, pruned, lambda *_: None, samples(3, 8, 8), seed=0)
    assert found.after > found.before + 3


class Mixer(nn.Module):
    """A layer over patches: what are channels elsewhere are its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.patches = nn.Conv2d(3, 8, 4, 4), nn.Linear(16, 16)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2)
        return self.head((x + self.patches(x).relu()).mean(2))


def test_layers_over_what_was_cut_are_left_alone() -> None:
    found = fitted(Mixer(), 3, 16, 16)
    assert "patches.weight" not in [fit.layer for fit in found.fits]


def test_what_gets_worse_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(self: equations.Equations) -> None:
        self.stored.fill_(9.0)

    monkeypatch.setattr(equations.Equations, "solve", spoil)
    torch.manual_seed(0)
    model = captured(conv_net(), 2, 3, 8, 8)
    pruned, kept = cut(model)
    found = recover(model, pruned, kept, samples(3, 8, 8), seed=0)
    assert found.model is pruned
    assert found.after < found.before


def test_equal_runs_give_equal_weights() -> None:
    one, two = fitted(conv_net(), 3, 8, 8), fitted(conv_net(), 3, 8, 8)
    assert one.model.fingerprint() == two.model.fingerprint()
