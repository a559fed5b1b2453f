# SPDX-License-Identifier: Apache-2.0
"""A model that answers NaN is refused before any work, by every command that runs it."""

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.model import Event, capture, save


class Logarithm(nn.Module):
    """NaN where a sample's mean is below a bound."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).relu()) + (x.mean(1, keepdim=True)).log()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logarithm")
    model, _ = capture(Logarithm().eval(), (torch.zeros(2, 6),), event=Event("test"))
    save(model, folder / "model.pt2")
    x = np.random.default_rng(0).random((40, 6), "float32") + 0.1
    x[::4] *= -1
    np.savez(folder / "data.npz", x=x)
    (folder / "data.toml").write_text(
        'schema_version=1\nname="x"\n[source]\nkind = "npz"\npath = "data.npz"\ninputs = ["x"]\n'
    )
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("compress", "--epochs", "0", "--ratio", "0", "--numerics", "fp32", "--no-profile"),
        ("prune", "--ratio", "0.5"),
        ("finetune", "--epochs", "1"),
        ("export",),
    ],
)
def test_nan_answers_are_refused(place, tmp_path, edgeprune, words):
    command, *options = words
    where = ("--out", tmp_path / "out") if command == "compress" else ("-o", tmp_path / "made.pt2")
    data = ("--data", place / "data.toml")
    code, _, err = edgeprune(command, place / "model.pt2", "-t", "host", *options, *data, *where)
    assert code == 2, err
    last = err.strip().splitlines()[-1]
    assert "samples give NaN in output 'output'" in last
    assert not (tmp_path / "made.pt2").exists()
    assert not (tmp_path / "out" / "host").exists()
