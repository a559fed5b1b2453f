# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.model import Event, capture, parameters, runner, state_bytes
from tests.unit.model.nets import captured, everything, network, sample


class Fixed(nn.Module):
    """Takes exactly four samples; gives two outputs for each and one for all."""

    def __init__(self, total: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.total = total

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        y = self.linear(x.reshape(4, 3)) + bias
        return (y, y.relu(), y.sum()) if self.total else (y, y.relu())


def fixed(total: bool = False):
    torch.manual_seed(0)
    module = Fixed(total)
    example = (torch.zeros(4, 3), torch.zeros(4, 1))
    return module, capture(module, example, event=Event("load"))[0]


def test_it_gives_every_output_of_every_sample():
    run = runner(captured("digits_cnn"))
    x = sample("digits_cnn", 7)
    (logits,) = run((x.numpy(),))
    with torch.no_grad():
        np.testing.assert_array_equal(logits, network("digits_cnn")(x).numpy())
    outputs = runner(everything()[1])((np.zeros((3, 5), np.int32),))
    assert [o.shape for o in outputs] == [(3, 30), ()]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_a_static_model_runs_in_chunks_of_its_batch(count):
    module, model = fixed()
    assert not model.dynamic_batch
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=(count, 3)).astype("f4"), rng.normal(size=(count, 1)).astype("f4")
    first, second = runner(model)((x, bias))
    wanted = (
        x @ module.linear.weight.detach().numpy().T + module.linear.bias.detach().numpy() + bias
    )
    np.testing.assert_allclose(first, wanted, atol=1e-6)
    np.testing.assert_allclose(second, wanted.clip(0), atol=1e-6)


def test_an_output_without_a_batch_is_not_made_up_from_chunks():
    _, model = fixed(total=True)
    run = runner(model)
    assert run((np.zeros((4, 3), "f4"), np.zeros((4, 1), "f4")))[2].shape == ()
    with pytest.raises(ModelError, match="can't be put together"):
        run((np.zeros((5, 3), "f4"), np.zeros((5, 1), "f4")))


def test_numbers_become_the_inputs_type_and_the_callers_arrays_stay():
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu_()

    model, _ = capture(InPlace(), (torch.zeros(2, 3),), event=Event("load"))
    given = -np.ones((2, 3))
    given.flags.writeable = False
    (out,) = runner(model)((given,))
    assert out.dtype == np.float32
    assert not out.any()
    assert (given == -1).all()


@pytest.mark.parametrize(
    ("name", "arrays", "why"),
    [
        ("digits_cnn", (), "takes 1 inputs, not 0"),
        ("digits_cnn", (np.zeros((2, 1, 8, 9), "f4"),), r"\(1, 8, 8\) for each sample"),
        ("digits_cnn", (np.zeros((1, 8, 8), "f4"),), "for each sample"),
        ("TinyBert", (np.zeros((2, 16), "f4"),), "takes torch.int64, not float32"),
    ],
)
def test_what_does_not_fit_is_refused(name, arrays, why):
    with pytest.raises(ModelError, match=why):
        runner(captured(name))(arrays)


def test_batches_of_different_sizes_are_refused():
    with pytest.raises(ModelError, match="different sizes"):
        runner(fixed()[1])((np.zeros((4, 3), "f4"), np.zeros((5, 1), "f4")))


def test_threads_are_set_while_it_runs_and_put_back():
    seen = []
    model = captured("digits_cnn")
    before = torch.get_num_threads()
    other = 2 if before == 1 else 1

    run = runner(model, threads=other)
    original = torch.set_num_threads
    try:
        torch.set_num_threads = lambda n: (seen.append(n), original(n))  # type: ignore[assignment]
        run((sample("digits_cnn", 1).numpy(),))
    finally:
        torch.set_num_threads = original
    assert seen == [other, before]
    assert torch.get_num_threads() == before


def test_values_and_bytes_are_counted_once():
    model = captured("digits_cnn")
    module = network("digits_cnn")
    assert parameters(model) == sum(p.numel() for p in module.parameters())
    state = [*module.parameters(), *module.buffers()]
    assert state_bytes(model) == sum(t.numel() * t.element_size() for t in state)
    original, tied = everything()
    assert parameters(tied) == sum(p.numel() for p in original.parameters())
    state = [*original.parameters(), *original.buffers(), original.constant]
    assert state_bytes(tied) == sum(t.numel() * t.element_size() for t in state)


def test_half_precision_outputs_come_back_as_numbers():
    module = nn.Linear(3, 2).to(torch.bfloat16)
    model, _ = capture(module, (torch.zeros(2, 3, dtype=torch.bfloat16),), event=Event("load"))
    (out,) = runner(model)((np.ones((2, 3), np.float32),))
    assert out.dtype == np.float32


def test_an_index_outside_its_table_is_told():
    run = runner(captured("TinyBert"))
    with pytest.raises(ModelError, match="token id"):
        run((np.full((2, 16), 10**6),))
