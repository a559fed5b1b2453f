# SPDX-License-Identifier: Apache-2.0
"""Real processes, really killed."""

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgeprune.finetune import finetune
from edgeprune.finetune import run as running
from edgeprune.recipe import FinetuneOptions
from tests.unit.finetune.toy import Told, cnn, context, data

ROOT = Path(__file__).parents[3]


def child(folder, result, *, seconds=0.0, pause=0.0):
    command = [sys.executable, "-m", "tests.unit.finetune.child", folder, result, seconds, pause]
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def signal_after(process, lines, which):
    for _ in range(lines):
        assert process.stdout.readline()
    process.send_signal(which)
    _, err = process.communicate(timeout=120)
    return err


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert "went on" not in finish(child(folder, folder / "result.pt"))
    return load(folder / "result.pt")


def same(found, expected):
    assert found["epochs"] == expected["epochs"]
    assert found["state"].keys() == expected["state"].keys()
    for name, tensor in expected["state"].items():
        assert torch.equal(found["state"][name], tensor), name


def test_a_run_that_is_killed_again_and_again_ends_the_same(tmp_path, undisturbed):
    """The kill falls somewhere into the steps after a random one: first with a checkpoint after
    every step, then with one at each epoch's end only, which is the sixth step: the seventh has
    begun by then, so that one is whole."""
    for steps, seconds in ((random.randint(1, 4), 0), (random.randint(7, 8), 1000)):
        pause = 0.03 + random.random() / 50
        process = child(tmp_path, tmp_path / "result.pt", seconds=seconds, pause=pause)
        signal_after(process, 1 + steps, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "result.pt").exists()
        assert (tmp_path / "checkpoint.pt").exists()
    notes = finish(child(tmp_path, tmp_path / "result.pt"))
    step = int(re.search(r"went on from the checkpoint of step (\d+)", notes)[1])
    assert step in (6, 12)
    same(load(tmp_path / "result.pt"), undisturbed)


def test_ctrl_c_leaves_a_whole_checkpoint(tmp_path, undisturbed):
    process = child(tmp_path, tmp_path / "result.pt", seconds=1000, pause=0.1)
    err = signal_after(process, 1 + 8, signal.SIGINT)
    assert process.returncode != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert not list(tmp_path.glob("*.part"))
    notes = finish(child(tmp_path, tmp_path / "result.pt", seconds=1000))
    step = int(re.search(r"went on from the checkpoint of step (\d+)", notes)[1])
    assert 8 <= step < 12  # within the second epoch, where no other checkpoint is written
    same(load(tmp_path / "result.pt"), undisturbed)


def interrupted(monkeypatch, folder, *, at, **surroundings):
    """A run in this process that gets Ctrl-C at one call of the loss."""
    calls = 0
    real = running.bind

    def bind(*args):
        loss = real(*args)

        def counted(module, batch):
            nonlocal calls
            calls += 1
            if calls == at:
                signal.raise_signal(signal.SIGINT)
            return loss(module, batch)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(running, "bind", bind)
        with pytest.raises(KeyboardInterrupt):
            finetune(cnn(), OPTIONS, context(folder, data=data(), **surroundings))


OPTIONS = FinetuneOptions(epochs=2, batch_size=16)


@pytest.mark.parametrize("at", [1, 2, 8, 9])
def test_ctrl_c_in_training_and_in_the_held_out_part(tmp_path, monkeypatch, at):
    """One held-out batch before the first epoch, six steps, one held-out batch, six steps."""
    whole, _ = finetune(cnn(), OPTIONS, context(tmp_path / "whole", data=data()))
    interrupted(monkeypatch, tmp_path, at=at)
    told = Told()
    new, report = finetune(cnn(), OPTIONS, context(tmp_path, data=data(), progress=told))
    done = {1: 0, 2: 1, 8: 6, 9: 7}[at]
    assert f"went on from the checkpoint of step {done}" in told.said
    assert not any("checkpoint" in note for note in report.notes)
    assert new.fingerprint() == whole.fingerprint()


def test_a_finished_run_is_not_done_again(tmp_path, monkeypatch):
    first, report = finetune(cnn(), OPTIONS, context(tmp_path, data=data()))
    monkeypatch.setattr(running, "train", None)
    monkeypatch.setattr(running, "evaluate", None)
    again, told = finetune(cnn(), OPTIONS, context(tmp_path, data=data()))
    assert again.fingerprint() == first.fingerprint()
    assert again.history == first.history
    assert told.details == report.details
    assert told.seconds == pytest.approx(report.seconds)


@pytest.mark.parametrize("what", ["options", "seed", "threads", "data", "teacher", "model"])
def test_a_checkpoint_of_another_run_is_left_aside(tmp_path, what):
    base = {"data": data(), "seed": 0, "threads": 1}
    finetune(cnn(), OPTIONS, context(tmp_path, **base))
    model, options, changes = cnn(), OPTIONS, dict(base)
    if what == "options":
        options = FinetuneOptions(epochs=2, batch_size=16, momentum=0.8)
    elif what == "model":
        model = cnn(7)
    elif what == "teacher":
        changes["dense"] = cnn(7)
    else:
        changes[what] = data("unlabelled") if what == "data" else 2
        if what == "data":
            changes["dense"] = cnn(7)
    _, report = finetune(model, options, context(tmp_path, **changes))
    assert "checkpoint.pt belongs to another run: started anew" in report.notes
