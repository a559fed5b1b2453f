# SPDX-License-Identifier: Apache-2.0
"""What the tests of methods that train share: the digits, a network for them, and kills."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgeprune.data import Data, open_data
from edgeprune.finetune import read_state
from edgeprune.model import Model
from edgeprune.tickets import training
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.options import TicketOptions
from tests.networks import digits_cnn
from tests.unit.finetune.toy import captured, context

Find = Callable[..., Found]


class Killed(BaseException):
    """What no handler catches, as ``kill -9``."""


@functools.cache
def digits() -> Data:
    return open_data("digits", seed=0)


@functools.cache
def network() -> Model:
    torch.manual_seed(0)
    return captured(digits_cnn(), torch.zeros(2, 1, 8, 8))


def run(find: Find, folder: Path, options: TicketOptions, **changes: Any) -> Found:
    surroundings = context(folder, **{"data": digits(), "seed": 3, **changes})
    return find(network(), options, surroundings, Work(folder, "key"))


def alive_only(found: Found) -> None:
    """The trained network has the mask's zeros, and weights elsewhere."""
    assert found.trained is not None
    state = found.trained.program.state_dict
    for name, kept in found.ticket.mask.keep.items():
        assert not state[name][~kept].any()
        assert (state[name][kept] != 0).float().mean() > 0.98  # a weight just grown may be zero


def outcome(found: Found) -> dict[str, Any]:
    """All that has to be equal, bit for bit, after a kill."""
    assert found.trained is not None
    costs = found.ledger.state()
    return {
        "mask": dict(found.ticket.mask.keep),
        "start": found.ticket.start and dict(found.ticket.start),
        "trained": read_state(found.trained.module()),
        "details": dict(found.details),
        "notes": found.notes,
        "costs": {name: costs[name] for name in ("dense", "sparse", "steps", "samples")},
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    return bool(one == other)


@contextmanager
def killed_after(saves: int) -> Iterator[None]:
    """Each step writes a checkpoint, and after so many the process is gone."""
    real, done = training.store, 0

    def store(*given: Any) -> None:
        nonlocal done
        real(*given)
        done += 1
        if done == saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
        patch.setattr(training, "store", store)
        yield
