# SPDX-License-Identifier: Apache-2.0
"""Zeros stay zero under every optimizer that is offered, and in all that it keeps of them."""

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.finetune import make_optimizer
from edgeprune.mask import About, Held, Mask
from edgeprune.recipe import FinetuneOptions

ABOUT = About("by hand")
CHOICES = [
    FinetuneOptions(optimizer="sgd", weight_decay=0.1),
    FinetuneOptions(optimizer="sgd", momentum=0.0),
    FinetuneOptions(optimizer="adamw", weight_decay=0.1),
]


class Net(nn.Module):
    """Two linear layers of one weight, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def started(options: FinetuneOptions) -> tuple[Net, torch.optim.Optimizer]:
    net = Net()
    optimizer = make_optimizer(net, options)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    return net, optimizer


def step(net: Net, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad(set_to_none=True)
    (net(x) - x[:, :2].roll(1, 1)).square().mean().backward()
    optimizer.step()


def checkered(turn: int = 0) -> Mask:
    keep = {}
    for name, shape in (("second.weight", (4, 4)), ("head.weight", (2, 4))):
        row, column = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        keep[name] = (row + column + turn) % 2 == 0
    return Mask(keep, ABOUT)


def assert_zero(net: Net, optimizer: torch.optim.Optimizer, mask: Mask) -> None:
    for name, kept in mask.keep.items():
        parameter = net.get_parameter(name)
        assert not parameter[~kept].any() and parameter[kept].all(), name
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                assert not value[~kept].any(), (name, key)
                assert value[kept].any(), (name, key)


@pytest.mark.parametrize("options", CHOICES)
def test_zeros_stay_zero(options: FinetuneOptions) -> None:
    net, optimizer = started(options)
    for seed in range(2):
        step(net, optimizer, seed)  # so that there is momentum of what is masked from now on
    Held(net, optimizer, checkered())
    assert_zero(net, optimizer, checkered())
    for seed in range(5):
        step(net, optimizer, seed)
        assert_zero(net, optimizer, checkered())
    assert net.first.weight is net.second.weight


@pytest.mark.parametrize("options", CHOICES)
def test_the_rest_is_trained_as_if_the_masked_weights_were_not_there(
    options: FinetuneOptions,
) -> None:
    """A smaller network, trained without a mask, goes the same way."""
    net, optimizer = started(options)
    keep = torch.ones(2, 4, dtype=torch.bool)
    keep[:, 2:] = False
    Held(net, optimizer, Mask({"head.weight": keep}, ABOUT))
    other, plain = started(options)
    narrow = nn.Linear(2, 2)
    with torch.no_grad():
        narrow.weight.copy_(other.head.weight[:, :2])
        narrow.bias.copy_(other.head.bias)
    other.head = nn.Sequential(_First(), narrow)
    plain = make_optimizer(other, options)
    for group in plain.param_groups:
        group["lr"] = 0.1
    for seed in range(5):
        step(net, optimizer, seed)
        step(other, plain, seed)
    torch.testing.assert_close(net.head.weight[:, :2], narrow.weight)
    torch.testing.assert_close(net.first.weight, other.first.weight)


class _First(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


@pytest.mark.parametrize("options", CHOICES)
def test_a_change_begins_at_zero_and_goes_on_from_there(options: FinetuneOptions) -> None:
    net, optimizer = started(options)
    held = Held(net, optimizer, checkered())
    step(net, optimizer, 0)
    held.change(checkered(1))
    weight, kept = net.head.weight, checkered(1).keep["head.weight"]
    assert not weight.any(), "what lived is masked now, what lives now was zero"
    for seed in range(3):
        step(net, optimizer, seed)
    assert_zero(net, optimizer, checkered(1))
    assert weight[kept].all()
    with pytest.raises(InputError, match="of the same parameters"):
        held.change(Mask.full({"head.weight": (2, 4)}, ABOUT))


def test_watched_gradients_are_those_of_masked_weights_too() -> None:
    net, optimizer = started(CHOICES[0])
    held = Held(net, optimizer, checkered())
    step(net, optimizer, 0)
    assert held.gradients == {}
    held.watch = True
    dense = Net()
    dense.load_state_dict(net.state_dict())
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    (dense(x) - x[:, :2].roll(1, 1)).square().mean().backward()
    step(net, optimizer, 1)
    assert held.gradients.keys() == checkered().keep.keys()
    for name, gradient in held.gradients.items():
        torch.testing.assert_close(gradient, dense.get_parameter(name).grad)
        assert gradient[~checkered().keep[name]].any()
    assert net.head.weight.grad is not None
    assert not net.head.weight.grad[~checkered().keep["head.weight"]].any()


def test_released_weights_are_trained_again() -> None:
    net, optimizer = started(CHOICES[0])
    held = Held(net, optimizer, checkered())
    held.release()
    step(net, optimizer, 0)
    assert net.head.weight.all()


def test_a_mask_of_another_network_is_refused() -> None:
    net, optimizer = started(CHOICES[0])
    for name, shape in (("body.weight", (4, 4)), ("head.weight", (3, 4))):
        with pytest.raises(InputError, match=f"'{name}' has shape"):
            Held(net, optimizer, Mask.full({name: shape}, ABOUT))
