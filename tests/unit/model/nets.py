# SPDX-License-Identifier: Apache-2.0
"""Captured networks that the model tests share; each is captured once a process."""

import functools

import torch
from torch import Tensor, nn

from edgeprune.model import Event, Model, capture
from tests import networks

INPUTS = {
    "digits_cnn": ((1, 8, 8), torch.float32),
    "tiny_resnet": ((3, 32, 32), torch.float32),
    "TinyMobileNet": ((3, 32, 32), torch.float32),
    "TinyViT": ((3, 32, 32), torch.float32),
    "TinyBert": ((16,), torch.int64),
}


def sample(name: str, batch: int) -> Tensor:
    """Random inputs, the same each time."""
    shape, dtype = INPUTS[name]
    generator = torch.Generator().manual_seed(batch)
    if dtype is torch.int64:
        return torch.randint(0, 100, (batch, *shape), generator=generator)
    return torch.randn((batch, *shape), generator=generator)


@functools.cache
def network(name: str) -> nn.Module:
    """The network in eval mode, with batch norm statistics that aren't the initial ones."""
    torch.manual_seed(1)
    module = getattr(networks, name)()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
    return module.eval()


@functools.cache
def captured(name: str) -> Model:
    """The network as a model."""
    event = Event("load", {"kind": "test"})
    return capture(network(name), (sample(name, 2),), event=event)[0]


class Everything(nn.Module):
    """Tied weights, a non-persistent buffer, a constant, and every operator with a mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.out = nn.Linear(6, 10, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((6,), 0.5), persistent=False)
        self.constant = torch.full((6,), 2.0)
        self.batch_only = nn.BatchNorm1d(10, track_running_stats=False)
        self.norm = nn.BatchNorm1d(10, eps=1e-3, momentum=0.3)
        self.alpha = nn.AlphaDropout(0.31)
        self.feature = nn.Dropout1d(0.22)
        self.in_place = nn.Dropout(0.25, inplace=True)
        self.rrelu = nn.RReLU()
        self.lstm = nn.LSTM(10, 6, 2, dropout=0.15, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, 0.12, batch_first=True)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.out(self.embedding(ids) * self.scale * self.constant).transpose(1, 2)
        x = self.in_place(self.feature(self.alpha(self.norm(self.batch_only(x)))))
        x, _ = self.lstm(self.rrelu(x).transpose(1, 2))
        x = self.layer(x)
        return x.view(x.shape[0], -1), x.mean()


@functools.cache
def everything() -> tuple[nn.Module, Model]:
    torch.manual_seed(2)
    module = Everything().eval()
    example = torch.zeros(2, 5, dtype=torch.int64)
    return module, capture(module, (example,), event=Event("load"))[0]
