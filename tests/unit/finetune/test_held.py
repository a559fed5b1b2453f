# SPDX-License-Identifier: Apache-2.0
"""What is masked is zero throughout, also after Ctrl-C and in the epoch that is kept."""

from pathlib import Path

import pytest
import torch

from edgeprune.errors import InputError
from edgeprune.finetune import finetune
from edgeprune.mask import About, Mask, look
from edgeprune.model import Model
from edgeprune.recipe import FinetuneOptions
from tests.unit.finetune.test_resume import interrupted
from tests.unit.finetune.toy import Told, cnn, context, data


def half(model: Model, seed: int = 0) -> Mask:
    drawn = torch.Generator().manual_seed(seed)
    keep = {n.name: torch.rand(n.shape, generator=drawn) < 0.5 for n in look(model).layers}
    return Mask(keep, About("by hand"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_are_held(tmp_path: Path, optimizer) -> None:
    model = cnn()
    mask = half(model)
    rate = 0.1 if optimizer == "sgd" else 0.01
    options = FinetuneOptions(
        epochs=3, batch_size=16, optimizer=optimizer, learning_rate=rate, patience=3
    )
    tuned, report = finetune(model, options, context(tmp_path, data=data(), mask=mask))
    for name, kept in mask.keep.items():
        before, after = (m.program.state_dict[name] for m in (model, tuned))
        assert not after[~kept].any() and before[~kept].all()
        assert (after[kept] != before[kept]).any()
    assert f"{mask.size - mask.kept} masked weights stayed zero" in report.notes


def test_a_run_that_goes_on_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = half(cnn())
    options = FinetuneOptions(epochs=2, batch_size=16)
    whole, _ = finetune(cnn(), options, context(tmp_path / "a", data=data(), mask=mask))
    interrupted(monkeypatch, tmp_path / "b", at=9, mask=mask)
    other = {"data": data(), "mask": half(cnn(), 1)}
    ours = (tmp_path / "b" / "checkpoint.pt").read_bytes()
    _, told = finetune(cnn(), options, context(tmp_path / "b", **other))
    assert "checkpoint.pt belongs to another run: started anew" in told.notes
    (tmp_path / "b" / "checkpoint.pt").write_bytes(ours)
    progress = Told()
    around = context(tmp_path / "b", data=data(), mask=mask, progress=progress)
    again, _ = finetune(cnn(), options, around)
    assert "went on from the checkpoint of step 7" in progress.said
    assert again.fingerprint() == whole.fingerprint()


def test_a_mask_of_another_network_is_refused(tmp_path: Path) -> None:
    mask = half(cnn(width=6))
    with pytest.raises(InputError, match="the mask is for another network"):
        finetune(cnn(), FinetuneOptions(), context(tmp_path, data=data(), mask=mask))
    assert not list(tmp_path.iterdir())
