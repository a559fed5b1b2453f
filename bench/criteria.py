# SPDX-License-Identifier: Apache-2.0
"""Which criterion keeps most: each one on nine small networks, cut alike, before any training.

    python bench/criteria.py --data cifar10.zip --resnet20 resnet20_cifar10.safetensors \
        --resnet56 resnet56_cifar10.safetensors --cache /tmp/criteria

writes ``bench/criteria.md``: the accuracy on held-out training images as the channels are cut, and
after least squares (``prune/recover.py``). The evaluation split is never read. Every network but
the two ResNets is trained here. About 20 minutes on one core; with ``--cache``, trained networks
and finished cells are taken from there, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from edgeprune.channels import Group, Groups, analyse, apply
from edgeprune.data import Batch
from edgeprune.model import Event, Model, capture
from edgeprune.profiler.machine import describe
from edgeprune.prune.criteria import CRITERIA, Samples, Subject
from edgeprune.prune.recover import recover
from edgeprune.tasks import Classes
from tests.networks import EncoderLayer, InvertedResidual, ResNet

HERE = Path(__file__).parent
TRAIN, HELD = 8_000, 1_000
SAMPLES = 256
"""Training images that criteria and least squares look at."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vgg() -> nn.Module:
    """Convolutions in a row, without a shortcut."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 24), (24, 48), (48, 48), (48, 96), (96, 96)):
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
        if inputs == outputs:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1536, 64), nn.ReLU(), nn.Linear(64, 10))


def mobilenet() -> nn.Module:
    """Inverted residuals with depthwise convolutions (MobileNetV2)."""
    plan = ((16, 24, 1, 4), (24, 24, 1, 4), (24, 32, 2, 4), (32, 32, 1, 4), (32, 48, 2, 4))
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()),
        *(InvertedResidual(*block) for block in plan),
        InvertedResidual(48, 48, 1, 4),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
    )


class DenseLayer(nn.Module):
    """Norm, ReLU, convolution; what goes in stays beside what comes out."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


def densenet() -> nn.Module:
    """Two dense blocks (DenseNet), for digits."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1),
        *(DenseLayer(24 + 12 * i, 12) for i in range(4)),
        *(nn.BatchNorm2d(72), nn.ReLU(), nn.Conv2d(72, 36, 1), nn.AvgPool2d(2)),
        *(DenseLayer(36 + 12 * i, 12) for i in range(4)),
        *(nn.BatchNorm2d(84), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(84, 10)),
    )


class NextBlock(nn.Module):
    """Depthwise convolution, layer norm, two linear layers, layer scale (ConvNeXt)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Three such blocks, for digits."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 2, 2),
        *(NextBlock(24) for _ in range(3)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)),
    )


class Tokens(nn.Module):
    """Patches of 2x2 digits pixels through ``layers``, and the mean of the tokens."""

    def __init__(self, width: int, layers: nn.Module) -> None:
        super().__init__()
        self.patch, self.layers = nn.Conv2d(1, width, 2, 2), layers
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


def vit() -> nn.Module:
    """A vision transformer for digits."""
    return Tokens(48, nn.Sequential(*(EncoderLayer(48, 6) for _ in range(3))))


class MixerLayer(nn.Module):
    """A feed-forward network over tokens, then one over channels (MLP-Mixer)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up1, self.down1 = nn.Linear(tokens, 32), nn.Linear(32, tokens)
        self.up2, self.down2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.down1(F.gelu(self.up1(self.norm1(x).transpose(1, 2))))
        x = x + y.transpose(1, 2)
        return x + self.down2(F.gelu(self.up2(self.norm2(x))))


def mixer() -> nn.Module:
    """An MLP-Mixer for digits."""
    return Tokens(32, nn.Sequential(*(MixerLayer(16, 32) for _ in range(3))))


def mlp() -> nn.Module:
    """Linear layers, for digits."""
    widths = (64, 96, 96, 96)
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *chain.from_iterable(layers), nn.Linear(96, 10))


@dataclass(frozen=True)
class Network:
    """One of the table's rows."""

    build: Callable[[], nn.Module]
    data: str
    ratio: float
    """Of each group's channels that goes."""
    epochs: int = 0
    """0: it comes trained."""


NETWORKS = {
    "ResNet-20": Network(lambda: ResNet(3), "cifar", 0.5),
    "VGG-like": Network(vgg, "cifar", 0.4, 3),
    "MobileNetV2-like": Network(mobilenet, "cifar", 0.4, 3),
    "DenseNet-like": Network(densenet, "digits", 0.6, 12),
    "ConvNeXt-like": Network(convnext, "digits", 0.7, 25),
    "ViT": Network(vit, "digits", 0.7, 25),
    "Mixer": Network(mixer, "digits", 0.7, 25),
    "MLP": Network(mlp, "digits", 0.7, 25),
    "ResNet-56": Network(lambda: ResNet(9), "cifar", 0.5),
}


@dataclass(frozen=True)
class Split:
    """Training images, and those of them that are held out."""

    x: Tensor
    y: Tensor
    held: tuple[Tensor, Tensor]


def main() -> None:
    """Fill the table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as an image folder")
    parser.add_argument("--resnet20", type=Path, required=True, help="its state dict")
    parser.add_argument("--resnet56", type=Path, required=True, help="its state dict")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what is done")
    parser.add_argument("--out", type=Path, default=HERE / "criteria.md")
    parser.add_argument("--only", choices=NETWORKS, action="append", help="some networks, no page")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    weights = {"ResNet-20": given.resnet20, "ResNet-56": given.resnet56}
    splits = {"cifar": cifar(given.data, given.cache / "images.npz"), "digits": digits()}
    cells = Cells(given.cache / "cells.jsonl")
    for name, network in NETWORKS.items():
        if given.only and name not in given.only:
            continue
        if all((name, criterion) in cells.done for criterion in CRITERIA):
            continue
        split = splits[network.data]
        module = network.build()
        file = weights.get(name, given.cache / f"{name}.safetensors")
        if file.exists():
            module.load_state_dict(load_file(file))
        else:
            train(module, split, network.epochs)
            save_file(module.state_dict(), file)
        for cell in fill(name, network, module.eval(), split, cells):
            cells.add(cell)
    if not given.only:
        given.out.write_text(page(cells.done), encoding="utf-8")


class Cells:
    """What was measured, one line a cell, kept as soon as it is there."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        cells = [json.loads(line) for line in lines]
        self.done: dict[tuple[str, str], dict[str, Any]] = {
            (cell["network"], cell["criterion"]): cell for cell in cells
        }

    def add(self, cell: dict[str, Any]) -> None:
        """Keep one."""
        self.done[cell["network"], cell["criterion"]] = cell
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
        print(json.dumps(cell), flush=True)


def cifar(archive: Path, cache: Path) -> Split:
    """Some of the training images; the test images aren't opened."""
    if not cache.exists():
        with zipfile.ZipFile(archive) as file:
            names = sorted(n for n in file.namelist() if "/train/" in n and n.endswith(".jpg"))
            classes = sorted({name.split("/")[-2] for name in names})
            chosen = np.random.default_rng(0).permutation(len(names))[: TRAIN + HELD]
            images = [np.asarray(Image.open(io.BytesIO(file.read(names[i])))) for i in chosen]
            labels = [classes.index(names[i].split("/")[-2]) for i in chosen]
        np.savez(cache, x=np.stack(images), y=np.array(labels))
    stored = np.load(cache)
    x = (stored["x"].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return split_off(x.transpose(0, 3, 1, 2).copy(), stored["y"], HELD)


def digits() -> Split:
    """scikit-learn's, 8x8 pixels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return split_off((x[order] / 8 - 1).reshape(-1, 1, 8, 8).astype(np.float32), y[order], 600)


def split_off(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], held: int) -> Split:
    """The last ones are held out."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y).long()
    return Split(images[:-held], labels[:-held], (images[-held:], labels[-held:]))


def train(module: nn.Module, split: Split, epochs: int) -> None:
    """AdamW with one cycle of the rate; flips of colour images."""
    torch.manual_seed(0)
    steps = epochs * (len(split.x) // 64)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    module.train()
    for _ in range(epochs):
        order = torch.randperm(len(split.x))
        for rows in order.split(64)[: len(split.x) // 64]:
            x = split.x[rows]
            if x.shape[1] == 3:
                x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, x.flip(3))
            optimizer.zero_grad()
            F.cross_entropy(module(x), split.y[rows]).backward()
            optimizer.step()
            schedule.step()


def fill(
    name: str, network: Network, module: nn.Module, split: Split, cells: Cells
) -> Iterator[dict[str, Any]]:
    """The cells of one network that aren't there yet."""
    model, _ = capture(module, (split.x[:2],), event=Event("capture"))
    groups = analyse(model)
    chosen = inner(model, groups)
    dense = accuracy(model, split)
    for criterion in CRITERIA:
        if (name, criterion) in cells.done:
            continue
        start = time.process_time()
        removed = lowest(groups, chosen, scores(criterion, model, groups, split), network.ratio)
        seconds = time.process_time() - start
        cut = apply(model, groups, removed, Event("prune"))
        batches = [Batch((part,), None) for part in split.x[:SAMPLES].split(64)]
        fitted = recover(model, cut, left(groups, removed), batches, 0).model
        yield {
            "network": name,
            "criterion": criterion,
            "dense": dense,
            "macs": groups.totals(removed).macs / groups.totals().macs,
            "cut": accuracy(cut, split),
            "fitted": accuracy(fitted, split),
            "seconds": seconds,
        }


def inner(model: Model, groups: Groups) -> list[Group]:
    """The groups that one layer alone writes: not a residual stream. A depthwise layer writes what
    it reads."""
    state = model.program.state_dict

    def writes(name: str, dim: int) -> bool:
        return dim == 0 and state[name].dim() > 1 and state[name].shape[1] > 1

    return [g for g in groups.groups if sum(writes(*member) for member in g.members) == 1]


def scores(
    criterion: str, model: Model, groups: Groups, split: Split
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """As the pruning stage asks for them. Groups without a score come out as equals."""
    pairs = zip(split.x[:SAMPLES].split(32), split.y[:SAMPLES].split(32), strict=True)
    batches = (Batch((x,), y) for x, y in pairs)
    samples = Samples(batches, [Classes(1, (10,), labelled=True)], SAMPLES)
    found = CRITERIA[criterion].score(Subject(model, groups, samples=samples))
    return np.nan_to_num(found, nan=0.0)


def lowest(
    groups: Groups,
    chosen: list[Group],
    found: np.ndarray[Any, np.dtype[np.float64]],
    ratio: float,
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """In each group the same share."""
    removed = groups.keep_all()
    for group in chosen:
        order = np.argsort(found[group.channels], kind="stable")
        removed[group.channels[order[: round(ratio * group.size)]]] = True
    return removed


def left(
    groups: Groups, removed: np.ndarray[Any, np.dtype[np.bool_]]
) -> Callable[[str, int], Tensor | None]:
    """What ``recover`` asks."""

    def kept(name: str, dim: int) -> Tensor | None:
        rows = groups.left(removed, name, dim)
        return None if rows is None else torch.from_numpy(rows)

    return kept


@torch.no_grad()
def accuracy(model: Model, split: Split) -> float:
    """Percent right of the held-out images."""
    module = model.module()
    x, y = split.held
    right = [module(part).argmax(1) for part in x.split(100)]
    return 100 * float((torch.cat(right) == y).double().mean())


def page(done: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The tables."""
    lines = [
        "# Which criterion keeps most accuracy",
        "",
        "Accuracy in percent on held-out training images after the same share of each group that "
        "one layer alone writes went (residual streams stay whole), to any width: first after "
        "least squares without training, then as cut. "
        f"{SAMPLES} training images for criteria and least squares; CIFAR-10 (JPEG) with {HELD:,} "
        "held out, which the two ResNets saw in their own training, and scikit-learn's digits with "
        "600. Nothing was looked at on an evaluation split. One seed: differences under 2 points "
        "in a single cell mean nothing. A criterion that has no score for a group takes its first "
        "channels. `auto` takes `obs` with data, `l2` without.",
        "",
        *table("After least squares", done, "fitted"),
        *table("As cut", done, "cut"),
        f"{datetime.now(UTC):%Y-%m-%d}; {describe()}; one thread; `python bench/criteria.py`.",
        "",
    ]
    return "\n".join(lines)


def table(title: str, done: dict[tuple[str, str], dict[str, Any]], key: str) -> Iterator[str]:
    """One row a criterion, best first by its mean over the networks whose cells are all there."""
    whole = {name for name in NETWORKS if all((name, c) in done for c in CRITERIA)}

    def row(name: str, needs: str, values: dict[str, float]) -> str:
        cells = [f"{values[n]:.1f}" if n in values else "" for n in NETWORKS]
        mean = np.mean([values[n] for n in whole])
        return f"| {name} | {needs} | {' | '.join(cells)} | {mean:.1f} |"

    yield f"## {title}"
    yield ""
    yield f"| criterion | needs | {' | '.join(NETWORKS)} | mean |"
    yield f"| --- | --- |{' ---: |' * (len(NETWORKS) + 1)}"
    first = {name: done[name, "l1"] for name in NETWORKS if (name, "l1") in done}
    yield row("*dense*", "", {n: cell["dense"] for n, cell in first.items()})
    yield row("*MACs left*", "", {n: 100 * cell["macs"] for n, cell in first.items()})
    found = {c: {n: done[n, c][key] for n in NETWORKS if (n, c) in done} for c in CRITERIA}
    for criterion in sorted(CRITERIA, key=lambda c: -float(np.mean([found[c][n] for n in whole]))):
        yield row(criterion, CRITERIA[criterion].needs, found[criterion])
    yield ""


if __name__ == "__main__":
    main()
