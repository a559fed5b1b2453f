# SPDX-License-Identifier: Apache-2.0
"""Networks with maps, images or several tensors as outputs, by hand."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.architectures.architecture import architecture, image
from tests.architectures.by_hand_cnn import conv_norm

__all__ = ["DENSE"]


class UNet(nn.Module):
    """Encoder, decoder with transposed convolutions, skips by concat (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv_norm(3, 8), conv_norm(8, 16), conv_norm(16, 32)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.merge = nn.ModuleList([conv_norm(32, 16), conv_norm(16, 8)])
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.down[2](F.max_pool2d(second, 2))
        for up, merge, skip in zip(self.up, self.merge, (second, first), strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class NestedUNet(nn.Module):
    """UNet++ (Zhou et al. 2018) of two levels, with deep supervision: a map from each state."""

    def __init__(self) -> None:
        super().__init__()
        self.a0, self.b0, self.c0 = conv_norm(3, 8), conv_norm(8, 16), conv_norm(16, 24)
        self.a1, self.b1 = conv_norm(8 + 16, 8), conv_norm(16 + 24, 16)
        self.a2 = conv_norm(8 + 8 + 16, 8)
        self.heads = nn.ModuleList([nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def up(y: Tensor) -> Tensor:
            return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)

        a0 = self.a0(x)
        b0 = self.b0(F.max_pool2d(a0, 2))
        c0 = self.c0(F.max_pool2d(b0, 2))
        a1 = self.a1(torch.cat([a0, up(b0)], 1))
        b1 = self.b1(torch.cat([b0, up(c0)], 1))
        a2 = self.a2(torch.cat([a0, a1, up(b1)], 1))
        return self.heads[0](a1), self.heads[1](a2)


class Fusion(nn.Module):
    """HRNet's exchange (Wang et al. 2020): each resolution gets the sum of all, resized."""

    def __init__(self, widths: tuple[int, int, int] = (8, 16, 24)) -> None:
        super().__init__()
        self.stems = nn.ModuleList([conv_norm(3, w, stride=2**i) for i, w in enumerate(widths)])
        self.branches = nn.ModuleList([conv_norm(w, w) for w in widths])
        self.mixers = nn.ModuleList()
        for goal, outputs in enumerate(widths):
            row = nn.ModuleList()
            for source, inputs in enumerate(widths):
                if source == goal:
                    row.append(nn.Identity())
                elif source > goal:
                    row.append(conv_norm(inputs, outputs, 1, act=False))
                else:
                    row.append(conv_norm(inputs, outputs, 3, 2 ** (goal - source), act=False))
            self.mixers.append(row)
        self.head = nn.Conv2d(sum(widths), 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(stem(x)) for branch, stem in zip(self.branches, self.stems, strict=True)]
        mixed = []
        for goal, row in enumerate(self.mixers):
            size = maps[goal].shape[2:]
            terms = [
                F.interpolate(mixer(y), size=size) if source > goal else mixer(y)
                for source, (mixer, y) in enumerate(zip(row, maps, strict=True))
            ]
            mixed.append(F.relu(sum(terms[1:], terms[0])))
        size = mixed[0].shape[2:]
        return self.head(torch.cat([F.interpolate(y, size=size) for y in mixed], 1))


class Autoencoder(nn.Module):
    """Convolutions to a flat code and back, with a reshape of the code into maps."""

    def __init__(self, code: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(16 * 64, code),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(code, 16 * 64), nn.ReLU(), nn.Unflatten(1, (16, 8, 8)),
            nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self.encoder(x)))


class SuperResolution(nn.Module):
    """EDSR (Lim et al. 2017) with pixel shuffle, twice the size, and a resized skip."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, padding=1),
                )
                for _ in range(2)
            ]
        )
        self.grow = nn.Sequential(nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = y = self.enter(x)
        for block in self.body:
            y = y + 0.1 * block(y)
        y = self.leave(self.grow(first + y))
        return y + F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


class RetinaNet(nn.Module):
    """A feature pyramid with heads that all levels share (Lin et al. 2017): scores and boxes of
    every anchor of every level, flattened and concatenated."""

    def __init__(self, classes: int = 5, anchors: int = 3, width: int = 16) -> None:
        super().__init__()
        self.classes = classes
        sizes = (16, 24, 32)
        self.stem = conv_norm(3, 16, stride=2)
        self.stages = nn.ModuleList(
            [conv_norm(a, b, stride=2) for a, b in zip((16, *sizes), sizes, strict=False)]
        )
        self.lateral = nn.ModuleList([nn.Conv2d(c, width, 1) for c in sizes])
        self.smooth = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in sizes])
        self.scores = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv2d(width, anchors * classes, 3, padding=1),
        )
        self.boxes = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, anchors * 4, 3, padding=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        pyramid = [lateral(y) for lateral, y in zip(self.lateral, maps, strict=True)]
        for i in (1, 0):
            size = pyramid[i].shape[2:]
            pyramid[i] = pyramid[i] + F.interpolate(pyramid[i + 1], size=size)
        pyramid = [smooth(y) for smooth, y in zip(self.smooth, pyramid, strict=True)]
        scores = [self._flat(self.scores(y), self.classes) for y in pyramid]
        boxes = [self._flat(self.boxes(y), 4) for y in pyramid]
        return torch.cat(scores, 1), torch.cat(boxes, 1)

    def _flat(self, x: Tensor, size: int) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)


class SingleShot(nn.Module):
    """SSD (Liu et al. 2016): a head of its own at each scale, an L2 norm on the first map."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.one, self.two = conv_norm(3, 16, stride=2), conv_norm(16, 24, stride=2)
        self.three = nn.Sequential(
            nn.Conv2d(24, 32, 3, 2, padding=2, dilation=2), nn.ReLU(), conv_norm(32, 32, 1)
        )
        self.scale = nn.Parameter(torch.full((1, 24, 1, 1), 20.0))
        self.heads = nn.ModuleList([nn.Conv2d(24, classes + 4, 3, padding=1),
                                    nn.Conv2d(32, classes + 4, 3, padding=1)])  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        two = self.two(self.one(x))
        normed = F.normalize(two, dim=1) * self.scale
        return self.heads[0](normed), self.heads[1](self.three(two))


class YoloHead(nn.Module):
    """A backbone and YOLOv8's head: boxes as expectations over a distribution of distances."""

    def __init__(self, classes: int = 4, bins: int = 8) -> None:
        super().__init__()
        self.bins = bins
        self.one, self.two = conv_norm(3, 16, stride=2), conv_norm(16, 24, stride=2)
        self.three = conv_norm(24, 32, stride=2)
        self.box = nn.ModuleList([self._head(c, 4 * bins) for c in (24, 32)])
        self.score = nn.ModuleList([self._head(c, classes) for c in (24, 32)])
        self.register_buffer("places", torch.arange(bins, dtype=torch.float32))

    def _head(self, inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(conv_norm(inputs, 16), nn.Conv2d(16, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        two = self.two(self.one(x))
        rows = []
        for y, box, score in zip((two, self.three(two)), self.box, self.score, strict=True):
            sides = box(y).flatten(2).unflatten(1, (4, self.bins)).softmax(2)
            distances = (sides * self.places.view(1, 1, -1, 1)).sum(2)
            rows.append(torch.cat([distances, score(y).flatten(2).sigmoid()], 1))
        return torch.cat(rows, 2)


class Aspp(nn.Module):
    """DeepLab (Chen et al. 2017): dilated branches, and the global mean stretched over space."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16, stride=2), conv_norm(16, 32, stride=2))
        self.branches = nn.ModuleList(
            [nn.Conv2d(32, width, 3, padding=d, dilation=d) for d in (1, 2, 4)]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, width, 1), nn.ReLU())
        self.project = conv_norm(4 * width, width, 1)
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        terms = [F.relu(branch(y)) for branch in self.branches]
        terms.append(self.pooled(y).expand(-1, -1, *y.shape[2:]))
        y = self.head(self.project(torch.cat(terms, 1)))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


class Discriminator(nn.Module):
    """A patch discriminator whose weights are divided by their spectral norm (Miyato et al.)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 24, 32)
        self.convs = nn.ModuleList(
            [
                parametrizations.spectral_norm(nn.Conv2d(a, b, 4, 2, 1), n_power_iterations=20)
                for a, b in itertools.pairwise(widths)
            ]
        )
        self.head = parametrizations.spectral_norm(nn.Conv2d(32, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return self.head(x)


DENSE = (
    architecture("unet", "segmentation", UNet, image(32)),
    architecture("unet-nested", "segmentation", NestedUNet, image(32)),
    architecture("hrnet", "segmentation", Fusion, image(32)),
    architecture("deeplab", "segmentation", Aspp, image(32)),
    architecture("autoencoder", "generative", Autoencoder, image(32, channels=1)),
    architecture("super-resolution", "generative", SuperResolution, image(16)),
    architecture("spectral-norm", "generative", Discriminator, image(32)),
    architecture("retinanet", "detection", RetinaNet, image(64)),
    architecture("ssd", "detection", SingleShot, image(32)),
    architecture("yolo-head", "detection", YoloHead, image(32)),
)
