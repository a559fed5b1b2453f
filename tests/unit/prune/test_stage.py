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
from edgeprune.prune import plan, prune, stage
from edgeprune.prune.criteria import CRITERIA, Criterion, Scores, Subject
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


@pytest.fixture(scope="module")
def dynamic() -> Model:
    torch.manual_seed(0)
    example = (torch.randn(2, 1, 8, 8),)
    return as_model(capture_program(networks.DigitsCnn(8).eval(), example), Event("load"))


def test_data_or_none_decides_what_is_taken(dynamic, short, tmp_path) -> None:
    assert plan(dynamic, PruneOptions(), short).importance == "obs"
    assert plan(dynamic, PruneOptions(), Context(find_target("host"), tmp_path)).importance == "l2"


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_decides(dynamic, short, name: str) -> None:
    """And takes a network as it is given: with labels, and more samples than there are."""
    decision = plan(dynamic, PruneOptions(ratio=0.5, importance=name, multiple=1), short)
    assert decision.importance == name
    spared = {g.name for g in decision.groups if g.after == g.before}
    assert spared == ({"conv3"} if name == "bn-scale" else set())  # it has no batch norm


@pytest.mark.parametrize("name", [n for n, c in CRITERIA.items() if c.needs != "weights"])
def test_what_needs_samples_says_so(dynamic, tmp_path, name: str) -> None:
    blind = Context(find_target("host"), tmp_path)
    with pytest.raises(InputError, match=f"importance '{name}' needs --data"):
        plan(dynamic, PruneOptions(importance=name), blind)


def test_large_samples_come_in_small_batches(dynamic, short, monkeypatch) -> None:
    """Or a backward pass over them wouldn't fit into memory."""
    monkeypatch.setattr(stage, "_ELEMENTS", 5 * 64)
    sizes: list[int] = []

    def seen(subject: Subject) -> Scores:
        sizes.extend(len(batch) for batch in subject.drawn.batches)
        return np.ones(subject.groups.channels)

    monkeypatch.setattr(stage, "CRITERIA", {"fisher": Criterion(seen, needs="gradients")})
    plan(dynamic, PruneOptions(importance="fisher"), short)
    assert max(sizes) == 5


def test_what_is_excluded_is_not_said_to_be_rounded_away(fixed, short) -> None:
    _, report = prune(fixed, PruneOptions(exclude=("*",)), short)
    assert any("excluded" in note for note in report.notes)
    assert not any("too small" in note for note in report.notes)
