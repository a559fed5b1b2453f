# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: products in bfloat16, all that is kept in float32."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.finetune import finetune
from edgeprune.finetune.loss import outputs_of
from edgeprune.recipe import FinetuneOptions
from tests.unit.finetune.toy import captured, cnn, context, data

OPTIONS = FinetuneOptions(epochs=6, batch_size=16, learning_rate=0.05, precision="bfloat16")


class Insists(nn.Module):
    """It writes the product, which is of another type then, among its input."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        places = torch.zeros(len(x), 8, dtype=torch.int64)
        return self.head(x[:, :8].scatter(1, places, self.body(x)))


def test_outputs_are_those_of_autocast_and_float32_again() -> None:
    batch = next(iter(data().sample_train(16, 16, 0)))
    module = cnn().module()
    (whole,), (mixed,) = (
        outputs_of(module, batch, None),
        outputs_of(module, batch, None, "bfloat16"),
    )
    with torch.autocast("cpu", torch.bfloat16):
        expected = module(*batch.inputs)
    assert expected.dtype == torch.bfloat16
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, expected.float())
    assert not torch.equal(mixed, whole)
    assert (mixed - whole).abs().max() < 0.05 * whole.abs().max()


def test_it_learns_and_the_weights_stay_float32(tmp_path: Path) -> None:
    whole = OPTIONS.model_copy(update={"precision": "float32"})
    new, report = finetune(cnn(width=8), OPTIONS, context(tmp_path / "mixed", data=data()))
    old, other = finetune(cnn(width=8), whole, context(tmp_path / "whole", data=data()))
    epochs = report.details["epochs"]
    assert epochs[-1]["train_loss"] < 0.95 * epochs[1]["train_loss"]
    ratio = epochs[-1]["train_loss"] / other.details["epochs"][-1]["train_loss"]
    assert 0.8 < ratio < 1.25
    mixed, plain = new.program.state_dict, old.program.state_dict
    assert {n: t.dtype for n, t in mixed.items()} == {n: t.dtype for n, t in plain.items()}
    assert any(not torch.equal(tensor, plain[name]) for name, tensor in mixed.items())


def test_a_model_that_insists_on_a_type_is_refused_before_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = captured(Insists(), torch.zeros(2, 1, 8, 8))
    with pytest.raises(InputError, match=r"can't be computed in bfloat16: .*set precision") as told:
        finetune(model, OPTIONS, context(tmp_path, data=data()))
    assert str(told.value).isprintable()
    options = OPTIONS.model_copy(update={"precision": "float32", "epochs": 1})
    finetune(model, options, context(tmp_path, data=data()))
