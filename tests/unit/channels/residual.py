# SPDX-License-Identifier: Apache-2.0
"""Residual networks, drawn block by block, as people write them."""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["IMAGE_BLOCKS", "TOKEN_BLOCKS", "Images", "Tokens", "image_blocks", "token_blocks"]

IMAGE_BLOCKS = (
    "post-act", "pre-act", "in-place", "in-place-entry", "layer-scale", "drop-path", "one-layer",
    "nested", "shortcut", "down", "permuted", "pooled-gate", "conv", "repeated", "weight-scaled",
    "dead-code",
)  # fmt: skip
TOKEN_BLOCKS = ("pre-norm", "post-norm", "parallel", "windows", "masked", "own-mask", "linear")


def image_blocks() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(IMAGE_BLOCKS), min_size=1, max_size=5)


def token_blocks() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(TOKEN_BLOCKS), min_size=1, max_size=4)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
    )


class Block(nn.Module):
    """One residual block on ``c`` channels, of the kind named."""

    def __init__(self, kind: str, c: int) -> None:
        super().__init__()
        self.kind = kind
        self.out = 2 * c if kind == "down" else c
        stride = 2 if kind == "down" else 1
        self.a, self.b = conv(c, 6, stride), conv(6, self.out)
        if kind in ("down", "shortcut"):
            self.side = conv(c, self.out, stride)
        if kind == "one-layer":
            self.a, self.b = nn.Identity(), conv(c, c)
        if kind == "layer-scale":
            self.scale = nn.Parameter(torch.rand(c, 1, 1))
        if kind == "pre-act":
            self.a, self.b = nn.Conv2d(c, 6, 3, 1, 1), nn.Conv2d(6, c, 3, 1, 1)
            self.norm, self.norm2 = nn.BatchNorm2d(c), nn.BatchNorm2d(6)
        if kind == "nested":
            self.inner = Block("post-act", 6)
        if kind == "permuted":
            self.a, self.b = nn.Linear(c, 10), nn.Linear(10, c)
            self.norm = nn.LayerNorm(c)
        if kind == "pooled-gate":
            self.gate = nn.Conv2d(6, 6, 1)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:  # noqa: C901
        match self.kind:
            case "pre-act":
                y = F.relu(self.norm(x))
                return x + self.b(F.relu(self.norm2(self.a(y))))
            case "in-place":
                y = self.b(F.relu_(self.a(x)))
                y += x
                return F.relu_(y)
            case "in-place-entry":
                y = self.b(self.a(F.relu_(x)))
                x += y
                return x
            case "layer-scale":
                return x + self.drop(self.scale * self.b(F.gelu(self.a(x))))
            case "drop-path":
                keep = torch.ones(x.shape[0], 1, 1, 1)
                return x + self.drop(self.b(F.relu(self.a(x)))) * keep
            case "nested":
                return x + self.b(self.inner(F.relu(self.a(x))))
            case "down" | "shortcut":
                return F.relu(self.b(F.relu(self.a(x))) + self.side(x))
            case "permuted":
                z = x.permute(0, 2, 3, 1)
                z = z + self.b(F.gelu(self.a(self.norm(z))))
                return z.permute(0, 3, 1, 2)
            case "pooled-gate":
                y = F.relu(self.a(x))
                return x + self.b(y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))))
            case "conv":
                return F.relu(self.b(self.a(x)))
            case "repeated":
                for _ in range(2):
                    x = x + self.b(F.relu(self.a(x)))
                return x
            case "dead-code":
                y = F.relu(self.a(x))
                y.mean().exp()
                return x + self.b(y.to(torch.float32))
            case "weight-scaled":
                weight = self.a[0].weight / self.a[0].weight.norm()
                return x + self.b(F.relu(F.conv2d(x, weight, padding=1)))
        return F.relu(x + self.b(F.relu(self.a(x))))


class Images(nn.Module):
    """(batch, 3, 8, 8) images through drawn blocks to 5 outputs."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        self.stem, width = conv(3, 8), 8
        self.blocks = nn.ModuleList()
        for kind in kinds:
            self.blocks.append(Block(kind, width))
            width = self.blocks[-1].out
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Heads(nn.Module):
    """Self-attention with two heads, and a learned table of positions."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, 8) for _ in range(3))
        self.out = nn.Linear(8, width)
        self.table = nn.Parameter(torch.randn(tokens, tokens))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, 2, 4).transpose(1, 2) for part in (self.q, self.k, self.v))
        weights = q @ k.transpose(-2, -1) / 2 + self.table
        if mask is not None:
            weights = weights + mask
        return self.out((weights.softmax(-1) @ v).transpose(1, 2).reshape(b, n, 8))


class TokenBlock(nn.Module):
    """Attention and a feed-forward layer on 12 channels, as the kind says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.attention = Heads(12, 2 if kind == "windows" else 6)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)

    def mlp(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        match self.kind:
            case "post-norm":
                x = self.norm1(self.attention(x) + x)
                return self.norm2(self.mlp(x) + x)
            case "parallel":
                y = self.norm1(x)
                x = x + self.attention(y)
                return x + self.mlp(y)
            case "windows":
                y = torch.roll(self.norm1(x), -1, 1)
                y = self.attention(y.reshape(-1, 2, 12)).view(x.shape)
                x = x + torch.roll(y, 1, 1)
            case "own-mask":
                own = torch.zeros(6, 6)
                own[:2, 2:] = -5.0
                own[2:, :2] = -5.0
                x = x + self.attention(self.norm1(x), own)
            case "masked":
                x = x + self.attention(self.norm1(x), mask)
            case "linear":
                return self.mlp(x)
            case _:
                x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """(batch, 6, 5) tokens through drawn blocks to 4 outputs."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        self.masked = "masked" in kinds
        self.enter, self.leave = nn.Linear(5, 12), nn.Linear(12, 4)
        self.blocks = nn.ModuleList(TokenBlock(kind) for kind in kinds)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(6, 6)
        if self.masked:
            mask[:3, 3:] = -5.0
            mask[3:, :3] = -5.0
        y = self.enter(x)
        for block in self.blocks:
            y = block(y, mask)
        return self.leave(y.mean(1))
