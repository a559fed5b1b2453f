# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeprune.errors import CheckFailed, ModelError
from edgeprune.model import Event, capture, load, require_finite, save, watched
from tests.networks import digits_cnn

ARCH = "tests.networks:digits_cnn"
SHAPES = ((1, 1, 8, 8),)


def broken(value: float, name: str = "") -> nn.Module:
    network = digits_cnn().eval()
    chosen = name or next(n for n, p in network.named_parameters() if p.ndim == 4)
    with torch.no_grad():
        network.state_dict()[chosen].view(-1)[:3] = value
    return network


def program(network, path):
    model, _ = capture(network, (torch.zeros(2, 1, 8, 8),), event=Event("load"))
    save(model, path)


def exported(network, path):
    torch.export.save(torch.export.export(network, (torch.zeros(2, 1, 8, 8),)), path)


KINDS = {
    "edgeprune's": (program, {}),
    "torch.export": (exported, {}),
    "state dict": (
        lambda n, p: torch.save(n.state_dict(), p),
        {"arch": ARCH, "input_shapes": SHAPES},
    ),
    "safetensors": (
        lambda n, p: save_file(n.state_dict(), p),
        {"arch": ARCH, "input_shapes": SHAPES},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "told"), [(float("nan"), "3 NaN"), (-float("inf"), "3 infinite")]
)
def test_weights_that_are_not_finite_are_refused_whatever_the_file(tmp_path, kind, value, told):
    write, options = KINDS[kind]
    write(broken(value), tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=rf"model.pt2: '.*weight' holds {told} of \d+ values"):
        load(tmp_path / "model.pt2", **options)


def test_statistics_of_a_norm_are_held_to_the_same():
    name = next(n for n in digits_cnn().state_dict() if n.endswith("running_var"))
    model, _ = capture(broken(float("inf"), name), (torch.zeros(2, 1, 8, 8),), event=Event("load"))
    with pytest.raises(CheckFailed, match=rf"^prune: '{name}' holds 3 infinite"):
        require_finite(model, "prune", CheckFailed)


class Masked(nn.Module):
    """Causal attention: its mask is a buffer with -inf."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mask", torch.full((6, 6), -torch.inf).triu(1))

    def forward(self, x):
        return (self.layer(x) @ x.mT + self.mask).softmax(-1) @ x


def test_infinity_in_a_mask_is_no_fault(tmp_path):
    model, _ = capture(Masked().eval(), (torch.zeros(2, 6, 4),), event=Event("load"))
    save(model, tmp_path / "model.pt2")
    assert load(tmp_path / "model.pt2").model.fingerprint() == model.fingerprint()
    nan = Masked()
    nan.mask[0, 1] = torch.nan
    model, _ = capture(nan.eval(), (torch.zeros(2, 6, 4),), event=Event("load"))
    with pytest.raises(ModelError, match="'mask' holds 1 NaN and 14 infinite of 36"):
        require_finite(model, "model.pt2")


def test_answers_that_are_not_finite_are_counted_over_all_samples():
    batches = [(np.arange(4.0),), (np.array([-1.0, 2.0]),), (np.array([-3.0, -4.0]),)]

    def run(arrays):
        with np.errstate(invalid="ignore", divide="ignore"):
            return arrays[0], np.log(arrays[0])[:, None]

    asked = watched(run, ["same", "log"], lambda: batches[1:], "the dense model", ModelError)
    positive = (np.array([1.0, 2.0]),)
    assert np.array_equal(asked(positive)[1], run(positive)[1])
    with pytest.raises(
        ModelError, match=r"^the dense model: 3 of 4 samples give NaN in output 'log'; look"
    ):
        asked(batches[1])
    with pytest.raises(ModelError, match="1 of 8 samples give infinity in output 'log'"):
        watched(run, ["same", "log"], lambda: batches * 1, "x", ModelError)(batches[0])
