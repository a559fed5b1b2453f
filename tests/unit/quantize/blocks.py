# SPDX-License-Identifier: Apache-2.0
"""One small network for each thing that quantization has to get right."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Convolution, batch norm (eps 1e-3) and ReLU; then what a subclass does; mean and linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8, eps=1e-3)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)
        self.build()
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                    part.running_mean.uniform_(-0.3, 0.3)
                    part.running_var.uniform_(0.002, 1.5)
                    part.weight.uniform_(0.5, 1.5)
                    part.bias.uniform_(-0.5, 0.5)

    def build(self) -> None:
        """More layers."""

    def body(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class Grouped(Block):
    def body(self, x: Tensor) -> Tensor:
        return F.relu6(self.conv(x))


class Transposed(Block):
    def build(self) -> None:
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, groups=2)
        self.after = nn.BatchNorm2d(8, eps=1e-3)

    def body(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.after(self.up(x))))


class Concatenated(Block):
    def build(self) -> None:
        self.mix = nn.Conv2d(16, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.mix(torch.cat([x, self.conv(x)], 1)))


class HardSwish(Block):
    def body(self, x: Tensor) -> Tensor:
        return self.conv(F.hardswish(self.conv(x)))


class Silu(Block):
    def body(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x))


class SqueezeExcite(Block):
    def build(self) -> None:
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.conv(x * gate)


class Shuffled(Block):
    def body(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        x = torch.cat([right, F.relu(left)], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return self.conv(x.reshape(batch, channels, height, width))


class PreActivation(Block):
    """Its second batch norm stands alone, after an addition."""

    def build(self) -> None:
        self.after = nn.BatchNorm2d(8, eps=1e-3)

    def body(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.after(self.conv(x) + x)))


class TwoReaders(Block):
    """Its second batch norm can't be folded, since the addition reads the convolution too."""

    def build(self) -> None:
        self.after = nn.BatchNorm2d(8)

    def body(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.after(x) + x


class Pooled(Block):
    def body(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1, padding=1)
        return self.conv(F.max_pool2d(x, 2))


class Scalars(Block):
    def body(self, x: Tensor) -> Tensor:
        return self.conv((x * 0.5 + 1.0) / 3.0 - 0.25)


class InPlace(Block):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += x
        return F.relu_(y)


class Dropped(Block):
    """Dropout between two layers: where litert-torch gives a bias the wrong scale."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.dropout2d(F.relu(self.norm(self.stem(x))), 0.3, self.training))
        return self.head(F.dropout(x.mean((2, 3)), 0.5, self.training))


class OneDimensional(Block):
    def build(self) -> None:
        self.line = nn.Conv1d(8, 8, 3, padding="same", groups=2, bias=False)
        self.after = nn.BatchNorm1d(8, eps=1e-3)
        self.dense = nn.Linear(8, 8)
        self.last = nn.BatchNorm1d(8, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x))).flatten(2)
        x = F.relu(self.after(self.line(x))).mean(2)
        return self.head(F.relu(self.last(self.dense(x))))


class DeadChannels(Block):
    """Two channels with a bias and next to no weights, as pruned or starved ones have."""

    def build(self) -> None:
        with torch.no_grad():
            self.conv.weight[2:4] = torch.tensor([0.0, 1e-12]).reshape(2, 1, 1, 1)
            self.conv.bias[2:4] = 3.0

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Padded(Block):
    """Pads on one side, as TensorFlow does, before a convolution and before a shortcut."""

    def build(self) -> None:
        self.strided = nn.Conv2d(8, 8, 3, 2, groups=8)

    def body(self, x: Tensor) -> Tensor:
        y = F.relu6(self.strided(F.pad(x, (0, 1, 0, 1))))
        short = F.pad(x[:, 2:6, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return F.relu(y + short)


BLOCKS: tuple[type[Block], ...] = (
    Grouped,
    Transposed,
    Concatenated,
    HardSwish,
    Silu,
    SqueezeExcite,
    Shuffled,
    PreActivation,
    TwoReaders,
    Pooled,
    Scalars,
    InPlace,
    Dropped,
    OneDimensional,
    DeadChannels,
    Padded,
)


def block(kind: type[Block]) -> tuple[Block, Tensor]:
    """The network, and 16 samples of 3x8x8."""
    torch.manual_seed(1)
    return kind().eval(), torch.randn(16, 3, 8, 8)
