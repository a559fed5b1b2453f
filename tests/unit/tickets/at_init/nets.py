# SPDX-License-Identifier: Apache-2.0
"""Networks and runs that the tests at initialisation share."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.data import Data
from edgeprune.finetune import read_state, with_state
from edgeprune.mask import About, Mask, look
from edgeprune.model import Event, Model
from edgeprune.recipe import FinetuneOptions
from edgeprune.tickets.at_init import grasp, ntk_sap, random, snip, synflow
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.options import Method, TicketOptions
from tests.unit.finetune.toy import captured, context

_FIND = {
    "grasp": grasp.find,
    "ntk-sap": ntk_sap.find,
    "random": random.find,
    "snip": snip.find,
    "synflow": synflow.find,
}
ONE_BATCH = FinetuneOptions(batch_size=256, epochs=1, distill=0.0)


def mlp(sizes: Sequence[int], *, bias: bool = False, activation: type[nn.Module] = nn.ReLU) -> Any:
    """Linear layers with an activation between them."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        parts += [nn.Linear(inputs, outputs, bias=bias), activation()]
    return nn.Sequential(*parts[:-1])


def model_of(module: nn.Module, *example: Tensor, seed: int = 0) -> Model:
    """Captured, its float parameters drawn by ``seed``."""
    torch.manual_seed(seed)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return captured(module, *example)


def vgg(plan: Sequence[int | str], classes: int = 10) -> nn.Module:
    """3x3 convolutions with batch norm, ``M`` for a maximum over 2x2; for 1x8x8."""
    parts: list[nn.Module] = []
    inputs = 1
    for width in plan:
        if isinstance(width, str):
            parts.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        parts += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def altered(model: Model, change: Callable[[str, Tensor], Tensor]) -> Model:
    """The same graph with other values: ``change(name, value)`` for each parameter and buffer."""
    state = {name: change(name, value) for name, value in read_state(model.module()).items()}
    return with_state(model, state, Event("altered"))


def full(model: Model) -> Mask:
    """The mask that keeps everything."""
    return Mask.full({layer.name: layer.shape for layer in look(model).layers}, About("by hand"))


def run(
    method: Method,
    model: Model,
    folder: Path,
    *,
    data: Data | None = None,
    seed: int = 0,
    **options: Any,
) -> Found:
    """What a method finds."""
    where: Context = context(folder, data=data, seed=seed)
    return _FIND[method](model, TicketOptions(method=method, **options), where, Work(folder, "key"))
