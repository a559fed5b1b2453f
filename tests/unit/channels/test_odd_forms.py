# SPDX-License-Identifier: Apache-2.0
"""Forms that people write and that rules are apt to misread: what a single index left, a zero or a
second meaning of an operator does."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.channels import Groups, Policy, analyse, apply, masked
from edgeprune.channels import walk as walking
from edgeprune.channels.op import Op, Value
from edgeprune.model import Event, Model
from tests.unit.channels.graphs import captured

Step = Callable[["Between", Tensor], Tensor]


class Between(nn.Module):
    """(batch, 5, 6) tokens -> linear -> the step -> linear -> 3 outputs a token."""

    def __init__(self, step: Step, width: int = 8) -> None:
        super().__init__()
        self.step = step
        self.enter, self.leave = nn.Linear(6, width), nn.Linear(width, 3)
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.matrix = nn.Parameter(torch.randn(width, width))
        self.scale = nn.Parameter(torch.rand(width) + 0.5)
        self.column = nn.Parameter(torch.randn(width, 1))
        self.register_buffer("variance", torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.step(self, self.enter(x)))


def tokens() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


def one_left(model: Model, groups: Groups) -> Model:
    removed = groups.keep_all()
    for group in groups.groups:
        removed[group.channels[1:]] = True
    return apply(model, groups, removed, Event("prune"))


EXACT: dict[str, Step] = {
    "max of two": lambda n, x: torch.max(n.q(x), n.k(x)),
    "min of two": lambda n, x: torch.min(n.q(x), n.k(x)),
    "divided by a parameter": lambda n, x: x / n.scale,
    "divided by a buffer's root": lambda n, x: x / n.variance.sqrt(),
    "one entry repeated": lambda n, x: x * n.column[:1].repeat(1, 8),
    "weight over its norm": lambda n, x: F.linear(
        x, n.matrix / n.matrix.norm(dim=1, keepdim=True) * n.column
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_pruned_is_masked_where_nothing_renormalises(name: str) -> None:
    torch.manual_seed(0)
    x = tokens()
    model = captured(Between(EXACT[name]), x)
    groups = analyse(model)
    removed = groups.keep_all()
    for group in groups.groups:
        if not group.renormalises:
            removed[group.channels[::2]] = True
    assert removed.any()
    pruned = apply(model, groups, removed, Event("prune"))
    torch.testing.assert_close(
        pruned.module()(x), masked(model, groups, removed)(x), rtol=1e-4, atol=1e-5
    )


def both(f: Callable[[Tensor], Tensor]) -> Step:
    return lambda n, x: f(n.q(x)) @ f(n.k(x)).transpose(1, 2) @ x


LIFTED: dict[str, Step] = {
    "linear attention": both(lambda t: F.elu(t) + 1),
    "products of gates": both(torch.sigmoid),
    "einsum of gates": lambda n, x: (
        torch.einsum("bnd,bmd->bnm", torch.sigmoid(n.q(x)), torch.exp(n.k(x))) @ x
    ),
    "sum by einsum": lambda n, x: torch.einsum("bnd->bn", torch.sigmoid(n.q(x)))[..., None] * x,
    "sum by ones": lambda n, x: torch.sigmoid(n.q(x)) @ torch.ones(8, 1) * x,
    "positive weights": lambda n, x: F.linear(torch.sigmoid(n.q(x)), torch.exp(n.matrix)),
}


@pytest.mark.parametrize("name", LIFTED)
def test_a_sum_over_what_no_zero_weight_makes_zero_is_listed(name: str) -> None:
    groups = analyse(captured(Between(LIFTED[name]), tokens()))
    (group,) = (g for g in groups.groups if ("q.weight", 0) in g.members)
    assert group.renormalises


@pytest.mark.parametrize(
    "step", [both(torch.relu), both(lambda t: F.silu(t) * t.sigmoid()), both(lambda t: t * 0.5)]
)
def test_a_sum_of_zeros_is_not(step: Step) -> None:
    groups = analyse(captured(Between(step), tokens()))
    assert not any(group.renormalises for group in groups.groups)


@pytest.mark.parametrize(
    "squeeze",
    [
        lambda x: x.mean(1, keepdim=True).squeeze(),
        lambda x: x.mean(1, keepdim=True).squeeze((1, 2)),
        lambda x: x.mean(1).squeeze(1),
    ],
)
def test_a_squeeze_spares_a_dimension_that_pruning_leaves_with_one_index(squeeze) -> None:
    x = tokens()
    model = captured(Between(lambda _, y: squeeze(y), width=2), x)
    groups = analyse(model)
    assert groups.channels
    assert one_left(model, groups).module()(x).shape == model.module()(x).shape


@pytest.mark.parametrize("transposed", [False, True])
def test_whole_groups_of_a_convolution_cost_what_they_are_said_to(transposed: bool) -> None:
    grouped = (
        nn.ConvTranspose2d(16, 24, 3, groups=4) if transposed else nn.Conv2d(16, 24, 3, groups=4)
    )
    x = torch.randn(2, 3, 8, 8)
    model = captured(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), grouped, nn.Conv2d(24, 4, 1)), x)
    groups = analyse(model, policy := Policy(grouped="groups"))
    removed = groups.keep_all()
    for group in groups.groups:
        removed[group.channels[1:]] = True
    pruned = apply(model, groups, removed, Event("prune"))
    assert groups.totals(removed) == analyse(pruned, policy).totals()


def test_channels_merged_with_the_batch_cost_what_they_are_said_to() -> None:
    class EachAlone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.one, self.leave = (
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(1, 2, 3),
                nn.Linear(8, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            alone = self.one(self.enter(x).view(-1, 1, 6, 6)).mean(1)
            return self.leave(alone.view(-1, 8, 4, 4).mean((2, 3)))

    model = captured(EachAlone(), torch.randn(2, 3, 8, 8))
    groups = analyse(model)
    (enter,) = (g for g in groups.groups if g.name == "enter")
    removed = groups.keep_all()
    removed[enter.channels[:3]] = True
    assert groups.totals(removed) == analyse(apply(model, groups, removed, Event("p"))).totals()


def test_heads_turned_as_complex_numbers_go_whole() -> None:
    def rotated(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.view(-1, 5, 4, 2).reshape(-1, 5, 4, 1, 2))
        turned = torch.view_as_real(pairs * torch.polar(torch.ones(5, 1, 1), torch.ones(5, 1, 1)))
        return turned.flatten(3).type_as(x).transpose(1, 2)

    def attend(net: Between, x: Tensor) -> Tensor:
        q, k, v = rotated(net.q(x)), rotated(net.k(x)), x.view(-1, 5, 4, 2).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 5, 8)

    groups = analyse(captured(Between(attend), tokens()))
    (heads,) = (g for g in groups.groups if ("q.weight", 0) in g.members)
    assert heads.size == 4
    assert not heads.renormalises


def test_channels_that_all_live_together_are_told() -> None:
    groups = analyse(captured(Between(lambda _, x: x + x.roll(1, -1)), tokens()))
    told = {(f.name, f.dim): f.cause for f in groups.frozen}
    assert told["enter.weight", 0] == "literal"
    step = lambda _, x: torch.cat([x[..., :1] + x[..., 1:], x[..., :1]], -1)  # noqa: E731
    groups = analyse(captured(Between(step), tokens()))
    told = {(f.name, f.dim): f.cause for f in groups.frozen}
    assert told["enter.weight", 0] == "one channel without another like it"


def test_a_rule_that_misreads_an_operator_freezes(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_op: Op) -> Value:
        return ()

    monkeypatch.setitem(walking.RULES, "relu", wrong)
    groups = analyse(captured(Between(lambda _, x: torch.relu(x)), tokens()))
    causes = {(f.name, f.dim): f.cause for f in groups.frozen}
    assert causes["enter.weight", 0].startswith("a form without a rule of")
