# SPDX-License-Identifier: Apache-2.0
import os
import signal
import threading

import pytest
import torch

from edgeprune.errors import OutputError
from edgeprune.finetune.checkpoint import (
    Best,
    Checkpoint,
    deferred_interrupt,
    load,
    run_key,
    save,
)
from edgeprune.finetune.loop import Totals


def example():
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    state = {"w": weight.detach()}
    best = Best(1, 0.5, {"w": torch.ones(3, 2)})
    totals = Totals(0.1 + 0.2, 16, 9, 16)
    history = [{"epoch": 0, "holdout_loss": 2.0}]
    return Checkpoint(state, optimizer.state_dict(), 7, totals, history, best, 1.5)


def test_what_is_saved_is_loaded_exactly(tmp_path):
    path, given = tmp_path / "new" / "checkpoint.pt", example()
    save(path, given, "key")
    found, why_not = load(path, "key")
    assert why_not is None
    assert torch.equal(found.state["w"], given.state["w"])
    assert torch.equal(found.best.state["w"], given.best.state["w"])
    assert (found.best.epoch, found.best.loss) == (1, 0.5)
    assert (found.step, found.sums, found.history) == (7, given.sums, given.history)
    for name, value in given.optimizer["state"][0].items():
        assert torch.equal(found.optimizer["state"][0][name], value)
    assert found.optimizer["param_groups"] == given.optimizer["param_groups"]
    assert [p.name for p in path.parent.iterdir()] == ["checkpoint.pt"]


def test_no_file_is_nothing_to_say(tmp_path):
    assert load(tmp_path / "checkpoint.pt", "key") == (None, None)


def test_another_run_is_left_aside(tmp_path):
    save(tmp_path / "c.pt", example(), "key")
    assert load(tmp_path / "c.pt", "other") == (None, "c.pt belongs to another run: started anew")


def test_a_damaged_file_is_left_aside(tmp_path):
    path = tmp_path / "c.pt"
    save(path, example(), "key")
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), len(whole) // 12)]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (*cut, bytes(flipped), whole + b"0", b"something else"):
        path.write_bytes(content)
        assert load(path, "key") == (None, "c.pt is damaged: started anew")


def test_a_folder_in_its_place_is_left_aside(tmp_path):
    why_not = load(tmp_path, "key")[1]
    assert why_not == f"{tmp_path.name} can't be read (Is a directory): started anew"


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made"),))

    checkpoint = example()
    checkpoint.state["w"] = Evil()
    save(tmp_path / "c.pt", checkpoint, "key")
    found, why_not = load(tmp_path / "c.pt", "key")
    assert found is None
    assert why_not == "c.pt holds more than tensors and numbers: started anew"
    assert not (tmp_path / "made").exists()


def test_the_old_file_stays_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save(path, example(), "key")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="can't write the checkpoint: No space left on device"):
        save(path, Checkpoint({}, {}), "key")
    assert load(path, "key")[0].step == 7


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save(tmp_path / "file" / "c.pt", Checkpoint({}, {}), "key")


def test_a_key_depends_on_every_fact():
    facts = {"model": "a", "seed": 0}
    assert run_key(**facts) == run_key(**dict(reversed(facts.items())))
    assert run_key(**facts) != run_key(**facts | {"seed": 1})
    assert run_key(**facts) != run_key(**facts | {"model": None})


def test_an_interrupt_is_held_back_once():
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupt() as came:
        assert not came()
        signal.raise_signal(signal.SIGINT)
        assert came()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_interrupts_and_other_threads_are_left_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupt() as came:
            signal.raise_signal(signal.SIGINT)
            assert not came()
    finally:
        signal.signal(signal.SIGINT, before)
    seen = []

    def elsewhere():
        with deferred_interrupt() as came:
            seen.append((came(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
