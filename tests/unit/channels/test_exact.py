# SPDX-License-Identifier: Apache-2.0
"""The promise of the room: the pruned network computes what the masked dense one does."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.channels import analyse, apply, masked
from edgeprune.model import Event
from tests import networks
from tests.unit.channels.graphs import (
    IMAGE_STEPS,
    TOKEN_STEPS,
    ImageNet,
    TokenNet,
    captured,
    image_steps,
    prune_at_random,
    token_steps,
)

relaxed = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def assert_exact(module: torch.nn.Module, x: torch.Tensor, seed: int) -> None:
    pair = prune_at_random(captured(module, x), (x,), seed)
    assert pair.groups.groups, "nothing to prune"
    assert pair.output.shape == pair.expected.shape
    torch.testing.assert_close(pair.output, pair.expected, rtol=1e-4, atol=1e-5)
    assert analyse(pair.pruned).totals().parameters < pair.groups.totals().parameters


@pytest.mark.parametrize("step", IMAGE_STEPS)
def test_each_image_rule_alone(step: str) -> None:
    torch.manual_seed(0)
    assert_exact(ImageNet([step, "conv", "norm", step]), torch.randn(2, 3, 8, 8), 0)


@pytest.mark.parametrize("step", TOKEN_STEPS)
def test_each_token_rule_alone(step: str) -> None:
    torch.manual_seed(0)
    assert_exact(TokenNet([step, "mlp", step]), torch.randn(2, 5, 6), 0)


@relaxed
@given(image_steps(), st.booleans(), st.integers(0, 2**16))
def test_random_image_networks(steps: list[str], flatten: bool, seed: int) -> None:
    torch.manual_seed(seed)
    assert_exact(ImageNet(steps, flatten), torch.randn(2, 3, 8, 8), seed)


@relaxed
@given(token_steps(), st.integers(0, 2**16))
def test_random_token_networks(steps: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    assert_exact(TokenNet(steps), torch.randn(2, 5, 6), seed)


@pytest.mark.parametrize("make", [networks.tiny_resnet, networks.TinyMobileNet])
def test_whole_networks_without_norms_over_channels(make) -> None:
    torch.manual_seed(0)
    assert_exact(make(), torch.randn(2, 3, 32, 32), 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_transformer_is_exact_where_its_norms_are_left_alone(seed: int) -> None:
    torch.manual_seed(seed)
    model = captured(networks.TinyViT(), torch.randn(2, 3, 32, 32))
    groups = analyse(model)
    stream = [g for g in groups.groups if g.renormalises]
    assert [g.name for g in stream] == ["patch"]
    random, removed = np.random.default_rng(seed), groups.keep_all()
    for group in groups.groups:
        if not group.renormalises:
            removed[random.choice(group.channels, group.size // 2, replace=False)] = True
    x = torch.randn(3, 3, 32, 32)
    pruned = apply(model, groups, removed, Event("prune"))
    torch.testing.assert_close(
        pruned.module()(x), masked(model, groups, removed)(x), rtol=1e-4, atol=1e-5
    )
