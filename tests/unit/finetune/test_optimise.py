# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.finetune.optimise import base_rate, cosine_with_warmup, make_optimizer
from edgeprune.recipe import FinetuneOptions
from tests.networks import DigitsCnn


def test_rate_rises_in_a_line_and_falls_as_half_a_cosine():
    rate = cosine_with_warmup(2.0, 10, 0.4)
    assert [rate(s) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert rate(4) == 2.0
    assert rate(7) == pytest.approx(1.0)  # half way through the six steps that fall
    assert rate(9) == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 5 / 6)))
    assert rate(10) == pytest.approx(0.0, abs=1e-12)


@given(st.integers(1, 400), st.floats(0, 0.99))
def test_rate_is_positive_and_has_one_peak(steps, warmup):
    rate = cosine_with_warmup(1.0, steps, warmup)
    rates = [rate(s) for s in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < r <= 1 for r in rates)
    assert max(rates) == 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_decay(name):
    module = DigitsCnn(4)
    optimizer = make_optimizer(module, FinetuneOptions(optimizer=name, weight_decay=0.1))
    groups = optimizer.param_groups
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    for parameter in module.parameters():
        assert decays[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0)


def test_sgd_has_nesterov_momentum_where_there_is_momentum():
    group = make_optimizer(DigitsCnn(4), FinetuneOptions(momentum=0.8)).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.8, True)
    plain = make_optimizer(DigitsCnn(4), FinetuneOptions(momentum=0.0))
    assert type(plain) is torch.optim.SGD
    assert plain.param_groups[0]["nesterov"] is False


def test_a_default_rate_shrinks_with_a_smaller_fixed_batch_and_an_asked_one_does_not():
    assert base_rate(FinetuneOptions(batch_size=128), 128) == 0.02
    assert base_rate(FinetuneOptions(batch_size=128), 32) == 0.005
    assert base_rate(FinetuneOptions(optimizer="adamw"), 256) == 0.0005
    assert base_rate(FinetuneOptions(learning_rate=0.3), 1) == 0.3
