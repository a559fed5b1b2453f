# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.mask import look
from edgeprune.model import Model
from edgeprune.tickets.allocate import allocate
from tests.unit.tickets.at_init.nets import run


def test_random_masks_have_erks_densities_unless_told_otherwise(
    deep: Model, tmp_path: Path
) -> None:
    found = run("random", deep, tmp_path, density=0.1)
    assert found.ticket.mask.densities == allocate(look(deep), 0.1, "erk")
    assert found.ticket.start is None
    assert (found.ledger.dense, found.ledger.steps) == (0, 0)
    even = run("random", deep, tmp_path, density=0.1, alloc="uniform").ticket.mask.densities
    assert max(even.values()) - min(even.values()) < 0.01


def test_the_seed_decides(bert: Model, tmp_path: Path) -> None:
    masks = [run("random", bert, tmp_path, seed=seed).ticket.mask for seed in (0, 0, 1)]
    assert masks[0].same(masks[1])
    assert masks[0].hamming(masks[2]) > 0.1


def test_dead_weights_are_told(deep: Model, tmp_path: Path) -> None:
    found = run("random", deep, tmp_path, density=0.001)
    assert found.details["effective_density"] < found.ticket.mask.density
    assert "path" in found.notes[-1]


def test_bad_input(deep: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="doesn't divide"):
        run("random", deep, tmp_path, density=0.5, pattern="2:4")
    with pytest.raises(InputError, match="fits no weight"):
        run("random", deep, tmp_path, exclude=("nothing*",))
