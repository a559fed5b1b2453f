# SPDX-License-Identifier: Apache-2.0
"""Random small networks for the property tests, drawn step by step, and helpers to prune them."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.channels import Groups, Policy, analyse, apply, masked
from edgeprune.channels.policy import STANDARD
from edgeprune.model import Event, Model, capture

__all__ = [
    "ImageNet",
    "Pair",
    "TokenNet",
    "captured",
    "image_steps",
    "prune_at_random",
    "token_steps",
]

IMAGE_STEPS = (
    "conv", "grouped", "depthwise", "expand-depthwise", "transposed", "norm", "group-norm", "relu",
    "hardswish", "sigmoid", "residual", "dense-cat", "split-cat", "chunk-swap", "shuffle", "gate",
    "pool", "upsample",
    "pad-shortcut", "prelu", "pixel-shuffle", "slice-cat", "permute-linear", "flip", "glu",
)  # fmt: skip
TOKEN_STEPS = (
    "linear", "mlp", "fused-attention", "separate-attention", "grouped-query", "gated-mlp", "scale",
    "matmul-attention", "conv1d", "bias",
)  # fmt: skip


def image_steps() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(IMAGE_STEPS), min_size=1, max_size=6)


def token_steps() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(TOKEN_STEPS), min_size=1, max_size=4)


class Attention(nn.Module):
    """Self-attention in the ways that people write it; no norm inside, so pruning is exact."""

    def __init__(self, kind: str, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.kind, self.heads, self.size = kind, heads, size
        self.shared = 2 if kind == "grouped-query" else 1
        kv = heads // self.shared * size
        self.qkv = nn.Linear(width, 3 * heads * size) if kind == "fused-attention" else None
        self.q = nn.Linear(width, heads * size)
        self.k, self.v = nn.Linear(width, kv), nn.Linear(width, kv)
        self.out = nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.qkv is not None:
            q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.size).permute(2, 0, 3, 1, 4)
        else:
            q = self.q(x).view(b, n, self.heads, self.size).transpose(1, 2)
            k = self.k(x).view(b, n, self.heads // self.shared, self.size).transpose(1, 2)
            v = self.v(x).view(b, n, self.heads // self.shared, self.size).transpose(1, 2)
            if self.shared > 1:
                k, v = (
                    t[:, :, None].expand(-1, -1, self.shared, -1, -1).reshape(b, self.heads, n, -1)
                    for t in (k, v)
                )
        if self.kind == "matmul-attention":
            weights = (q @ k.transpose(-2, -1) * self.size**-0.5).softmax(-1)
            x = weights @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        return self.out(x.transpose(1, 2).reshape(b, n, -1))


class TokenNet(nn.Module):
    """(batch, 5, 6) tokens through drawn steps to 4 outputs."""

    def __init__(self, steps: list[str], width: int = 12) -> None:
        super().__init__()
        self.steps, self.parts = steps, nn.ModuleList()
        self.enter = nn.Linear(6, width)
        self.head = nn.Linear(width, 4)
        for step in steps:
            if step.endswith("attention") or step == "grouped-query":
                part: nn.Module = Attention(step, width, 4, 6)
            elif step == "mlp":
                part = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))
            elif step == "gated-mlp":
                part = nn.ModuleList([nn.Linear(width, 28), nn.Linear(14, width)])
            elif step == "conv1d":
                part = nn.Conv1d(width, width, 3, padding=1)
            else:
                part = nn.Linear(width, width)
            self.parts.append(part)
        self.bias = nn.Parameter(torch.randn(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for step, part in zip(self.steps, self.parts, strict=True):
            if step == "gated-mlp":
                a, b = part[0](x).chunk(2, -1)
                x = x + part[1](a * F.silu(b))
            elif step == "conv1d":
                x = part(x.transpose(1, 2)).transpose(1, 2)
            elif step == "scale":
                x = x * 0.5 + part(x)
            elif step == "bias":
                x = x + self.bias
            elif step == "linear":
                x = F.relu(part(x))
            else:
                x = x + part(x)
        return self.head(x.mean(1))


class ImageNet(nn.Module):
    """(batch, 3, 8, 8) images through drawn steps to 5 outputs. Widths stay divisible by four."""

    def __init__(self, steps: list[str], flatten: bool = False) -> None:
        super().__init__()
        self.steps, self.flatten = steps, flatten
        self.parts = nn.ModuleList()
        width = 8
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        for step in steps:
            part, width = self._part(step, width)
            self.parts.append(part)
        self.head = nn.Linear(width * 4 if flatten else width, 5)

    def _part(self, step: str, c: int) -> tuple[nn.Module, int]:
        many: dict[str, tuple[nn.Module, int]] = {
            "conv": (nn.Conv2d(c, 12, 3, padding=1, bias=False), 12),
            "grouped": (nn.Conv2d(c, 16, 3, padding=1, groups=4), 16),
            "depthwise": (nn.Conv2d(c, c, 3, padding=1, groups=c), c),
            "expand-depthwise": (nn.Conv2d(c, 2 * c, 3, padding=1, groups=c), 2 * c),
            "transposed": (nn.ConvTranspose2d(c, 8, 3, padding=1, groups=2), 8),
            "norm": (nn.BatchNorm2d(c, eps=1e-3), c),
            "group-norm": (nn.GroupNorm(c // 2, c), c),
            "residual": (nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)), c),
            "dense-cat": (nn.Conv2d(c, 4, 1), c + 4),
            "gate": (nn.Sequential(nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, c, 1)), c),
            "pad-shortcut": (nn.Conv2d(c, c + 8, 3, padding=1), c + 8),
            "prelu": (nn.PReLU(c), c),
            "pixel-shuffle": (nn.Conv2d(c, 16, 1), 4),
            "permute-linear": (nn.Linear(c, 12), 12),
            "glu": (nn.Conv2d(c, 16, 1), 8),
        }  # fmt: skip
        return many.get(step, (nn.Identity(), c))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for step, part in zip(self.steps, self.parts, strict=True):
            x = self._step(step, part, x)
        x = F.adaptive_avg_pool2d(x, 2 if self.flatten else 1)
        return self.head(x.flatten(1))

    def _step(self, step: str, part: nn.Module, x: Tensor) -> Tensor:  # noqa: C901
        c = x.shape[1]
        match step:
            case "relu":
                return F.relu(x)
            case "hardswish":
                return F.hardswish(x)
            case "sigmoid":
                return torch.sigmoid(x)
            case "residual":
                return F.relu(part(x) + x)
            case "dense-cat":
                return torch.cat([x, part(x)], 1)
            case "split-cat":
                a, b, d = x.split([c // 4, c // 2, c // 4], 1)
                return torch.cat([d, a, F.relu(b)], 1)
            case "chunk-swap":
                a, b = x.chunk(2, 1)
                return torch.cat([b, a], 1)
            case "shuffle":
                y = x.view(x.shape[0], 2, c // 2, x.shape[2], x.shape[3]).transpose(1, 2)
                return y.reshape(x.shape[0], c, x.shape[2], x.shape[3])
            case "gate":
                return x * F.hardsigmoid(part(x.mean((2, 3), keepdim=True)))
            case "pool":
                return F.max_pool2d(x, 3, 1, 1)
            case "upsample":
                return F.interpolate(x, scale_factor=2)
            case "pad-shortcut":
                return part(x) + F.pad(x, (0, 0, 0, 0, 4, 4))
            case "pixel-shuffle":
                return F.pixel_shuffle(part(x), 2)
            case "slice-cat":
                return torch.cat([x[:, c // 2 :], x[:, : c // 2] * 2], 1)
            case "permute-linear":
                return part(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "flip":
                return x.flip(1)
            case "glu":
                return F.glu(part(x), 1)
        return part(x)


def captured(module: nn.Module, *inputs: Tensor) -> Model:
    """Capture with weights and statistics that are far from their defaults."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return capture(module.eval(), inputs, event=Event("capture"))[0]


@dataclass(frozen=True)
class Pair:
    """A pruned network, its masked dense twin's output, and how it was cut."""

    groups: Groups
    pruned: Model
    output: Tensor
    expected: Tensor


def prune_at_random(
    model: Model, inputs: tuple[Tensor, ...], seed: int, policy: Policy = STANDARD
) -> Pair:
    """Remove a random share of each group, at least one channel of each and never all."""
    groups = analyse(model, policy)
    random = np.random.default_rng(seed)
    removed = groups.keep_all()
    for group in groups.groups:
        count = int(random.integers(1, group.size))
        removed[random.choice(group.channels, count, replace=False)] = True
    pruned = apply(model, groups, removed, Event("prune"))
    with torch.no_grad():
        return Pair(
            groups, pruned, pruned.module()(*inputs), masked(model, groups, removed)(*inputs)
        )
