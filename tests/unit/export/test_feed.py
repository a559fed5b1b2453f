# SPDX-License-Identifier: Apache-2.0
import numpy as np
import torch
from torch import nn

from edgeprune.export.feed import artifact_runner, evaluation_batches, random_batches
from edgeprune.model import Event, capture, runner
from tests.unit.export.lite import bert, cnn, digits


def test_any_count_of_samples_runs_in_pieces_of_the_files_batch(lite):
    run, wanted = artifact_runner(lite("fp32").path, cnn()), runner(cnn())
    (batch,) = evaluation_batches(digits(), 7)
    (got,) = run(batch)
    assert got.shape == (7, 10)
    assert np.allclose(got, wanted(batch)[0], atol=1e-4)
    assert np.array_equal(got[3:4], run((batch[0][3:4],))[0])


def test_evaluation_batches_end_at_the_count():
    batches = evaluation_batches(digits(), 70)
    assert [len(arrays[0]) for arrays in batches] == [64, 6]
    assert batches[0][0].shape[1:] == (1, 8, 8)


def test_random_inputs_follow_the_seed_and_the_types():
    (one,), (two,) = random_batches(cnn(), 16, seed=1), random_batches(cnn(), 16, seed=1)
    assert np.array_equal(one[0], two[0])
    assert one[0].dtype == np.float32
    assert abs(one[0].mean()) < 0.2 and 0.8 < one[0].std() < 1.2
    assert not np.array_equal(one[0], random_batches(cnn(), 16, seed=2)[0][0])


def test_random_indices_stay_within_their_embedding():
    (batch,) = random_batches(bert(), 64, seed=0)
    assert batch[0].dtype == np.int64
    assert (batch[0].min(), batch[0].max()) == (0, 99)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.small, self.large = nn.Embedding(3, 4), nn.Embedding(40, 4)

    def forward(self, kinds, tokens, mask):
        return (self.small(kinds + 0) + self.large(tokens)) * mask[..., None]


def test_each_integer_input_has_its_own_range():
    example = tuple(torch.zeros(2, 5, dtype=torch.int64) for _ in range(3))
    model, _ = capture(Masked(), example, event=Event("load"))
    (batch,) = random_batches(model, 64, seed=0)
    assert [int(array.max()) for array in batch] == [2, 39, 1]
    mask = batch[2].any(axis=1), batch[2].all(axis=1)
    assert mask[0].all() and not mask[1].any()
