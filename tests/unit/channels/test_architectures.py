# SPDX-License-Identifier: Apache-2.0
"""What is promised of channels, on every architecture of the test set."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeprune.channels import analyse, masked
from tests.architectures import ARCHITECTURES
from tests.architectures.pruned import Subject, run

SHARE = 0.6
"""Of the dense network's multiply-accumulates: what may be left of half of the channels."""
NOWHERE_EXACT = {"convnext-v2": "a layer norm or a response norm runs over each of its widths"}
WITHOUT_RULE: dict[str, str] = {}
"""Operators that may stay without a rule, by architecture, with the reason."""
UNUSED = {"wavenet": 16 * 16 * 64}
"""Products that a network computes for nothing, so that they are none of its cost: the last block's
residual, as in the original."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


def test_half_of_the_channels_can_go(subject: Subject) -> None:
    dense, left = subject.groups.totals(), subject.groups.totals(subject.half)
    assert left.macs <= SHARE * dense.macs
    assert analyse(subject.halved).totals() == left
    before = run(subject.model.module(), subject.inputs)
    after = run(subject.halved.module(), subject.inputs)
    assert [o.shape for o in after] == [o.shape for o in before]
    assert all(bool(torch.isfinite(o).all()) for o in after)


def test_the_pruned_network_is_the_masked_one(subject: Subject) -> None:
    assert bool(subject.exact.any()) == (subject.name not in NOWHERE_EXACT)
    if not subject.exact.any():
        return
    before = run(subject.model.module(), subject.inputs)
    expected = run(masked(subject.model, subject.groups, subject.exact), subject.inputs)
    got = run(subject.exactly_halved.module(), subject.inputs)
    moved = [
        (b - e).abs().max() > 1e-2 * b.abs().max() for b, e in zip(before, expected, strict=True)
    ]
    assert any(moved), "masking changed nothing, so that equality would say nothing"
    for mine, other in zip(got, expected, strict=True):
        atol = 1e-4 * float(other.abs().max())
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=atol)


def test_macs_are_those_that_torch_counts(subject: Subject) -> None:
    module, inputs = subject.built
    with _counted() as counter:
        module(*(x[:1] for x in inputs))
    macs = subject.groups.totals().macs + UNUSED.get(subject.name, 0)
    assert 2 * macs == counter.get_total_flops()


def _products(first: torch.Size, second: torch.Size, **_: object) -> int:
    return 2 * prod(first)


aten = torch.ops.aten
_BY_VECTOR = {aten.mv: _products, aten.dot: _products, aten.vdot: _products}


@contextmanager
def _counted() -> Iterator[FlopCounterMode]:
    """Torch's counter, with the formulas that it lacks for products of a matrix or a vector with a
    vector (spectral norm). Fused attention on the CPU, fused transformer layers and oneDNN's LSTM,
    for which it has none either, are taken apart."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.backends.mkldnn.flags(enabled=False),
            FlopCounterMode(display=False, custom_mapping=_BY_VECTOR) as counter,
        ):
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def test_every_operator_has_a_rule(subject: Subject) -> None:
    missing = {f.cause for f in subject.groups.frozen if "without a rule of" in f.cause}
    missing |= {f.cause for f in subject.groups.frozen if f.cause.startswith("no rule for")}
    assert bool(missing) == (subject.name in WITHOUT_RULE), missing


def test_any_batch_size_is_taken(subject: Subject) -> None:
    assert subject.captured[1] == ()


def test_the_set_is_as_large_as_it_says() -> None:
    assert len(ARCHITECTURES) >= 40
    assert all(name == entry.name for name, entry in ARCHITECTURES.items())
