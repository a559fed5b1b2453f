# SPDX-License-Identifier: Apache-2.0
"""Each architecture of the test set, halved: it trains, saves, and runs in both runtimes.

``make test`` tries a few of them, ``make test-slow`` the others.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.channels import macs
from edgeprune.context import Context
from edgeprune.data import Batch
from edgeprune.errors import InputError
from edgeprune.export.check import check, expect
from edgeprune.export.feed import random_batches
from edgeprune.export.onnx import write_onnx
from edgeprune.export.tflite import write_tflite
from edgeprune.finetune import read_state, train, with_state
from edgeprune.finetune.loop import Score, Step
from edgeprune.model import Event, Model, read, save, set_training
from edgeprune.prune import prune
from edgeprune.prune.recover import recover
from edgeprune.recipe import PruneOptions
from edgeprune.target import find_target
from tests.architectures import ARCHITECTURES
from tests.architectures.pruned import Subject, as_tuple, run

STEPS, TRAINED_ON = 10, 16
"""Batch norm's statistics of four samples are so rough that an EfficientNet's loss jumps."""
CHECKED_ON = 4
SAMPLE = ("mobilenet-v3", "res2net", "retinanet", "einsum-attention")
"""A gate, a split, several outputs, attention."""


def _subjects() -> Iterator[object]:
    for name in ARCHITECTURES:
        marks = () if name in SAMPLE else pytest.mark.slow
        yield pytest.param(name, marks=marks)


@pytest.fixture(scope="module", params=_subjects())
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


def _batch(model: Model) -> Batch:
    (arrays,) = random_batches(model, TRAINED_ON, seed=1)
    return Batch(tuple(torch.from_numpy(a) for a in arrays), None)


def _to_targets(module: nn.Module, batch: Batch) -> Callable[[nn.Module, Batch], Score]:
    """Mean squared error to random outputs of the network's own scale.

    Each step drops the same units: under others the loss of a few steps says little.
    """
    generator = torch.Generator().manual_seed(0)
    targets = [
        torch.randn(o.shape, generator=generator) * o.std() + o.mean()
        for o in run(module, batch.inputs)
    ]

    def loss(module: nn.Module, batch: Batch) -> Score:
        torch.manual_seed(0)
        outputs = as_tuple(module(*batch.inputs))
        errors = [
            (o - t).square().mean() / t.square().mean()
            for o, t in zip(outputs, targets, strict=True)
        ]
        return Score(torch.stack(errors).sum(), len(batch))

    return loss


def test_it_trains_and_saves(subject: Subject, tmp_path: Path) -> None:
    model = subject.halved
    module, batch = model.module(), _batch(model)
    set_training(module, True)
    loss = _to_targets(module, batch)
    before = {name: b.clone() for name, b in module.named_buffers()}
    optimizer = torch.optim.Adam(module.parameters())
    losses: list[float] = []

    def note(step: Step) -> None:
        losses.append(step.score.loss.item())

    train(module, enumerate(repeat(batch, STEPS)), loss, optimizer, lambda _: 2e-3, note, seed=0)
    set_training(module, False)
    assert sum(losses[-3:]) / 3 < losses[0]
    after = dict(module.named_buffers())
    assert [name for name in _statistics(module) if torch.equal(before[name], after[name])] == []
    trained = with_state(model, read_state(module), Event("fine-tune"))
    save(trained, tmp_path / "trained.pt2")
    again = read(tmp_path / "trained.pt2")
    for mine, saved in zip(
        run(module, batch.inputs), run(again.module(), batch.inputs), strict=True
    ):
        assert torch.equal(mine, saved)


def _statistics(module: GraphModule) -> list[str]:
    """The buffers that batch norms measure; a frozen norm's, which is plain arithmetic, stay."""
    nodes = module.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    reads = [argument for node in nodes for argument in node.args[3:5]]
    return [str(read.target) for read in reads if isinstance(read, Node)]


def test_half_of_the_macs_is_left_or_what_is_nearest(subject: Subject, tmp_path: Path) -> None:
    context = Context(find_target("rpi4"), tmp_path, seed=0)
    pruned, report = prune(subject.model, PruneOptions(macs=0.5, scope="cost"), context)
    left = macs(pruned) / macs(subject.model)
    (note,) = (n for n in report.notes if n.startswith("MACs: "))
    assert note.startswith(f"MACs: {left:.3f} of the dense model's are left, 0.5 asked for")
    assert abs(left - 0.5) <= 0.01 * 0.5 + 1e-3 or note.endswith(
        ("the nearest that the channel multiple allows", "none without going far below")
    )
    assert abs(left - 0.5) < 0.02


def test_what_is_left_can_be_fitted(subject: Subject) -> None:
    axes = subject.model.batch_axes
    size = subject.model.fixed_batch or 8
    batches = [
        Batch(tuple(map(torch.from_numpy, arrays)), None, axes)
        for seed in range(4)
        for arrays in random_batches(subject.model, size, seed=seed)
    ]

    def kept(name: str, dim: int) -> Tensor | None:
        rows = subject.groups.left(subject.half, name, dim)
        return None if rows is None else torch.from_numpy(rows)

    found = recover(subject.model, subject.halved, kept, batches, seed=0)
    assert found.model is subject.halved or found.after > found.before
    for one, other in zip(
        run(found.model.module(), batches[0].inputs),
        run(subject.halved.module(), batches[0].inputs),
        strict=True,
    ):
        assert one.shape == other.shape
        assert bool(one.isfinite().all()) or not bool(other.isfinite().all())


def test_onnx_takes_it(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(subject.halved, path, opset=20, batch=1)
    _agrees(path, subject.halved)


def test_tflite_takes_it_where_it_takes_the_dense_one(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    try:
        write_tflite(subject.model, path, batch=1)
        _agrees(path, subject.model)
    except InputError as refusal:
        pytest.skip(f"{subject.name}, dense: {refusal}")
    write_tflite(subject.halved, path, batch=1)
    _agrees(path, subject.halved)


def _agrees(path: Path, model: Model) -> None:
    expected = expect(model, random_batches(model, CHECKED_ON, seed=2), "random")
    figures, _ = check(path, model, expected, name=path.name)
    assert figures.samples == CHECKED_ON
