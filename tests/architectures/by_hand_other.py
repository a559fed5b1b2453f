# SPDX-License-Identifier: Apache-2.0
"""Sequences, points, volumes, mixers: by hand."""

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.architectures.architecture import architecture, image, tokens

__all__ = ["OTHERS"]


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021): one MLP over patches, one over channels, by turns."""

    def __init__(self, width: int = 32, patches: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * depth)])
        self.over_patches = nn.ModuleList([self._mlp(patches, 24) for _ in range(depth)])
        self.over_channels = nn.ModuleList([self._mlp(width, 64) for _ in range(depth)])
        self.head = nn.Linear(width, 10)

    def _mlp(self, width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for i, (tokens_, channels) in enumerate(
            zip(self.over_patches, self.over_channels, strict=True)
        ):
            x = x + tokens_(self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * i + 1](x))
        return self.head(x.mean(1))


class SelectiveScan(nn.Module):
    """Mamba's block (Gu and Dao 2023): causal depthwise convolution, a gate, and a selective
    state-space recurrence whose scan is unrolled over time."""

    def __init__(self, width: int, state: int = 4, rank: int = 4) -> None:
        super().__init__()
        inner = 2 * width
        self.state, self.rank = state, rank
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, padding=3, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.rate = nn.Linear(rank, inner)
        self.decay = nn.Parameter(torch.randn(inner, state))
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        y, gate = self.enter(self.norm(x)).chunk(2, -1)
        y = F.silu(self.conv(y.transpose(1, 2))[:, :, :length].transpose(1, 2))
        rate, into, out = self.select(y).split([self.rank, self.state, self.state], -1)
        rate = F.softplus(self.rate(rate))
        keep = torch.exp(rate.unsqueeze(-1) * -torch.exp(self.decay))
        enter = (rate * y).unsqueeze(-1) * into.unsqueeze(2)
        state = torch.zeros_like(enter[:, 0])
        results = []
        for t in range(length):
            state = keep[:, t] * state + enter[:, t]
            results.append((state * out[:, t].unsqueeze(1)).sum(-1))
        y = torch.stack(results, 1) + y * self.skip
        return x + self.leave(y * F.silu(gate))


class Mamba(nn.Module):
    """Two selective-scan blocks on embedded tokens."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tokens = nn.Embedding(100, width)
        self.layers = nn.Sequential(SelectiveScan(width), SelectiveScan(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.tokens(ids)))[:, -1])


class Tagger(nn.Module):
    """Embedding, a linear layer, a two-way LSTM, a label for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.enter = nn.Embedding(100, 24), nn.Linear(24, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.hidden = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 6)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(F.relu(self.enter(self.tokens(ids))))
        return self.head(self.hidden(states))


class SpeechRecurrent(nn.Module):
    """Convolutions over a spectrogram, a GRU over time, the last state classified."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(),
        )  # fmt: skip
        self.gru = nn.GRU(24 * 4, 16, batch_first=True)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x).permute(0, 3, 1, 2).flatten(2)
        states, _ = self.gru(y)
        return self.head(states[:, -1])


class EinsumAttention(nn.Module):
    """Attention written as einsums over (batch, tokens, heads, width), with a gated linear unit."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.size = width // heads
        self.tokens = nn.Embedding(100, width)
        self.query = nn.Parameter(torch.randn(width, heads, self.size))
        self.key = nn.Parameter(torch.randn(width, heads, self.size))
        self.value = nn.Parameter(torch.randn(width, heads, self.size))
        self.out = nn.Parameter(torch.randn(heads, self.size, width))
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 96), nn.Linear(48, width)
        self.head = nn.Linear(width, 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        q = torch.einsum("bnc,chd->bnhd", x, self.query)
        k = torch.einsum("bnc,chd->bnhd", x, self.key)
        v = torch.einsum("bnc,chd->bnhd", x, self.value)
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(math.sqrt(self.size)).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, v)
        x = x + torch.einsum("bqhd,hdc->bqc", mixed, self.out)
        x = x + self.down(F.glu(self.up(self.norm(x)), -1))
        return self.head(x.mean(1))


class PointNet(nn.Module):
    """PointNet (Qi et al. 2017): one MLP for all points, a learned 3x3 transform, a maximum over
    the points, which also joins each point's own features."""

    def __init__(self) -> None:
        super().__init__()
        self.align = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.matrix = nn.Linear(16, 9)
        self.local = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.wide = nn.Sequential(
            nn.Conv1d(16, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1)
        )
        self.head = nn.Sequential(nn.Conv1d(80, 32, 1), nn.BatchNorm1d(32), nn.ReLU(),
                                  nn.Conv1d(32, 4, 1))  # fmt: skip

    def forward(self, points: Tensor) -> Tensor:
        matrix = self.matrix(self.align(points).amax(2)).view(-1, 3, 3)
        points = torch.bmm(points.transpose(1, 2), matrix).transpose(1, 2)
        local = self.local(points)
        whole = torch.max(self.wide(local), 2, keepdim=True)[0]
        whole = whole.repeat(1, 1, points.shape[2])
        return self.head(torch.cat([local, whole], 1))


class Temporal(nn.Module):
    """A temporal convolutional network (Bai et al. 2018): causal, dilated, weight norm."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 16, 24, 24, 32)
        self.convs = nn.ModuleList()
        self.skips = nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            self.convs.append(
                parametrizations.weight_norm(nn.Conv1d(a, b, 3, padding=2 * 2**i, dilation=2**i))
            )
            self.skips.append(nn.Conv1d(a, b, 1) if a != b else nn.Identity())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2]
        for conv, skip in zip(self.convs, self.skips, strict=True):
            x = F.relu(skip(x) + F.relu(conv(x)[:, :, :length]))
        return self.head(x[:, :, -1])


class WaveNet(nn.Module):
    """WaveNet (van den Oord et al. 2016): tanh and sigmoid halves, residual and skip outputs."""

    def __init__(self, width: int = 16, skip: int = 24) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(
            [nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(3)]
        )
        self.residual = nn.ModuleList([nn.Conv1d(width, width, 1) for _ in range(3)])
        self.skips = nn.ModuleList([nn.Conv1d(width, skip, 1) for _ in range(3)])
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, 16, 1), nn.ReLU(), nn.Conv1d(16, 8, 1))
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), None
        for i, (gate, residual, skip) in enumerate(
            zip(self.gates, self.residual, self.skips, strict=True)
        ):
            y = gate(F.pad(x, (2**i, 0)))
            y = torch.tanh(y[:, : self.width]) * torch.sigmoid(y[:, self.width :])
            total = skip(y) if total is None else total + skip(y)
            x = x + residual(y)
        return self.head(total)


class Keywords(nn.Module):
    """DS-CNN (Zhang et al. 2017): depthwise-separable convolutions on a spectrogram."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        parts = [nn.Conv2d(1, width, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(width), nn.ReLU()]
        for _ in range(3):
            parts += [
                nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width),
                nn.ReLU(), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
            ]  # fmt: skip
        self.features = nn.Sequential(*parts, nn.Dropout(0.2), nn.AvgPool2d((25, 5)))
        self.head = nn.Linear(width, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(x), 1))


class Volume(nn.Module):
    """A 3-D residual network for clips, its convolutions factorised into space and time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 16, (3, 7, 7), (1, 2, 2), (1, 3, 3)), nn.BatchNorm3d(16), nn.ReLU()
        )
        self.space = nn.Conv3d(16, 24, (1, 3, 3), padding=(0, 1, 1))
        self.time = nn.Conv3d(24, 16, (3, 1, 1), padding=(1, 0, 0))
        self.norm = nn.BatchNorm3d(16)
        self.down = nn.Sequential(nn.MaxPool3d(2), nn.Conv3d(16, 32, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.norm(self.time(F.relu(self.space(x)))))
        return self.head(F.adaptive_avg_pool3d(self.down(x), 1).flatten(1))


class Conformer(nn.Module):
    """One Conformer layer (Gulati et al. 2020): half-step MLPs around attention by
    ``nn.MultiheadAttention`` and a gated convolution module."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Linear(16, width)
        self.first, self.last = self._mlp(width), self._mlp(width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.wide = nn.Conv1d(width, 2 * width, 1)
        self.depth = nn.Conv1d(width, width, 5, padding=2, groups=width)
        self.batch, self.point = nn.BatchNorm1d(width), nn.Conv1d(width, width, 1)
        self.head = nn.Linear(width, 8)

    def _mlp(self, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + 0.5 * self.first(x)
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = F.glu(self.wide(self.norms[1](x).transpose(1, 2)), 1)
        x = x + self.point(F.silu(self.batch(self.depth(y)))).transpose(1, 2)
        return self.head(self.norms[2](x + 0.5 * self.last(x)))


class Torso(nn.Module):
    """PyTorch's own encoder layers on patches, a learned query that attends to them."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.query = nn.Parameter(torch.randn(1, 1, width))
        self.pool = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(self.patch(x).flatten(2).transpose(1, 2))
        seen, _ = self.pool(self.query.expand(x.shape[0], -1, -1), x, x, need_weights=False)
        return self.head(seen[:, 0])


class Recommender(nn.Module):
    """DLRM (Naumov et al. 2019): tables, a dense MLP, products of all pairs, a second MLP."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(50, width) for _ in range(3)])
        self.bottom = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(width + 6, 32), nn.ReLU(), nn.Linear(32, 1))
        rows, columns = torch.tril_indices(4, 4, -1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        dense = self.bottom(dense)
        rows = [table(ids[:, i]) for i, table in enumerate(self.tables)]
        every = torch.stack([dense, *rows], 1)
        pairs = torch.bmm(every, every.transpose(1, 2))[:, self.rows, self.columns]
        return self.top(torch.cat([dense, pairs], 1))


def _random(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(2, *shape),)


def _features() -> tuple[Tensor, ...]:
    return torch.randn(2, 8), torch.randint(0, 50, (2, 3))


OTHERS = (
    architecture("mlp-mixer", "mixer", Mixer, image(32)),
    architecture("mamba", "state-space", Mamba, tokens(8)),
    architecture("lstm-tagger", "recurrent", Tagger, tokens(8)),
    architecture("conv-gru", "recurrent", SpeechRecurrent, _random(1, 16, 24)),
    architecture("einsum-attention", "transformer", EinsumAttention, tokens()),
    architecture("conformer", "audio", Conformer, _random(20, 16)),
    architecture("torch-encoder", "transformer", Torso, image(32)),
    architecture("pointnet", "points", PointNet, _random(3, 32)),
    architecture("tcn-weight-norm", "audio", Temporal, _random(8, 32)),
    architecture("wavenet", "audio", WaveNet, _random(1, 64)),
    architecture("ds-cnn", "audio", Keywords, _random(1, 49, 10)),
    architecture("resnet-3d", "video", Volume, _random(3, 4, 32, 32)),
    architecture("dlrm", "recommender", Recommender, _features),
)
