# SPDX-License-Identifier: Apache-2.0
"""Masks are sets: their algebra, their distance, their densities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.mask import About, Mask, look
from edgeprune.model import Model
from tests.unit.channels.graphs import captured

ABOUT = About("by hand")
SHAPES = {"a.weight": (3, 4), "b.weight": (2, 2, 2), "none": (0, 3)}


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    keep = {}
    for name, shape in SHAPES.items():
        size = torch.Size(shape).numel()
        bits = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        keep[name] = torch.tensor(bits, dtype=torch.bool).reshape(shape)
    return Mask(keep, ABOUT)


def flat(mask: Mask) -> list[bool]:
    return [bool(bit) for kept in mask.keep.values() for bit in kept.flatten()]


@given(masks(), masks())
def test_each_operation_is_that_of_sets(a: Mask, b: Mask) -> None:
    for operation in ("__and__", "__or__", "__xor__"):
        expected = [getattr(x, operation)(y) for x, y in zip(flat(a), flat(b), strict=True)]
        assert flat(getattr(a, operation)(b)) == expected
    assert flat(a - b) == [x and not y for x, y in zip(flat(a), flat(b), strict=True)]
    assert flat(~a) == [not x for x in flat(a)]
    assert (a <= b) == all(y or not x for x, y in zip(flat(a), flat(b), strict=True))


@given(masks(), masks(), masks())
def test_laws(a: Mask, b: Mask, c: Mask) -> None:
    assert (~(a & b)).same(~a | ~b) and (~(a | b)).same(~a & ~b)
    assert (a & (b | c)).same((a & b) | (a & c))
    assert (a - b).same(a & ~b) and (a ^ b).same((a - b) | (b - a))
    assert (a & b) <= a <= (a | b)
    assert (a <= b and b <= a) == a.same(b)


@given(masks(), masks(), masks())
def test_the_hamming_distance_is_a_metric(a: Mask, b: Mask, c: Mask) -> None:
    assert a.hamming(a) == 0 and (a.hamming(b) == 0) == a.same(b)
    assert a.hamming(b) == b.hamming(a) == (a ^ b).density
    assert a.hamming(c) <= a.hamming(b) + b.hamming(c) + 1e-12
    assert a.hamming(~a) == 1


@given(masks(), masks())
def test_counts(a: Mask, b: Mask) -> None:
    assert a.size == 20 and a.kept == sum(flat(a))
    assert a.density == a.kept / a.size
    for name, density in a.densities.items():
        assert density == (a.keep[name].float().mean() if a.keep[name].numel() else 1.0)
    assert (a | b).kept + (a & b).kept == a.kept + b.kept
    either = (a | b).kept
    assert a.overlap(b) == ((a & b).kept / either if either else 1.0)


@given(masks(), masks())
def test_a_digest_tells_masks_apart(a: Mask, b: Mask) -> None:
    assert (a.digest() == b.digest()) == a.same(b)
    turned = Mask(dict(reversed(a.keep.items())), About("imp", seed=3))
    assert turned.digest() == a.digest()


def test_the_full_mask_and_the_empty_one() -> None:
    full = Mask.full(SHAPES, ABOUT)
    assert full.shapes == SHAPES and full.density == 1 and (~full).kept == 0
    nothing = Mask({}, ABOUT)
    assert nothing.density == 1 and nothing.hamming(nothing) == 0 and nothing.overlap(nothing) == 1


def test_masks_of_different_networks_are_refused() -> None:
    a = Mask.full({"w": (2, 2)}, ABOUT)
    others = {"v": Mask.full({"v": (2, 2)}, ABOUT), "w": Mask.full({"w": (2, 3)}, ABOUT)}
    for name, other in others.items():
        for operate in (a.__and__, a.hamming, a.overlap, a.__le__):
            with pytest.raises(InputError, match=f"'{name if name == 'w' else 'w'}' has shape"):
                operate(other)
        assert not a.same(other)
    with pytest.raises(InputError, match=r"mask of 'w': is torch\.float32, not bool"):
        Mask({"w": torch.ones(2)}, ABOUT)


def test_what_a_mask_fits() -> None:
    model = captured(nn.Linear(3, 2), torch.randn(2, 3))
    Mask.full({"weight": (2, 3)}, ABOUT).check(model)
    with pytest.raises(InputError, match=r"it has no parameter 'other'; .*ticket apply"):
        Mask.full({"other": (2, 3)}, ABOUT).check(model)
    with pytest.raises(InputError, match=r"\(2, 3\) there, \(4, 3\) in the mask; .*ticket stretch"):
        Mask.full({"weight": (4, 3)}, ABOUT).check(model)


@given(masks())
def test_masking_a_state_shares_what_it_does_not_cover(mask: Mask) -> None:
    state: dict[str, Tensor] = {n: torch.randn(s) + 9 for n, s in SHAPES.items()}
    state["other"] = torch.randn(3)
    got = mask.masked(state)
    assert got["other"] is state["other"]
    for name, kept in mask.keep.items():
        assert torch.equal(got[name], state[name] * kept)


def chain(depth: int) -> Model:
    parts = [part for _ in range(depth) for part in (nn.Linear(4, 4), nn.ReLU())]
    return captured(nn.Sequential(*parts, nn.BatchNorm1d(4)), torch.zeros(2, 4))


def test_a_mask_of_a_shallower_network_is_refused_by_a_deeper_one() -> None:
    shallow, deep = chain(2), chain(3)
    found = About("snip", facts={"options": {"exclude": []}})
    shapes = {layer.name: layer.shape for layer in look(shallow).layers}
    mask = Mask.full(shapes, found)
    mask.check(shallow)
    with pytest.raises(InputError, match=r"no mask for '4\.weight' of shape \(4, 4\).*stretch"):
        mask.check(deep)
    for facts in ({"options": {"exclude": ["4.*"]}}, {**found.facts, "transferred": {}}, {}):
        Mask.full(shapes, About("snip", facts=facts)).check(deep)


def test_a_mask_of_a_buffer_is_refused() -> None:
    mask = Mask.full({"4.running_mean": (4,)}, ABOUT)
    with pytest.raises(InputError, match=r"no parameter '4\.running_mean'"):
        mask.check(chain(2))
