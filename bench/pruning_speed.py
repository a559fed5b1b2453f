# SPDX-License-Identifier: Apache-2.0
"""What analysis and surgery cost, beside Torch-Pruning and as networks grow."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
import transformers as hub
from prunable import SEED, final_layers, half
from rival import SETTINGS, pruner
from torch import Tensor, nn

from edgeprune.channels import analyse, apply
from edgeprune.model import Event, Model, capture

__all__ = ["scaling", "speed"]

REPEATS = 7
BLOCKS = (125, 250, 500, 1000)
LAYERS = (3, 6, 12, 24)
PRUNE = Event("prune")


@dataclass
class Times:
    """Seconds of one step, over the repeats."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, step: Callable[[], Any]) -> Any:
        """Run ``step`` once more."""
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        result = step()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        return result


class Logits(nn.Module):
    """A classifier of ``transformers`` that gives its logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        logits: Tensor = self.inner(x, return_dict=False)[0]
        return logits


def resnet50() -> nn.Module:
    """The default configuration: 25.6 M parameters with a head of 1,000 classes."""
    return Logits(hub.ResNetForImageClassification(hub.ResNetConfig(num_labels=1000))).eval()


def vit(layers: int = 12, width: int = 768, heads: int = 12) -> nn.Module:
    """ViT-B/16 at 224 pixels, or another of its kind."""
    config = hub.ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=1000,
    )
    return Logits(hub.ViTForImageClassification(config)).eval()


def race(name: str, make: Callable[[], nn.Module], repeats: int) -> list[str]:
    """The rows of one network in the table of times: both tools in turn, ``repeats`` times."""
    torch.manual_seed(SEED)
    module, x = make(), torch.randn(1, 3, 224, 224)
    last = final_layers(module, (x,))
    final = {name for name, part in module.named_modules() if part in last}
    kinds = ("capture", "analysis", "surgery", "graph", "random", "graph2", "magnitude")
    times = {kind: Times() for kind in kinds}

    def ours() -> None:
        load = Event("load")
        model: Model = times["capture"].measure(lambda: capture(module, (x,), event=load)[0])
        groups = times["analysis"].measure(lambda: analyse(model))
        removed = half(groups)
        times["surgery"].measure(lambda: apply(model, groups, removed, PRUNE))

    def theirs(graph: str, kind: str, importance: Any) -> None:
        torch.manual_seed(SEED)
        copy = make()
        ignored = [part for n, part in copy.named_modules() if n in final]
        plan = times[graph].measure(
            lambda: pruner(copy, (x,), ignored, SETTINGS[0], importance)  # builds and scans
        )
        times[kind].measure(plan.step)

    rivals = (
        lambda: theirs("graph", "random", tp.importance.RandomImportance()),
        lambda: theirs("graph2", "magnitude", tp.importance.GroupMagnitudeImportance(p=2)),
    )
    for turn in range(repeats + 1):
        order = (ours, *rivals)
        for contestant in order if turn % 2 else reversed(order):
            contestant()
        if turn == 0:  # to warm up
            for kind in times.values():
                kind.cpu.clear()
                kind.wall.clear()
    return _race_rows(name, times)


def _race_rows(name: str, times: dict[str, Times]) -> list[str]:
    lines = (
        ("edgeprune", "analysis", ["analysis"]),
        ("edgeprune", "surgery", ["surgery"]),
        ("edgeprune", "**analysis + surgery**", ["analysis", "surgery"]),
        ("edgeprune", "capture (torch.export)", ["capture"]),
        ("edgeprune", "all with capture", ["capture", "analysis", "surgery"]),
        ("Torch-Pruning", "dependency graph, which traces the model", ["graph"]),
        ("Torch-Pruning", "pruning, random importance", ["random"]),
        ("Torch-Pruning", "**graph + pruning**, random importance", ["graph", "random"]),
        ("Torch-Pruning", "graph + pruning, magnitude importance", ["graph2", "magnitude"]),
    )
    rows = []
    for tool, step, kinds in lines:
        cpu = _sums(times, kinds)
        wall = [sum(t) for t in zip(*(times[k].wall for k in kinds), strict=True)]
        rows.append(f"| {name} | {tool} | {step} | {_spread(cpu)} | {_spread(wall)} |")
        print(rows[-1], flush=True)
    whole = _sums(times, lines[7][2])
    for step, kinds in (("without capture", lines[2][2]), ("with capture", lines[4][2])):
        ratios = [b / a for a, b in zip(_sums(times, kinds), whole, strict=True)]
        said = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(f"| {name} | Torch-Pruning's over ours | **{step}** | **{said}** | |")
        print(rows[-1], flush=True)
    return rows


def _sums(times: dict[str, Times], kinds: Sequence[str]) -> list[float]:
    """CPU seconds of several steps together, for each turn."""
    return [sum(turn) for turn in zip(*(times[kind].cpu for kind in kinds), strict=True)]


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def speed(quick: bool) -> list[str]:
    """The second section."""
    repeats = 2 if quick else REPEATS
    networks: dict[str, Callable[[], nn.Module]] = {"ResNet-50": resnet50, "ViT-B/16": vit}
    if quick:
        networks = {"ResNet-50": resnet50}
    rows = [row for name, make in networks.items() for row in race(name, make, repeats)]
    return [
        "## Analysis and surgery",
        "",
        f"Seconds, median (smallest to largest) of {repeats} turns, the tools in turn in one "
        "process on one thread. The weights are random; a batch of one image of 224 pixels. "
        "Torch-Pruning chooses while it prunes, so random importance, which costs nothing, is the "
        "like of a surgery that is told what to remove. Its graph building traces the module; ours "
        "has a captured program, which every other stage needs too: both sums are given. Over 1x, "
        "edgeprune is the faster.",
        "",
        "| network | tool | step | CPU s | wall s |",
        "| --- | --- | --- | ---: | ---: |",
        *rows,
        "",
    ]


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.b = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return torch.relu(x + self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))))


def residual(blocks: int, width: int = 8) -> nn.Module:
    """A deep, narrow residual network."""
    body = [Block(width) for _ in range(blocks)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(nn.Conv2d(3, width, 3), *body, *head).eval()


def growth(
    name: str, sizes: Sequence[int], make: Callable[[int], nn.Module], x: Tensor
) -> list[str]:
    """The rows of one kind of network, and the exponents that fit its times."""
    rows, nodes, found = [], [], []
    for size in sizes:
        model, _ = capture(make(size), (x,), event=Event("load"))
        times = Times(), Times()
        for _ in range(3):
            groups = times[0].measure(lambda model=model: analyse(model))
            removed = half(groups)
            times[1].measure(lambda m=model, g=groups, r=removed: apply(m, g, r, PRUNE))
        nodes.append(len(model.program.graph.nodes))
        found.append([statistics.median(t.cpu) for t in times])
        rows.append(
            f"| {name}, {size} | {nodes[-1]:,} | {groups.walk.atoms.count:,} | "
            f"{len(groups.groups):,} | {_spread(times[0].cpu)} | {_spread(times[1].cpu)} |"
        )
        print(rows[-1], flush=True)
    fits = [_exponent(nodes, [line[i] for line in found]) for i in (0, 1)]
    rows.append(f"| {name}: exponent in nodes | | | | **{fits[0]:.2f}** | **{fits[1]:.2f}** |")
    return rows


def _exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms."""
    slope, _ = np.polyfit([math.log(s) for s in sizes], [math.log(s) for s in seconds], 1)
    return float(slope)


def scaling(quick: bool) -> list[str]:
    """The third section."""
    torch.manual_seed(SEED)
    blocks, layers = (
        (BLOCKS[0] // 5, BLOCKS[0]) if quick else BLOCKS,
        LAYERS[:2] if quick else LAYERS,
    )
    rows = growth("residual blocks of 8 channels", blocks, residual, torch.zeros(2, 3, 16, 16))
    large = torch.zeros(2, 3, 224, 224)
    rows += growth("ViT layers 1,024 wide", layers, lambda n: vit(n, 1024, 16), large)
    return [
        "## Growth",
        "",
        "CPU seconds of edgeprune, median (smallest to largest) of 3; 24 layers are ViT-L. The "
        "exponent is the slope of a straight line through the logarithms: 1 is linear.",
        "",
        "| network | nodes | atoms | groups | analysis | surgery |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]
