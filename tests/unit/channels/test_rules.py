# SPDX-License-Identifier: Apache-2.0
"""Each rule alone, between two layers, with drawn sizes: what is pruned equals what is masked."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from edgeprune.channels import Policy, analyse
from edgeprune.channels.policy import STANDARD
from tests.unit.channels.graphs import ImageNet, TokenNet, captured, prune_at_random

Step = Callable[["Tokens | Images", Tensor], Tensor]


class Tokens(nn.Module):
    """(batch, 6, 4) tokens -> linear -> the step -> linear -> 3 outputs a token."""

    def __init__(self, step: Step, width: int, out: int) -> None:
        super().__init__()
        self.step, self.width = step, width
        self.enter, self.leave = nn.Linear(4, width), nn.Linear(out, 3)
        self.other = nn.Linear(4, width)
        self.matrix = nn.Parameter(torch.randn(width, width))
        self.u, self.v = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.cube = nn.Parameter(torch.randn(width, width, width))
        self.normed = parametrizations.weight_norm(nn.Linear(width, width))
        self.spectral = parametrizations.spectral_norm(nn.Linear(width, width))
        self.lstm = nn.LSTM(width, width // 2, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.rnn = nn.RNN(width, width, 2, nonlinearity="relu", batch_first=True, bias=False)
        self.cell = nn.LSTMCell(width, width)
        self.register_buffer("places", torch.tensor([2, 0, 5, 5, 1, 3]))

    def forward(self, x: Tensor) -> Tensor:
        self.aside = self.other(x)
        return self.leave(self.step(self, self.enter(x)))


def cells(net: Tokens, x: Tensor) -> Tensor:
    h = c = torch.zeros(x.shape[0], net.width)
    out = []
    for token in x.unbind(1):
        h, c = net.cell(token, (h, c))
        out.append(h)
    return torch.stack(out, 1)


def swapped(parts: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return torch.cat([*parts[1:], parts[0]], -1)


TOKENS: dict[str, tuple[Step, float]] = {
    "einsum": (lambda n, x: torch.einsum("bnc,co->bno", x, n.matrix), 1),
    "einsum-ellipsis": (lambda n, x: torch.einsum("...c,oc->...o", x, n.matrix), 1),
    "einsum-implicit": (lambda n, x: torch.einsum("bnc,c", x, n.v)[..., None].expand(-1, -1, 8), 0),
    "einsum-three": (lambda n, x: torch.einsum("bnc,co,o->bno", x, n.matrix, n.u), 1),
    "einsum-pairs": (
        lambda n, x: torch.einsum("bnm,bmc->bnc", torch.einsum("bnc,bmc->bnm", x, n.aside), x), 1),
    "tensor-split": (lambda n, x: swapped(x.tensor_split([2], -1)), 1),
    "tensor-split-even": (lambda n, x: swapped(x.tensor_split(2, -1)), 1),
    "unsafe-chunk": (lambda n, x: swapped(x.unsafe_chunk(2, -1)), 1),
    "narrow": (lambda n, x: swapped((x.narrow(-1, 0, 3), x.narrow(-1, 3, n.width - 3))), 1),
    "narrow-end": (lambda n, x: swapped((x[..., :-2], x.narrow(-1, -2, 2))), 1),
    "repeat-interleave": (lambda n, x: x.repeat_interleave(2, -1), 2),
    "tile": (lambda n, x: x.tile(1, 1, 2), 2),
    "repeat": (lambda n, x: x.repeat(1, 1, 2), 2),
    "unflatten": (lambda n, x: x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2), 1),
    "stack": (lambda n, x: torch.stack([x, n.aside], 2).select(2, 0) + n.aside, 1),
    "unbind": (lambda n, x: swapped(torch.stack([x, n.aside], 0).unbind(0)), 2),
    "roll": (lambda n, x: x.roll(2, 1), 1),
    "outer": (lambda n, x: F.linear(x, torch.outer(n.u, n.v)), 1),
    "vector": (lambda n, x: (x @ n.v)[..., None] * n.u, 1),
    "bilinear": (lambda n, x: F.bilinear(x, n.aside, n.cube), 1),
    "spectral-norm": (lambda n, x: n.spectral(x), 1),
    "lstm": (lambda n, x: n.lstm(x)[0], 1),
    "gru": (lambda n, x: n.gru(x)[0], 1),
    "gru-last": (lambda n, x: n.gru(x)[1].transpose(0, 1), 1),
    "rnn": (lambda n, x: n.rnn(x)[0], 1),
    "lstm-cell": (cells, 1),
    "gather": (lambda n, x: x.gather(1, n.places[None, :, None].expand(x.shape[0], 6, n.width)), 1),
    "index-select": (lambda n, x: x.index_select(1, n.places), 1),
    "index": (lambda n, x: x[:, n.places], 1),
    "fourier": (lambda n, x: torch.fft.fft(x, dim=1).real, 1),
    "cumsum": (lambda n, x: x.cumsum(1), 1),
    "maximum": (lambda n, x: x.max(1, keepdim=True)[0] + x, 1),
    "variance": (lambda n, x: x - x.var(1, keepdim=True), 1),
    "variance-and-mean": (lambda n, x: x - torch.var_mean(x, 1, keepdim=True)[1], 1),
    "sorted": (lambda n, x: x.sort(1)[0], 1),
    "largest": (lambda n, x: x.topk(3, 1)[0], 1),
    "batched": (lambda n, x: torch.baddbmm(x, x @ x.transpose(1, 2), n.aside), 1),
    "slice-scatter": (lambda n, x: x.slice_scatter(n.aside[:, :3], 1, 0, 3), 1),
    "literal": (lambda n, x: x + torch.full((n.width,), 2.0) * torch.ones(n.width), 1),
    "in-place": (lambda n, x: x.mul_(2).add_(n.aside).relu_(), 1),
    "out-of-an-empty-one": (lambda n, x: torch.empty(x.shape[0], 6, n.width).copy_(x), 1),
    "grad-mode": (lambda n, x: x + _without_gradient(n.aside), 1),
}  # fmt: skip


def _without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


class Images(nn.Module):
    """(batch, 3, 8, 8) images -> conv -> the step -> mean over space -> linear -> 3 outputs."""

    def __init__(self, step: Step, width: int, out: int) -> None:
        super().__init__()
        self.step, self.width = step, width
        self.enter, self.leave = nn.Conv2d(3, width, 3, padding=1), nn.Linear(out, 3)
        self.grouped = nn.Conv2d(width, 2 * width, 3, padding=1, groups=2)
        self.transposed = nn.ConvTranspose2d(width, 2 * width, 2, 2, groups=2)
        self.multiplied = nn.ConvTranspose2d(width, 2 * width, 2, 2, groups=width)
        self.normed = nn.InstanceNorm2d(width, affine=True)
        self.standardised = nn.Parameter(torch.randn(width, width, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.step(self, self.enter(x)).flatten(2).mean(-1))


def sampled(net: Images, x: Tensor) -> Tensor:
    grid = F.affine_grid(torch.eye(2, 3)[None].expand(x.shape[0], 2, 3), [x.shape[0], 1, 5, 5])
    return F.grid_sample(x, grid, align_corners=False)


IMAGES: dict[str, tuple[Step, float]] = {
    "pixel-unshuffle": (lambda n, x: F.pixel_unshuffle(x, 2), 4),
    "channel-shuffle": (lambda n, x: F.channel_shuffle(x, 2), 1),
    "windows": (lambda n, x: F.fold(F.unfold(x, 3, padding=1) * 2, (8, 8), 3, padding=1), 1),
    "window-columns": (lambda n, x: F.unfold(x, 2, stride=2), 4),
    "unfold": (lambda n, x: x.unfold(2, 4, 2).unfold(3, 4, 2).mean((-1, -2)), 1),
    "grid-sample": (sampled, 1),
    "bicubic": (lambda n, x: F.interpolate(x, scale_factor=2, mode="bicubic"), 1),
    "nearest": (lambda n, x: F.interpolate(x, size=(5, 5)), 1),
    "reflection": (lambda n, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 1),
    "replication": (lambda n, x: F.pad(x, (1, 1, 1, 1), mode="replicate"), 1),
    "circular": (lambda n, x: F.pad(x, (1, 1, 1, 1), mode="circular"), 1),
    "adaptive-max": (lambda n, x: F.adaptive_max_pool2d(x, 2), 1),
    "grouped": (lambda n, x: n.grouped(x), 2),
    "transposed-grouped": (lambda n, x: n.transposed(x), 2),
    "transposed-depthwise": (lambda n, x: n.multiplied(x), 2),
    "instance-norm": (lambda n, x: n.normed(x), 1),
    "patches": (lambda n, x: x.view(-1, n.width, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4)
                .reshape(x.shape[0], n.width * 4, 4, 4), 4),
}  # fmt: skip

relaxed = settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # a failing export is slow to shrink and small as is
)
widths = st.sampled_from([4, 6, 8])


def assert_exact(module: nn.Module, x: Tensor, seed: int, policy: Policy = STANDARD) -> None:
    pair = prune_at_random(captured(module, x), (x,), seed, policy)
    assert pair.groups.groups, "nothing to prune"
    exact = [group for group in pair.groups.groups if not group.renormalises]
    assert len(exact) == len(pair.groups.groups), "no equality to test"
    torch.testing.assert_close(pair.output, pair.expected, rtol=1e-3, atol=1e-4)
    causes = [frozen.cause for frozen in pair.groups.frozen]
    assert not [cause for cause in causes if "rule" in cause]


@pytest.mark.parametrize("name", TOKENS)
def test_each_token_rule(name: str) -> None:
    step, times = TOKENS[name]

    @relaxed
    @given(widths, st.integers(0, 2**16))
    def check(width: int, seed: int) -> None:
        torch.manual_seed(seed)
        out = int(times * width) or 8
        assert_exact(Tokens(step, width, out), torch.randn(2, 6, 4), seed)

    check()


@pytest.mark.parametrize("name", IMAGES)
def test_each_image_rule(name: str) -> None:
    step, times = IMAGES[name]

    @relaxed
    @given(widths, st.integers(0, 2**16))
    def check(width: int, seed: int) -> None:
        torch.manual_seed(seed)
        assert_exact(Images(step, width, int(times * width)), torch.randn(2, 3, 8, 8), seed)

    check()


def test_a_standardised_weight_is_pruned_by_rows_and_columns() -> None:
    def step(net: Images, x: Tensor) -> Tensor:
        flat = net.standardised.reshape(1, net.width, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape_as(net.standardised)
        return F.conv2d(x, weight)

    torch.manual_seed(0)
    groups = analyse(captured(Images(step, 8, 8), torch.randn(2, 3, 8, 8)))
    sizes = {dim: labels for (name, dim), labels in groups.labels.items() if name == "standardised"}
    assert (sizes[0] >= 0).all()
    assert (sizes[1] >= 0).all()
    over = next(g for g in groups.groups if ("standardised", 1) in g.members)
    assert over.renormalises, "its mean runs over the inputs that go"


def test_weight_norm_runs_over_the_inputs_that_go_and_not_over_the_outputs() -> None:
    torch.manual_seed(0)
    groups = analyse(captured(Tokens(lambda n, x: n.normed(x), 8, 8), torch.randn(2, 6, 4))).groups
    direction = "normed.parametrizations.weight.original1"
    inputs = next(g for g in groups if (direction, 1) in g.members)
    outputs = next(g for g in groups if (direction, 0) in g.members)
    assert inputs.renormalises
    assert not outputs.renormalises
    assert ("normed.parametrizations.weight.original0", 0) in outputs.members


@pytest.mark.parametrize("kind", ["fused-attention", "separate-attention", "matmul-attention"])
def test_the_width_of_heads_by_policy(kind: str) -> None:
    torch.manual_seed(0)
    net, x = TokenNet([kind, "mlp"]), torch.randn(2, 5, 6)
    policy = Policy(attention="head_dim")
    assert_exact(net, x, 0, policy)
    widths = {group.size for group in analyse(captured(net, x), policy).groups}
    assert 6 in widths, "one channel for each position in the heads' width of 6"


def test_grouped_queries_keep_their_ratio() -> None:
    torch.manual_seed(0)
    net, x = TokenNet(["grouped-query"]), torch.randn(2, 5, 6)
    for factor, expected in (("heads", 2), ("head_dim", 6)):
        groups = analyse(captured(net, x), Policy(attention=factor)).groups
        key = next(g for g in groups if ("parts.0.k.weight", 0) in g.members)
        assert key.size == expected
        assert_exact(net, x, 0, Policy(attention=factor))


def test_whole_groups_by_policy() -> None:
    torch.manual_seed(0)
    net, x = ImageNet(["grouped", "conv"]), torch.randn(2, 3, 8, 8)
    policy = Policy(grouped="groups")
    assert_exact(net, x, 0, policy)
    groups = analyse(captured(net, x), policy).groups
    owner = next(g for g in groups if ("parts.0.weight", 0) in g.members)
    assert owner.size == 4, "one channel for each of the convolution's groups"
