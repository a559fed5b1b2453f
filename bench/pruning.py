# SPDX-License-Identifier: Apache-2.0
"""What pruning keeps, beside Torch-Pruning: before training, and after 39 steps of one loop.

    pip install 'edgeprune[bench]'
    python bench/pruning.py --data cifar10.zip --weights resnet20=resnet20_cifar10.safetensors

Both tools prune one network to equal multiply-accumulates. edgeprune is told ``--macs`` alone, and
keeps the channel multiple of the target rpi4; Torch-Pruning has twelve settings, any width, and its
best counts. Then ``edgeprune finetune`` trains both alike: 39 batches of 128, from labels alone and
distilled from the dense network. Each result is a line of ``bench/pruning.jsonl``, so that a run
goes on where it was left; ``bench/pruning.md`` is written of all lines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torch_pruning as tp  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from edgeprune.channels import macs  # noqa: E402
from edgeprune.context import Context  # noqa: E402
from edgeprune.data import Data, open_data  # noqa: E402
from edgeprune.finetune import finetune  # noqa: E402
from edgeprune.inputs import make_judge  # noqa: E402
from edgeprune.model import Event, Model, capture, runner  # noqa: E402
from edgeprune.prune import prune  # noqa: E402
from edgeprune.recipe import FinetuneOptions, PruneOptions  # noqa: E402
from edgeprune.target import find_target  # noqa: E402
from tests.networks import ResNet  # noqa: E402

ROWS, PAGE = HERE / "pruning.jsonl", HERE / "pruning.md"
DEPTHS = {"resnet20": 3, "resnet56": 9}
SHARES = (0.5, 0.4)
LOOPS: dict[str, float | None] = {
    "as pruned": None,
    "39 steps, labels": 0.0,
    "39 steps, distilled": 0.5,
}
IMPORTANCE = ("magnitude", "taylor", "bn-scale")
SETTINGS = tuple(product(IMPORTANCE, ("all", "inner"), ("uniform", "global")))
SAMPLES = 512

Row = dict[str, Any]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as an image folder")
    parser.add_argument("--weights", action="append", required=True, metavar="NETWORK=FILE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    files = dict(pair.split("=", 1) for pair in given.weights)
    bench = Bench(given.data, given.threads)
    for name, seed, share in product(files, range(given.seeds), SHARES):
        dense = network(name, Path(files[name]))
        for row in bench.rows(name, dense, share, seed):
            with ROWS.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
    PAGE.write_text(page(read()), encoding="utf-8")


def network(name: str, weights: Path) -> nn.Module:
    """The dense network."""
    net = ResNet(DEPTHS[name])
    net.load_state_dict(load_file(weights))
    return net.eval()


def read() -> list[Row]:
    """All results so far."""
    lines = ROWS.read_text(encoding="utf-8").splitlines() if ROWS.exists() else []
    return [json.loads(line) for line in lines]


class Bench:
    """Data, loop and judge, the same for both tools."""

    def __init__(self, images: Path, threads: int) -> None:
        self.data = open_data(f"{HERE / 'cifar10_5k.toml'}={images}", seed=0)
        self.threads = threads
        self.done = {
            (r["network"], r["tool"], r["share"], r["seed"], r["loop"]): r.get("score", 0.0)
            for r in read()
        }

    def rows(self, name: str, net: nn.Module, share: float, seed: int) -> Iterator[Row]:
        """The missing results of one network, share and seed."""
        dense = captured(net)
        judge = make_judge(dense, self._context(dense, seed))
        assert judge is not None
        yield from self._row(judge, name, "dense", 1.0, 0, "as pruned", dense, dense)
        tools = ["edgeprune", *(" ".join(setting) for setting in SETTINGS)]
        for tool in tools:
            loops = [lo for lo in LOOPS if (name, tool, share, seed, lo) not in self.done]
            if seed and tool not in self._best(name, share):
                continue
            if not loops or self.done.get((name, tool, share, seed, "as pruned")) == 0.0:
                continue
            try:
                pruned = self._prune(tool, net, dense, share, seed)
            except RuntimeError as error:  # what Torch-Pruning made doesn't run
                key = {"network": name, "tool": tool, "share": share, "seed": seed}
                yield {**key, "loop": "as pruned", "error": str(error).splitlines()[0]}
                self.done[name, tool, share, seed, "as pruned"] = 0.0
                continue
            for loop in loops:
                tuned = self._tune(pruned, dense, LOOPS[loop], seed)
                yield from self._row(judge, name, tool, share, seed, loop, tuned, dense)

    def _best(self, name: str, share: float) -> set[str]:
        """edgeprune, and the peer's best setting for each loop at the first seed."""
        found = {"edgeprune"}
        for loop in LOOPS:
            scores = {
                tool: score
                for (net, tool, at, seed, lo), score in self.done.items()
                if (net, at, seed, lo) == (name, share, 0, loop) and tool != "edgeprune"
            }
            found |= {max(scores, key=scores.__getitem__)} if scores else set()
        return found

    def _row(  # noqa: PLR0913 - what a row says
        self,
        judge: Any,
        name: str,
        tool: str,
        share: float,
        seed: int,
        loop: str,
        model: Model,
        dense: Model,
    ) -> Iterator[Row]:
        key = (name, tool, share, seed, loop)
        if key in self.done:
            return
        score = judge.score(runner(model, self.threads)).value
        self.done[key] = score
        left = macs(model) / macs(dense)
        yield dict(zip(("network", "tool", "share", "seed", "loop"), key, strict=True)) | {
            "score": round(score, 2),
            "macs": round(left, 4),
        }

    def _context(self, dense: Model, seed: int, folder: Path = HERE) -> Context:
        return Context(find_target("rpi4"), folder, self.data, dense, seed, self.threads)

    def _prune(self, tool: str, net: nn.Module, dense: Model, share: float, seed: int) -> Model:
        if tool == "edgeprune":
            return prune(dense, PruneOptions(macs=share), self._context(dense, seed))[0]
        importance, where, scope = tool.split()
        return captured(peer(net, self.data, share, importance, where == "inner", scope, seed))

    def _tune(self, pruned: Model, dense: Model, distill: float | None, seed: int) -> Model:
        if distill is None:
            return pruned
        options = FinetuneOptions(epochs=1, batch_size=128, learning_rate=0.02, distill=distill)
        with tempfile.TemporaryDirectory() as folder:
            return finetune(pruned, options, self._context(dense, seed, Path(folder)))[0]


def captured(net: nn.Module) -> Model:
    """The carrier of a network."""
    return capture(net.eval(), (torch.rand(2, 3, 32, 32),), event=Event("bench"))[0]


def peer(
    net: nn.Module,
    data: Data,
    share: float,
    importance: str,
    inner: bool,
    scope: str,
    seed: int,
) -> nn.Module:
    """What Torch-Pruning makes of the network: the ratio at which ``share`` of the MACs is left."""
    low, high = 0.0, 0.95
    for _ in range(12):
        ratio = (low + high) / 2
        pruned, left = _peer_at(ratio, net, data, importance, inner, scope, seed)
        if abs(left - share) <= 0.005:
            break
        low, high = (ratio, high) if left > share else (low, ratio)
    return pruned


def _peer_at(
    ratio: float,
    net: nn.Module,
    data: Data,
    importance: str,
    inner: bool,
    scope: str,
    seed: int,
) -> tuple[nn.Module, float]:
    import copy

    net = copy.deepcopy(net)
    example = torch.rand(1, 3, 32, 32)
    before, _ = tp.utils.count_ops_and_params(net, example)
    ignored: list[nn.Module] = [part for name, part in net.named_modules() if name == "linear"]
    if inner:  # whatever the residual stream goes through stays whole
        ignored += [
            part for name, part in net.named_modules() if name.endswith("conv2") or name == "conv1"
        ]
    kinds = {
        "magnitude": tp.importance.GroupMagnitudeImportance(p=2),
        "taylor": tp.importance.GroupTaylorImportance(),
        "bn-scale": tp.importance.BNScaleImportance(),
    }
    if importance == "taylor":
        for batch in data.sample_train(64, SAMPLES, seed):
            F.cross_entropy(net(batch.inputs[0]), batch.labels).backward()
    pruner = tp.pruner.BasePruner(
        net,
        example,
        importance=kinds[importance],
        pruning_ratio=ratio,
        global_pruning=scope == "global",
        ignored_layers=ignored,
    )
    pruner.step()
    after, _ = tp.utils.count_ops_and_params(net, example)
    net.zero_grad()
    return net, after / before


def page(rows: list[Row]) -> str:
    """The tables."""
    lines = [
        "# Accuracy kept by pruning, beside Torch-Pruning",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores; torch {torch.__version__}, "
        f"Torch-Pruning {version('torch-pruning')}. "
        "CIFAR-10 (JPEG), 5,000 test images. edgeprune: `--macs` alone, widths in multiples of 8 "
        "(or 4, 2 where a group is narrow). Torch-Pruning: any width, and in each column the best "
        "of twelve settings (importance, groups, scope) as far as they run, chosen on the test "
        "images at seed 0, so in its favour. `edgeprune finetune` trains both: 39 batches of 128, "
        f"SGD at 0.02. Seeds: {', '.join(map(str, sorted({row['seed'] for row in rows})))}; where "
        "there are several, their mean, lowest and highest in brackets. Written by "
        "`python bench/pruning.py`.",
        "",
    ]
    for name in dict.fromkeys(row["network"] for row in rows):
        lines += _network(name, [row for row in rows if row["network"] == name])
    return "\n".join(lines).rstrip() + "\n"


def _network(name: str, rows: list[Row]) -> list[str]:
    failed = sorted({row["tool"] for row in rows if "error" in row})
    rows = [row for row in rows if "error" not in row]
    dense = next(row["score"] for row in rows if row["tool"] == "dense")
    lines = [f"## {name} (dense {dense:.1f} %)", ""]
    lines += [f"| MACs asked for | tool | {' | '.join(LOOPS)} |", "|---" * (2 + len(LOOPS)) + "|"]
    for share in sorted({row["share"] for row in rows if row["tool"] != "dense"}, reverse=True):
        here = [row for row in rows if row["share"] == share]
        peers = {r["tool"] for r in here} - {"edgeprune"}
        ours = [_cell(here, "edgeprune", loop) for loop in LOOPS]
        best = []
        for loop in LOOPS:
            first = {
                r["tool"]: r["score"]
                for r in here
                if r["tool"] in peers and not r["seed"] and r["loop"] == loop
            }
            top = max(first, key=first.__getitem__) if first else ""
            best.append(f"{_cell(here, top, loop)} {top}")
        lines.append(f"| {share:g} | edgeprune | {' | '.join(ours)} |")
        lines.append(f"| {share:g} | Torch-Pruning | {' | '.join(best)} |")
    lines += ["", "All settings at seed 0:", "", f"| MACs left | tool | {' | '.join(LOOPS)} |"]
    lines.append("|---" * (2 + len(LOOPS)) + "|")
    for share, tool in dict.fromkeys((r["share"], r["tool"]) for r in rows if r["tool"] != "dense"):
        own = [r for r in rows if (r["share"], r["tool"], r["seed"]) == (share, tool, 0)]
        scores = {r["loop"]: f"{r['score']:.1f}" for r in own}
        cells = " | ".join(scores.get(loop, "") for loop in LOOPS)
        lines.append(f"| {own[0]['macs']:.3f} | {tool} | {cells} |")
    if failed:
        text = "The network's shortcuts have no parameters (strided slices, padded with zeros)"
        lines += ["", f"{text}; pruned by these settings it doesn't run: {', '.join(failed)}."]
    return [*lines, ""]


def _cell(rows: list[Row], tool: str, loop: str) -> str:
    scores = [r["score"] for r in rows if r["tool"] == tool and r["loop"] == loop]
    if not scores:
        return ""
    spread = f" ({min(scores):.1f}-{max(scores):.1f})" if len(scores) > 1 else ""
    return f"{mean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
