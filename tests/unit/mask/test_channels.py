# SPDX-License-Identifier: Apache-2.0
"""A mask by channels is what channels' own masking does, and gives the channels back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from edgeprune.channels import Groups, Policy, analyse, apply, masked
from edgeprune.errors import InputError
from edgeprune.finetune import read_state, write_state
from edgeprune.mask import About, Mask, channel_mask, removed_channels
from edgeprune.model import Event, Model
from tests import networks
from tests.unit.channels.graphs import (
    ImageNet,
    TokenNet,
    captured,
    image_steps,
    token_steps,
)

ABOUT = About("by hand")
relaxed = settings(max_examples=6, suppress_health_check=list(HealthCheck))


def some(groups: Groups, seed: int) -> np.ndarray:
    """A third of each group."""
    random, removed = np.random.default_rng(seed), groups.keep_all()
    for group in groups.groups:
        removed[random.choice(group.channels, max(1, group.size // 3), replace=False)] = True
    return removed


def assert_a_mask_says_it_all(model: Model, x: Tensor, seed: int) -> None:
    groups = analyse(model)
    removed = some(groups, seed)
    mask = channel_mask(groups, removed, ABOUT)
    back = removed_channels(groups, mask)
    np.testing.assert_array_equal(back, removed)
    module = model.module()
    dense = read_state(module)
    write_state(module, mask.masked(dense))
    small = apply(model, groups, back, Event("prune")).module()
    theirs = dict(masked(model, groups, removed).named_parameters(remove_duplicate=False))
    for name, kept in mask.keep.items():
        torch.testing.assert_close(module.get_parameter(name), theirs[name], rtol=0, atol=0)
        assert kept.shape == theirs[name].shape
    untouched = theirs.keys() - mask.keep.keys()
    assert all(torch.equal(theirs[name], dense[name]) for name in untouched)
    torch.testing.assert_close(small(x), module(x), rtol=1e-4, atol=1e-5)


@relaxed
@given(image_steps(), st.booleans(), st.integers(0, 2**16))
def test_pictures(steps: list[str], flatten: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 3, 8, 8)
    assert_a_mask_says_it_all(captured(ImageNet(steps, flatten), x), x, seed)


@relaxed
@given(token_steps(), st.integers(0, 2**16))
def test_tokens(steps: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(2, 5, 6)
    assert_a_mask_says_it_all(captured(TokenNet(steps), x), x, seed)


def test_directions_of_weight_norm_are_left_alone_for_a_zero_has_none() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(2, 4)
    model = captured(net, x)
    assert_a_mask_says_it_all(model, x, 0)
    mask = channel_mask(analyse(model), analyse(model).keep_all(), ABOUT)
    assert "0.parametrizations.weight.original1" not in mask.keep
    assert "0.parametrizations.weight.original0" in mask.keep


@pytest.fixture(scope="module")
def resnet() -> Model:
    torch.manual_seed(0)
    return captured(networks.tiny_resnet(), torch.randn(2, 3, 32, 32))


def test_what_belongs_to_another_network_is_refused_in_one_line(resnet: Model) -> None:
    groups = analyse(resnet)
    mask = channel_mask(groups, some(groups, 0), ABOUT)
    with pytest.raises(InputError, match="unstructured, not by channels"):
        removed_channels(groups, replace(mask, about=ABOUT))
    wide = captured(networks.ResNet(1, width=12), torch.randn(2, 3, 32, 32))
    with pytest.raises(InputError, match=r"'conv1.weight' has shape \(12, 3, 3, 3\) in the model"):
        removed_channels(analyse(wide), mask)
    deep = captured(networks.ResNet(2, width=8), torch.randn(2, 3, 32, 32))
    with pytest.raises(InputError, match=r"only the model has channels in 'layer1\.1\.conv1"):
        removed_channels(analyse(deep), mask)
    with pytest.raises(InputError, match=r"only the mask has channels in 'layer1\.1\.conv1"):
        removed_channels(groups, channel_mask(analyse(deep), analyse(deep).keep_all(), ABOUT))
    holes = dict(mask.keep)
    holes["conv1.weight"] = holes["conv1.weight"].clone()
    holes["conv1.weight"][:, 0] = False
    with pytest.raises(InputError, match=r"in 'conv1\.weight' \d+ masked weights are of channels"):
        removed_channels(groups, Mask(holes, mask.about))


def test_channels_of_another_policy_are_refused() -> None:
    torch.manual_seed(0)
    model = captured(networks.TinyViT(), torch.randn(2, 3, 32, 32))
    widths = analyse(model, Policy("head_dim", "channels"))
    mask = channel_mask(widths, some(widths, 0), ABOUT)
    with pytest.raises(InputError, match="--attention or --grouped"):
        removed_channels(analyse(model), mask)
    np.testing.assert_array_equal(removed_channels(widths, mask), some(widths, 0))
