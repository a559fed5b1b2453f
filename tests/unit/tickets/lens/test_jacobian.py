# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import Tensor, nn

from edgeprune.errors import InputError
from edgeprune.mask import About, Mask
from edgeprune.model import Model
from edgeprune.tickets.lens import jacobian
from edgeprune.tickets.lens.jacobian import Kernel, estimate_ntk, jacobian_ntk
from tests.networks import DigitsCnn, TinyBert
from tests.unit.finetune.toy import FixedBatch, captured


class Smooth(nn.Module):
    """Two layers without kinks, with biases and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.norm(self.first(x))))


@pytest.fixture(scope="module")
def smooth() -> Model:
    torch.manual_seed(0)
    return captured(Smooth(), torch.zeros(2, 5))


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    return (torch.randn(6, 5, generator=torch.Generator().manual_seed(1)),)


@pytest.fixture(scope="module")
def half() -> Mask:
    random = torch.Generator().manual_seed(2)
    shapes = {"first.weight": (4, 5), "second.weight": (3, 4)}
    keep = {n: torch.rand(s, generator=random) < 0.5 for n, s in shapes.items()}
    return Mask(keep, About("by hand"))


def by_differences(model: Model, mask: Mask | None, inputs: tuple[Tensor, ...]) -> Tensor:
    """J J^T from outputs alone, in double precision: every living parameter moved up and down."""
    module = model.module().double()
    named = dict(module.named_parameters())
    x = tuple(i.double() for i in inputs)
    columns = []
    with torch.no_grad():
        for name, kept in ({} if mask is None else mask.keep).items():
            named[name].mul_(kept)
        for name, parameter in named.items():
            kept = torch.ones(parameter.shape) if mask is None else mask.keep.get(name)
            living = torch.ones(parameter.shape) if kept is None else kept
            for place in living.flatten().nonzero().flatten().tolist():
                ends = []
                for step in (1e-5, -2e-5):
                    parameter.view(-1)[place] += step
                    ends.append(module(*x).flatten())
                parameter.view(-1)[place] += 1e-5
                columns.append((ends[0] - ends[1]) / 2e-5)
    rows = torch.stack(columns, 1)
    return rows @ rows.T


def test_a_softmax_changes_no_kernel(smooth: Model, batch: tuple[Tensor, ...]) -> None:
    class Ended(Smooth):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(1)

    torch.manual_seed(0)
    ended = captured(Ended(), torch.zeros(2, 5))
    found, wanted = (jacobian_ntk(m, None, batch).values for m in (ended, smooth))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
def test_the_kernel_is_that_of_finite_differences(
    smooth: Model, batch: tuple[Tensor, ...], half: Mask, masked: bool
) -> None:
    mask = half if masked else None
    found = jacobian_ntk(smooth, mask, batch)
    assert found.how == "exact: vmap(jacrev) over samples"
    assert (found.samples, found.width, found.values.shape) == (6, 3, (18, 18))
    others = 4 + 8 + 3
    assert found.parameters == others + (half.kept if masked else 32)
    torch.testing.assert_close(
        found.values, by_differences(smooth, mask, batch), rtol=1e-4, atol=1e-4
    )


def test_the_sum_over_outputs_is_the_trace_of_the_blocks(
    smooth: Model, batch: tuple[Tensor, ...]
) -> None:
    whole, summed = (jacobian_ntk(smooth, None, batch, outputs=o) for o in ("all", "sum"))
    torch.testing.assert_close(whole.by_sample(), summed.values)
    torch.testing.assert_close(summed.by_sample(), summed.values)
    blocks = torch.stack([whole.values[k::3, k::3] for k in range(3)]).sum(0)
    torch.testing.assert_close(summed.values, blocks)


def test_little_memory_changes_nothing_but_the_pieces(
    smooth: Model, batch: tuple[Tensor, ...], half: Mask
) -> None:
    whole = jacobian_ntk(smooth, half, batch)
    torch.testing.assert_close(jacobian_ntk(smooth, half, batch, memory=5000).values, whole.values)
    with pytest.raises(InputError, match=r"GB for 'first.weight' alone.*fewer samples"):
        jacobian_ntk(smooth, half, batch, memory=1000)


def test_the_plain_loop_gives_the_same(
    smooth: Model, batch: tuple[Tensor, ...], half: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = jacobian_ntk(smooth, half, batch)

    def refuse(*_: object) -> dict[str, Tensor]:
        raise RuntimeError("no batching rule for it\nand more")

    monkeypatch.setattr(jacobian, "_by_vmap", refuse)
    slow = jacobian_ntk(smooth, half, batch)
    why = "exact: one output at a time, since vmap refuses: no batching rule for it"
    assert slow.how == why
    torch.testing.assert_close(slow.values, fast.values, rtol=1e-5, atol=1e-6)


def test_steps_between_integers_have_no_derivative(batch: tuple[Tensor, ...]) -> None:
    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + torch.bucketize(x[:, :2], torch.linspace(-1, 1, 5)).float()

    found = jacobian_ntk(captured(Stepped(), torch.zeros(2, 5)), None, batch)
    x = torch.cat([batch[0], torch.ones(6, 1)], 1).double()
    torch.testing.assert_close(found.by_sample(), 2 * x @ x.T)


def distance(one: Kernel, two: Tensor) -> float:
    return float((one.values - two).norm() / two.norm())


@pytest.mark.parametrize("outputs", ["sum", "all"])
def test_the_estimate_comes_near_as_directions_grow(
    smooth: Model, batch: tuple[Tensor, ...], half: Mask, outputs: str
) -> None:
    exact = jacobian_ntk(smooth, half, batch, outputs=outputs).values
    few, many = (estimate_ntk(smooth, half, batch, probes=n, outputs=outputs) for n in (4, 256))
    assert few.spread is not None
    assert many.spread is not None
    assert distance(many, exact) < 3 * many.spread < 0.3
    assert distance(many, exact) < distance(few, exact)
    assert few.spread / many.spread == pytest.approx(8, rel=0.6)  # as one over the root
    assert float(many.values.trace()) == pytest.approx(float(exact.trace()), rel=0.1)
    assert (many.directions, many.parameters) == (1024, 15 + half.kept)
    assert many.how == "estimate: 4 seeds of 256 directions each, forward-mode derivatives"


def test_the_spread_is_how_far_estimates_with_other_seeds_lie(
    smooth: Model, batch: tuple[Tensor, ...]
) -> None:
    exact = jacobian_ntk(smooth, None, batch, outputs="sum").values
    found = [
        estimate_ntk(smooth, None, batch, probes=8, seeds=(2 * i, 2 * i + 1)) for i in range(12)
    ]
    error = (sum(distance(each, exact) ** 2 for each in found) / len(found)) ** 0.5
    told = sum(each.spread or 0.0 for each in found) / len(found)
    assert told == pytest.approx(error, rel=0.4)


def test_two_backward_passes_give_the_same_direction(
    smooth: Model, batch: tuple[Tensor, ...], half: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = estimate_ntk(smooth, half, batch, probes=2)

    def refuse(*_: object) -> Tensor:
        raise NotImplementedError("no forward derivative")

    monkeypatch.setattr(jacobian, "_forward_mode", refuse)
    backward = estimate_ntk(smooth, half, batch, probes=2)
    assert backward.how.endswith("derivatives by two backward passes")
    torch.testing.assert_close(backward.values, forward.values, rtol=1e-4, atol=1e-5)
    assert backward.spread == pytest.approx(forward.spread, rel=1e-3)


def test_a_fixed_batch_is_filled_up(half: Mask) -> None:
    torch.manual_seed(0)
    model = captured(FixedBatch(), torch.zeros(4, 6))
    x = (torch.randn(5, 6),)
    found = jacobian_ntk(model, None, x)
    torch.testing.assert_close(found.values, loose(model, x), rtol=1e-4, atol=1e-4)
    near = estimate_ntk(model, None, x, probes=40, outputs="all")
    assert distance(near, found.values) < 0.4


def loose(model: Model, inputs: tuple[Tensor, ...]) -> Tensor:
    """The kernel of the same layers without the batch in their code."""
    net = FixedBatch()
    net.load_state_dict({n: v.detach() for n, v in model.program.state_dict.items()})
    free = nn.Sequential(net.norm, net.head).eval()
    rows = []
    for sample in inputs[0]:
        for output in free(sample[None])[0]:
            parts = torch.autograd.grad(output, list(free.parameters()), retain_graph=True)
            rows.append(torch.cat([p.flatten() for p in parts]).double())
    return torch.stack(rows) @ torch.stack(rows).T


def test_convolutions_and_token_ids(half: Mask) -> None:
    torch.manual_seed(0)
    cnn = captured(DigitsCnn(4), torch.zeros(2, 1, 8, 8))
    found = jacobian_ntk(cnn, None, (torch.randn(3, 1, 8, 8),))
    assert found.values.shape == (30, 30)
    assert float(torch.linalg.eigvalsh(found.values)[0]) > -1e-6 * float(found.values.trace())
    bert = captured(TinyBert(width=8), torch.zeros(2, 16, dtype=torch.int64))
    ids = (torch.randint(0, 100, (3, 16)),)
    exact = jacobian_ntk(bert, None, ids, outputs="sum")
    assert exact.how == "exact: vmap(jacrev) over samples"
    assert distance(estimate_ntk(bert, None, ids, probes=32), exact.values) < 0.3


def test_bad_input(smooth: Model, batch: tuple[Tensor, ...]) -> None:
    with pytest.raises(InputError, match="another network"):
        jacobian_ntk(smooth, Mask.full({"none": (2, 2)}, About("by hand")), batch)
    for wrong in ({"probes": 0}, {"seeds": (1,)}, {"seeds": (1, 1)}):
        with pytest.raises(InputError, match="at least one probe and two seeds"):
            estimate_ntk(smooth, None, batch, **wrong)

    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).argmax(1)

    with pytest.raises(InputError, match="no output of a floating type"):
        jacobian_ntk(captured(Classes(), torch.zeros(2, 5)), None, batch)
