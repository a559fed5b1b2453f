# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.data import Data, open_data
from edgeprune.errors import DataError, InputError
from edgeprune.mask import About, Mask
from edgeprune.model import Model
from edgeprune.tickets.lens.jacobian import Kernel
from edgeprune.tickets.lens.ntk import (
    Row,
    Sampling,
    alignment,
    compare,
    difference,
    effective_rank,
    lens,
)
from tests.unit.finetune.toy import captured


def rows() -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int64)}


@pytest.fixture(scope="module")
def samples() -> Data:
    return open_data(f"{__name__}:rows", seed=0)


@pytest.fixture(scope="module")
def small() -> Model:
    torch.manual_seed(0)
    return captured(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(2, 6))


@pytest.fixture(scope="module")
def masks() -> dict[str, Mask]:
    shapes = {"0.weight": (8, 6), "2.weight": (2, 8)}
    random = torch.Generator().manual_seed(0)
    found = {}
    for density in (0.7, 0.3):
        keep = {n: torch.rand(s, generator=random) < density for n, s in shapes.items()}
        found[f"at {density}"] = Mask(keep, About("by hand"))
    return found


def kernel(values: Tensor, **changes: Any) -> Kernel:
    plain = Kernel(values.double(), "sum", len(values), 1, 10, "by hand")
    return replace(plain, **changes)


def test_a_lens_reads_a_known_spectrum() -> None:
    turn, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    )
    found = lens(kernel(turn @ torch.diag(torch.tensor([8.0, 4.0, 2.0]).double()) @ turn.T))
    assert found.spectrum == pytest.approx((8, 4, 2))
    assert (found.trace, found.condition) == pytest.approx((14, 4))
    shares = (8 / 14, 4 / 14, 2 / 14)
    assert found.effective_rank == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares)))
    assert (found.alignment, found.distance, found.dissimilarity) == (None, None, None)


def test_what_a_kernel_cannot_say_is_absent() -> None:
    flat = torch.ones(3, 3)
    assert lens(kernel(flat)).condition is None  # singular
    assert lens(kernel(torch.eye(3), directions=2)).condition is None
    assert lens(kernel(torch.eye(3), directions=3)).condition == 1
    assert lens(kernel(torch.zeros(3, 3))).effective_rank == 0
    assert lens(kernel(flat), torch.zeros(3).long()).alignment is None  # one class
    assert lens(kernel(torch.eye(3)), torch.rand(3)).alignment is None  # no classes
    assert difference(torch.zeros(2, 2), torch.eye(2)) == (1, None)
    assert difference(torch.eye(2), torch.zeros(2, 2)) == (None, None)


@given(st.integers(0, 10**6), st.floats(0.1, 10))
@settings(max_examples=20)
def test_measures_keep_their_bounds_and_scale(seed: int, factor: float) -> None:
    random = torch.Generator().manual_seed(seed)
    half = torch.randn(5, 7, generator=random).double()
    labels = torch.randint(0, 3, (5,), generator=random)
    values = half @ half.T
    found = alignment(values, labels)
    if len(set(labels.tolist())) > 1:
        assert found is not None
        assert 0 <= found <= 1 + 1e-9
        assert alignment(values * factor, labels) == pytest.approx(found)
        assert alignment(values + factor, labels) == pytest.approx(found)  # centred
    distance, apart = difference(values * factor, values)
    assert distance == pytest.approx(abs(factor - 1), abs=1e-9)
    assert apart == pytest.approx(0, abs=1e-9)
    rank = effective_rank(torch.linalg.eigvalsh(values))
    assert 1 <= rank <= 5 + 1e-9
    assert rank == pytest.approx(effective_rank(torch.linalg.eigvalsh(values * factor)))


def test_alignment_is_one_for_the_labels_own_kernel_and_by_hand_otherwise() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    hot = nn.functional.one_hot(labels).double()
    assert alignment(hot @ hot.T, labels) == pytest.approx(1)
    values = torch.tensor([[2.0, 1, 0, 0], [1, 3, 0, 1], [0, 0, 1, 0], [0, 1, 0, 4]]).double()
    centre = torch.eye(4).double() - 1 / 4
    one, two = centre @ values @ centre, centre @ (hot @ hot.T) @ centre
    assert alignment(values, labels) == pytest.approx(
        float((one * two).sum() / (one.norm() * two.norm()))
    )


def test_the_dense_network_comes_first_then_each_mask(
    small: Model, masks: dict[str, Mask], samples: Data
) -> None:
    found = compare(small, masks, samples, Sampling(samples=16))
    assert [row.name for row in found] == ["dense", "at 0.7", "at 0.3"]
    assert [row.density for row in found] == [1, *(m.density for m in masks.values())]
    dense, *others = (row.lens for row in found)
    assert dense.distance is None
    assert dense.parameters == 48 + 8 + 16 + 2
    for other, mask in zip(others, masks.values(), strict=True):
        assert other.parameters == 10 + mask.kept
        assert other.trace < dense.trace
        assert other.distance is not None
        assert 0 < other.distance < 1
    assert others[0].distance < others[1].distance  # type: ignore[operator]
    assert all(row.lens.alignment is not None for row in found)
    assert len(dense.spectrum) == 16
    assert compare(small, masks, samples, Sampling(samples=16)) == found
    import json

    assert json.dumps([asdict(row) for row in found], allow_nan=False)


def test_the_full_mask_is_no_distance_away(small: Model, samples: Data) -> None:
    full = Mask.full({"0.weight": (8, 6), "2.weight": (2, 8)}, About("by hand"))
    for sampling in (Sampling(samples=8, outputs="all"), Sampling(samples=8, probes=2)):
        dense, same = compare(small, {"full": full}, samples, sampling)
        assert (same.lens.distance, same.lens.dissimilarity) == pytest.approx((0, 0), abs=1e-12)
        assert same.lens.spectrum == dense.lens.spectrum
        assert (dense.lens.spread is None) == (sampling.probes is None)
        assert len(dense.lens.spectrum) == (16 if sampling.outputs == "all" else 8)


def test_bad_input(small: Model, masks: dict[str, Mask], samples: Data) -> None:
    with pytest.raises(InputError, match="can't be called 'dense'"):
        compare(small, {"dense": masks["at 0.7"]}, samples)
    with pytest.raises(InputError, match="this one is int8"):
        compare(replace(small, numerics="int8"), masks, samples)
    with pytest.raises(InputError, match="another network"):
        compare(small, {"x": Mask.full({"none": (2, 2)}, About("by hand"))}, samples)
    images = open_data("tests.unit.finetune.toy:images", seed=0)
    with pytest.raises(DataError, match=r"takes samples of torch.float32 \(6,\); the data gives"):
        compare(small, masks, images)
    assert isinstance(compare(small, {}, samples, Sampling(samples=4))[0], Row)


def test_a_kernel_that_overflows_is_refused(samples: Data) -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(800 * self.line(x).abs())

    with pytest.raises(InputError, match="kernel of 'dense' holds NaN or infinity: an output"):
        compare(captured(Steep(), torch.zeros(2, 6)), {}, samples, Sampling(samples=4))
