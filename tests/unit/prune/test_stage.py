# SPDX-License-Identifier: Apache-2.0
"""Which criterion is taken where the data is short."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.context import Context
from edgeprune.data import open_data
from edgeprune.errors import InputError
from edgeprune.model import Event, Model
from edgeprune.model.capture import as_model, capture_program
from edgeprune.prune import plan, prune
from edgeprune.recipe import PruneOptions
from edgeprune.target import find_target
from tests import networks


@pytest.fixture(scope="module")
def fixed() -> Model:
    """A network that takes batches of 64 only."""
    example = (torch.randn(64, 1, 8, 8),)
    program = capture_program(networks.DigitsCnn(8).eval(), example, dynamic=False)
    return as_model(program, Event("load"))


@pytest.fixture
def short(tmp_path: Path) -> Context:
    """40 samples."""
    file = tmp_path / "short.npz"
    np.savez(file, x=np.zeros((40, 1, 8, 8), np.float32), y=np.arange(40) % 10)
    return Context(find_target("host"), tmp_path, open_data(str(file), seed=0))


def test_less_than_one_fixed_batch_is_no_gradient(fixed, short) -> None:
    assert plan(fixed, PruneOptions(), short).importance == "l2"


def test_asking_for_it_is_refused(fixed, short) -> None:
    with pytest.raises(InputError, match="needs 64 training samples"):
        plan(fixed, PruneOptions(importance="taylor"), short)


def test_what_is_excluded_is_not_said_to_be_rounded_away(fixed, short) -> None:
    _, report = prune(fixed, PruneOptions(exclude=("*",)), short)
    assert any("excluded" in note for note in report.notes)
    assert not any("too small" in note for note in report.notes)
