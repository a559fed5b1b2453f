# SPDX-License-Identifier: Apache-2.0
"""Which weights of a checkpoint are taken, and how they fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeprune.cli.main import main
from edgeprune.errors import ModelError
from edgeprune.model import Loaded, load

ARCH = "tests.unit.model.test_checkpoint:Net"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(x)))


def weights(value: float, prefix: str = "") -> dict[str, Tensor]:
    filled = {n: torch.full_like(v, value) for n, v in Net().state_dict().items()}
    return {prefix + name: tensor for name, tensor in filled.items()}


def averaged() -> dict[str, Tensor]:
    module = Net()
    module.load_state_dict(weights(2))
    return AveragedModel(module).state_dict()


ONE, TWO = weights(1), weights(2)
METRICS = {"train_acc.tp": torch.zeros(3), "loss.weight": torch.ones(2)}
STEPS = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}


def loaded(value: Any, tmp_path, **options: Any) -> Loaded:
    torch.save(value, tmp_path / "w.pt")
    return load(tmp_path / "w.pt", arch=ARCH, input_shapes=("1x3",), **options)


def taken(found: Loaded) -> float:
    values = {float(v.flatten()[0]) for n, v in found.model.module().named_parameters()}
    (value,) = values
    return value


@pytest.mark.parametrize(
    ("value", "key", "wanted", "note"),
    [
        ({"state_dict": ONE, "state_dict_ema": TWO}, None, 1, "--state-key state_dict_ema takes"),
        ({"state_dict": ONE, "state_dict_ema": TWO}, "state_dict_ema", 2, None),
        ({"model": ONE, "model_ema": TWO, "optimizer": STEPS}, None, 1, "--state-key model_ema"),
        ({"model": ONE, "ema": {"module": TWO, "decay": 0.9}}, None, 1, "--state-key ema.module"),
        ({"model": ONE, "ema": {"module": TWO}}, "ema.module", 2, None),
        ({"model": ONE, "ema": {"module": TWO}}, "ema", 2, None),
        ({"params_ema": TWO}, None, 2, "averaged weights (EMA) alone"),
        ({"params": ONE, "params_ema": TWO}, None, 1, "--state-key params_ema"),
        ({"model_state": ONE, "epoch": 3}, None, 1, None),
        ({"checkpoint": {"inner": ONE}, "epoch": 3}, None, 1, None),
        ({"state_dict": ONE, "teacher": TWO}, None, 1, "not those under teacher"),
        (averaged(), None, 2, None),
        ({"state_dict": weights(1, "model.")}, None, 1, "begin with 'model.'"),
        ({"state_dict": weights(1, "net.module._orig_mod.")}, None, 1, "begin with 'net.mod"),
        ({"state_dict": weights(1, "model.") | weights(2, "ema_model.")}, "model", 1, None),
        ({"state_dict": weights(1, "a.") | weights(2, "b.")}, "state_dict.b", 2, None),
    ],
)
def test_the_weights_that_are_meant_are_taken(value, key, wanted, note, tmp_path):
    found = loaded(value, tmp_path, state_key=key)
    assert taken(found) == wanted
    assert bool(found.notes) == (note is not None)
    if note is not None:
        assert note in " ".join(found.notes)


@pytest.mark.parametrize(
    ("value", "key", "why"),
    [
        ({"student": ONE, "teacher": TWO}, None, "several state dicts (student, teacher); choose"),
        ({"state_dict": ONE}, "state_dict_ema", "no weights there; did you mean 'state_dict'?"),
        ({"epoch": 3}, None, "no state dict in it (it holds epoch)"),
        (weights(1, "a.") | weights(2, "b."), None, "several times, under a., b.; choose"),
        (
            {n: v for n, v in ONE.items() if n != "head.bias"},
            None,
            "missing in the file: head.bias",
        ),
        (weights(1, "model.") | METRICS, None, "give --allow-surplus to leave them out"),
        (
            weights(1, "model.") | weights(2, "ema_model."),
            None,
            "or --state-key ema_model for the averaged weights (EMA)",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(value, key, why, tmp_path):
    with pytest.raises(ModelError) as error:
        loaded(value, tmp_path, state_key=key)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_surplus_goes_only_on_request_and_what_is_missing_never(tmp_path):
    given = weights(1, "model.") | METRICS
    found = loaded({"state_dict": given}, tmp_path, allow_surplus=True)
    assert taken(found) == 1
    assert "train_acc.tp, loss.weight" in " ".join(found.notes)
    del given["model.head.bias"]
    with pytest.raises(ModelError, match=r"missing in the file: head\.bias"):
        loaded({"state_dict": given}, tmp_path, allow_surplus=True)


def test_a_whole_module_among_others_is_chosen_too(tmp_path):
    one, two = Net(), Net()
    one.load_state_dict(ONE)
    two.load_state_dict(TWO)
    torch.save({"model": one, "ema": two}, tmp_path / "w.pt")
    options = {"input_shapes": ("1x3",), "trust_pickle": True}
    assert taken(load(tmp_path / "w.pt", **options)) == 1
    assert taken(load(tmp_path / "w.pt", state_key="ema", **options)) == 2


def test_inspect_says_which_weights_were_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": ONE, "state_dict_ema": TWO}, tmp_path / "c.pt")
    words = ["inspect", str(tmp_path / "c.pt"), "--arch", ARCH, "--input-shape", "2x3", "--json"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "note: the weights under 'state_dict' are used" in told.err
    assert "--state-key state_dict_ema takes those" in told.err
    assert json.loads(told.out)["numerics"] == "fp32"
