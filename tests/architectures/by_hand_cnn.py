# SPDX-License-Identifier: Apache-2.0
"""Convolutional classifiers, by hand: the ways in which they branch, join, share and shuffle."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.architectures.architecture import Architecture, architecture, image

__all__ = ["CLASSIFIERS", "Cell", "Classifier", "conv_norm"]


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, where wanted, ReLU."""
    parts: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, nn.ReLU()) if act else nn.Sequential(*parts)


Cell = Callable[[int], tuple[nn.Module, int]]
"""Makes a part for an input width; gives it with its output width."""


class Classifier(nn.Module):
    """A stem, the given parts, pooling over space, a linear layer."""

    def __init__(self, cells: Sequence[Cell], stem: int = 16) -> None:
        super().__init__()
        self.stem = conv_norm(3, stem, stride=2)
        width, parts = stem, []
        for cell in cells:
            part, width = cell(width)
            parts.append(part)
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class ShuffleUnit(nn.Module):
    """ShuffleNet V2 (Ma et al. 2018): half of the channels pass, then all are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            conv_norm(half, half, 1),
            conv_norm(half, half, 3, groups=half, act=False),
            conv_norm(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.chunk(2, 1)
        x = torch.cat([kept, self.branch(worked)], 1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleDown(nn.Module):
    """ShuffleNet V2's unit of stride two: both branches see everything."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(
            conv_norm(inputs, inputs, 3, 2, inputs, act=False), conv_norm(inputs, half, 1)
        )
        self.right = nn.Sequential(
            conv_norm(inputs, half, 1),
            conv_norm(half, half, 3, 2, half, act=False),
            conv_norm(half, half, 1),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(torch.cat([self.left(x), self.right(x)], 1))


class GroupShuffle(nn.Module):
    """ShuffleNet V1 (Zhang et al. 2017): grouped 1x1 convolutions with a shuffle between."""

    def __init__(self, width: int, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.enter = conv_norm(width, width, 1, groups=groups)
        self.space = conv_norm(width, width, 3, groups=width, act=False)
        self.leave = conv_norm(width, width, 1, groups=groups, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        b, _, h, w = y.shape
        y = y.reshape(b, self.groups, -1, h, w).permute(0, 2, 1, 3, 4).flatten(1, 2)
        return F.relu(x + self.leave(self.space(y)))


class Ghost(nn.Module):
    """GhostNet's module (Han et al. 2020): half of the maps are made cheaply of the others."""

    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = conv_norm(inputs, half, 1, act=act)
        self.cheap = conv_norm(half, half, 3, groups=half, act=act)
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.outputs]


class SqueezeExcite(nn.Module):
    """A gate for each channel from the mean over space."""

    def __init__(self, width: int, hidden: int = 8) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(gate)


class GhostBottleneck(nn.Module):
    """Two ghost modules, a squeeze-excite gate, a shortcut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Ghost(width, hidden), SqueezeExcite(hidden), Ghost(hidden, width, act=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Res2(nn.Module):
    """Res2Net (Gao et al. 2019): the parts of a split hand their results on."""

    def __init__(self, width: int, scale: int = 4) -> None:
        super().__init__()
        part = width // scale
        self.enter, self.leave = conv_norm(width, width, 1), conv_norm(width, width, 1, act=False)
        self.convs = nn.ModuleList([conv_norm(part, part) for _ in range(scale - 1)])
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.split(self.enter(x), self.part, 1)
        outputs, before = [first], None
        for conv, part in zip(self.convs, rest, strict=True):
            before = conv(part if before is None else part + before)
            outputs.append(before)
        return F.relu(x + self.leave(torch.cat(outputs, 1)))


class Dense(nn.Module):
    """DenseNet's block (Huang et al. 2017), pre-activation, then a transition to half the width."""

    def __init__(self, width: int, growth: int = 8, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            self.layers.append(
                nn.Sequential(
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.Conv2d(width, 2 * growth, 1, bias=False),
                    nn.BatchNorm2d(2 * growth),
                    nn.ReLU(),
                    nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
                )
            )
            width += growth
        self.transition = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1), nn.AvgPool2d(2)
        )
        self.width = width // 2

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.transition(x)


class Fire(nn.Module):
    """SqueezeNet (Iandola et al. 2016): squeeze, then two expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one = nn.Conv2d(squeeze, expand, 1)
        self.three = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class StandardisedConv(nn.Conv2d):
    """A convolution whose weight is standardised by output in the graph (Qiao et al. 2019), with a
    learned gain (Brock et al. 2021)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        scale = torch.rsqrt((variance * self.weight[0].numel()).clamp_min(1e-4)) * self.gain
        return self._conv_forward(x, (self.weight - mean) * scale, self.bias)


class NormalizerFree(nn.Module):
    """NFNet's residual block: scaled activations and standardised weights instead of norms."""

    def __init__(self, width: int, beta: float = 0.8) -> None:
        super().__init__()
        hidden = width // 2
        self.beta = beta
        self.enter = StandardisedConv(width, hidden, 1)
        self.middle = StandardisedConv(hidden, hidden)
        self.leave = StandardisedConv(hidden, width, 1)
        self.skip_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(x) * 1.7015 * self.beta
        y = F.gelu(self.middle(F.gelu(self.enter(y)) * 1.7015)) * 1.7015
        return x + self.leave(y) * self.skip_gain * 0.2


class StandardisedByNorm(nn.Conv2d):
    """Weight standardisation as BiT and timm write it: the weight goes through ``batch_norm``."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True, eps=1e-5
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class BigTransfer(nn.Module):
    """BiT's block (Kolesnikov et al. 2020): group norm and standardised weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.ReLU(),
            StandardisedByNorm(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            StandardisedByNorm(width, width, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class InvertedResidual(nn.Module):
    """MobileNetV3's block (Howard et al. 2019): expand, depthwise, gate, project."""

    def __init__(self, width: int, expand: int = 4) -> None:
        super().__init__()
        hidden = width * expand
        self.body = nn.Sequential(
            conv_norm(width, hidden, 1, act=False),
            nn.Hardswish(),
            conv_norm(hidden, hidden, 5, groups=hidden, act=False),
            SqueezeExcite(hidden),
            nn.Hardswish(),
            conv_norm(hidden, width, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Inception(nn.Module):
    """GoogLeNet's four branches (Szegedy et al. 2015), one of them factorised as in version 3."""

    def __init__(self, inputs: int, part: int = 8) -> None:
        super().__init__()
        self.one = conv_norm(inputs, part, 1)
        self.three = nn.Sequential(conv_norm(inputs, part, 1), conv_norm(part, 2 * part))
        self.factorised = nn.Sequential(
            nn.Conv2d(inputs, part, (1, 7), padding=(0, 3)),
            nn.ReLU(),
            nn.Conv2d(part, part, (7, 1), padding=(3, 0)),
            nn.ReLU(),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(inputs, part, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.factorised(x), self.pooled(x)], 1)


class ResNeXt(nn.Module):
    """A bottleneck with a grouped convolution (Xie et al. 2017)."""

    def __init__(self, width: int, groups: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm(width, width, 1),
            conv_norm(width, width, 3, groups=groups),
            conv_norm(width, width, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class SelectiveKernel(nn.Module):
    """SKNet (Li et al. 2019): a softmax over branches for each channel."""

    def __init__(self, width: int, hidden: int = 8) -> None:
        super().__init__()
        self.three = conv_norm(width, width, 3, groups=4)
        self.five = conv_norm(width, width, 5, groups=4)
        self.reduce = nn.Linear(width, hidden)
        self.choose = nn.Linear(hidden, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([self.three(x), self.five(x)], 1)
        b, _, c, _, _ = branches.shape
        seen = branches.sum(1).mean((2, 3))
        share = self.choose(F.relu(self.reduce(seen))).view(b, 2, c).softmax(1)
        return x + (branches * share[..., None, None]).sum(1)


class CrossStage(nn.Module):
    """The cross-stage partial block of YOLOv5: two 1x1 branches, bottlenecks on one of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.left, self.right = conv_norm(width, half, 1), conv_norm(width, half, 1)
        self.body = nn.Sequential(conv_norm(half, half, 1), conv_norm(half, half))
        self.leave = conv_norm(2 * half, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        return self.leave(torch.cat([left + self.body(left), self.right(x)], 1))


class FastElan(nn.Module):
    """YOLOv8's C2f: one convolution, chunked; each bottleneck's result joins the concat."""

    def __init__(self, width: int, count: int = 2) -> None:
        super().__init__()
        half = width // 2
        self.enter = conv_norm(width, width, 1)
        self.body = nn.ModuleList([conv_norm(half, half) for _ in range(count)])
        self.leave = conv_norm((2 + count) * half, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for part in self.body:
            parts.append(parts[-1] + part(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Elan(nn.Module):
    """YOLOv7's efficient layer aggregation: every second state of a chain is concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.one, self.two = conv_norm(width, half, 1), conv_norm(width, half, 1)
        self.three = nn.Sequential(conv_norm(half, half), conv_norm(half, half))
        self.four = nn.Sequential(conv_norm(half, half), conv_norm(half, half))
        self.leave = conv_norm(4 * half, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        three = self.three(two)
        return self.leave(torch.cat([self.four(three), three, two, one], 1))


class SpatialPyramid(nn.Module):
    """YOLO's fast spatial pyramid pooling: max pools of max pools, concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = conv_norm(width, width // 2, 1), conv_norm(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        states = [self.enter(x)]
        for _ in range(3):
            states.append(F.max_pool2d(states[-1], 5, 1, 2))
        return self.leave(torch.cat(states, 1))


class RepVgg(nn.Module):
    """RepVGG before its branches are merged (Ding et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.three, self.one = conv_norm(width, width, act=False), conv_norm(width, width, 1, 1)
        self.same = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.three(x) + self.one(x) + self.same(x))


class FlatVgg(nn.Module):
    """VGG: no norms, max pooling, and linear layers on the flattened maps."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(4),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(32 * 16, 64),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(64, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def _keep(part: Callable[[int], nn.Module]) -> Cell:
    """A part that leaves the width as it is."""
    return lambda width: (part(width), width)


def _to(part: Callable[[int, int], nn.Module], width: int) -> Cell:
    """A part that changes the width."""
    return lambda before: (part(before, width), width)


def _down(width: int) -> Cell:
    return _to(lambda a, b: conv_norm(a, b, stride=2), width)


def _dense(width: int) -> tuple[nn.Module, int]:
    block = Dense(width)
    return block, block.width


def _fire(width: int) -> tuple[nn.Module, int]:
    return Fire(width, 8, 16), 32


def _inception(width: int) -> tuple[nn.Module, int]:
    return Inception(width), 40


def _classifier(name: str, *cells: Cell) -> Architecture:
    return architecture(name, "cnn", lambda: Classifier(cells), image(32))


CLASSIFIERS = (
    _classifier("shufflenet-v1", _keep(GroupShuffle), _down(32), _keep(GroupShuffle)),
    _classifier("shufflenet-v2", _keep(ShuffleUnit), _to(ShuffleDown, 32), _keep(ShuffleUnit)),
    _classifier("ghostnet", *[_keep(lambda w: GhostBottleneck(w, 2 * w))] * 2, _to(Ghost, 32)),
    _classifier("res2net", _down(32), _keep(Res2), _keep(Res2)),
    _classifier("densenet", _dense, _dense),
    _classifier("squeezenet", _fire, _fire),
    _classifier(
        "nfnet", _to(StandardisedConv, 32), *[_keep(NormalizerFree)] * 2, _to(StandardisedConv, 40)
    ),
    _classifier("bit", _down(32), _keep(BigTransfer)),
    _classifier("mobilenet-v3", _keep(InvertedResidual), _down(24), _keep(InvertedResidual)),
    _classifier("inception", _inception, _inception),
    _classifier("resnext", _down(32), _keep(ResNeXt), _keep(ResNeXt)),
    _classifier("sknet", _keep(SelectiveKernel), _down(24), _keep(SelectiveKernel)),
    _classifier("csp", _keep(CrossStage), _down(32), _keep(CrossStage), _keep(SpatialPyramid)),
    _classifier("c2f", _keep(FastElan), _down(32), _keep(FastElan)),
    _classifier("elan", _keep(Elan), _down(32), _keep(Elan)),
    _classifier("repvgg", _keep(RepVgg), _down(32), _keep(RepVgg)),
    architecture("vgg", "cnn", FlatVgg, image(32)),
)
