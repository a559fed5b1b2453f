# SPDX-License-Identifier: Apache-2.0
"""Inputs that are no plain batches, and outputs that have names."""

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model import Event, Loaded, capture, load, parse_shape, read, runner, save

Pair = namedtuple("Pair", ["boxes", "scores"])
pytree._register_namedtuple(Pair, serialized_type_name="tests.Pair")  # or a file can't hold it


class State(nn.Module):
    """A recurrent state with its batch along axis 1, in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, c) = self.rnn(x, (state[:1], state[1:]))
        return self.head(y[:, -1]), torch.cat([h, c])


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)


class Mixed(Linear):
    """A matrix and a scalar that serve every sample."""

    def forward(self, x: Tensor, matrix: Tensor, scale: Tensor) -> Tensor:
        return self.head(x @ matrix) * scale


class TimeFirst(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).mean(0)


class Optional(Linear):
    def forward(
        self, x: Tensor, mask: Tensor | None = None, how: str = "sum", times: int = 1
    ) -> Tensor:
        y = self.head(x) * times
        return y if mask is None else y * mask


class Nested(Linear):
    def forward(self, batch: dict[str, object]) -> Tensor:
        first, (second, third) = batch["a"], batch["b c"]
        return self.head(first + second * third["x"])


class Returns(Linear):
    def __init__(self, form) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> object:
        y = self.head(x)
        return self.form(y, y.softmax(1))


def saved(path: Path, module: nn.Module, args, dims=None, kwargs=None) -> Path:
    program = export(module.eval(), args, kwargs, dynamic_shapes=dims)
    with path.open("wb") as file:
        torch.export.save(program, file)
    return path


def again(loaded: Loaded, path: Path) -> None:
    """Axes and names are the same once saved and read."""
    save(loaded.model, path)
    assert read(path).inputs == loaded.model.inputs
    assert read(path).outputs == loaded.model.outputs


BATCH = Dim("batch", min=1, max=1024)
X = torch.rand(2, 3)


def test_the_batch_is_the_dimension_that_is_dynamic(tmp_path):
    module, args = State(), (torch.rand(2, 5, 8), torch.rand(2, 2, 16))
    path = saved(tmp_path / "m.pt2", module, args, ({0: BATCH}, {1: BATCH}))
    loaded = load(path)
    again(loaded, tmp_path / "again.pt2")
    assert [(i.batch_axis, i.sample) for i in loaded.model.inputs] == [(0, (5, 8)), (1, (2, 16))]
    assert [(o.name, o.batch_axis) for o in loaded.model.outputs] == [
        ("output_0", 0),
        ("output_1", 1),
    ]
    x, state = torch.rand(3, 5, 8), torch.rand(2, 3, 16)
    logits, after = runner(loaded.model)((x.numpy(), state.numpy()))
    with torch.no_grad():
        wanted = module(x, state)
    np.testing.assert_allclose(logits, wanted[0], atol=1e-6)
    np.testing.assert_allclose(after, wanted[1].transpose(0, 1), atol=1e-6)
    with pytest.raises(ModelError, match="batches of different sizes"):
        runner(loaded.model)((x.numpy(), state[:, :2].numpy()))


def test_a_fixed_batch_is_run_in_pieces_along_its_own_axes():
    module, args = State().eval(), (torch.rand(3, 5, 8), torch.rand(2, 3, 16))
    axes = (0, 1)
    model, _ = capture(module, args, event=Event("load"), axes=axes)
    assert model.dynamic_batch
    from edgeprune.model.capture import as_model, capture_program

    fixed = as_model(capture_program(module, args, dynamic=False, axes=axes), Event("load"))
    assert (fixed.fixed_batch, fixed.batch_axes) == (3, (0, 1))
    x, state = np.float32(np.random.rand(7, 5, 8)), np.float32(np.random.rand(2, 7, 16))
    for got, wanted in zip(runner(fixed)((x, state)), runner(model)((x, state)), strict=True):
        assert len(got) == 7
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_a_batch_on_another_axis_alone_is_found(tmp_path):
    path = saved(tmp_path / "m", TimeFirst(), (torch.rand(9, 2, 3),), ({1: BATCH},))
    model = load(path).model
    assert (model.inputs[0].batch_axis, model.inputs[0].sample) == (1, (9, 3))
    both = saved(tmp_path / "n", TimeFirst(), (torch.rand(9, 2, 3),), ({0: Dim("t"), 1: BATCH},))
    assert load(both, input_shapes=("9xNx3",)).model.batch_axes == (1,)


def test_sizes_of_an_image_that_may_vary_are_no_batch(tmp_path):
    module = nn.Conv2d(3, 4, 3, padding=1)
    dims = ({2: Dim("h", min=4), 3: Dim("w", min=4)},)
    loaded = load(saved(tmp_path / "m", module, (torch.rand(1, 3, 8, 9),), dims))
    assert (loaded.model.fixed_batch, loaded.model.inputs[0].shape) == (1, (1, 3, 8, 9))
    assert "dimension 2 of input 1 is fixed to 8" in loaded.notes


def test_inputs_without_a_batch_serve_all_samples(tmp_path):
    args = (X, torch.rand(3, 3), torch.tensor(2.0))
    module = Mixed()
    path = saved(tmp_path / "m", module, args, ({0: BATCH}, None, None))
    loaded = load(path)
    again(loaded, tmp_path / "again.pt2")
    assert loaded.model.batch_axes == (0, None, None)
    x = torch.rand(5, 3)
    (got,) = runner(loaded.model)((x.numpy(), args[1].numpy(), args[2].numpy()))
    with torch.no_grad():
        np.testing.assert_allclose(got, module(x, *args[1:]), atol=1e-6)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X, None), {}),
        ((X, None, "mean", 3), {}),
        ((X,), {"how": "mean", "mask": None}),
        ((X,), {"mask": torch.rand(2, 2), "times": 2}),
    ],
)
def test_none_and_flags_load_by_place_and_by_name(args, kwargs, tmp_path):
    module = Optional()
    model = load(saved(tmp_path / "m", module, args, kwargs=kwargs)).model
    given = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    assert len(model.inputs) == len(given)
    (got,) = runner(model)(tuple(t.numpy() for t in given))
    with torch.no_grad():
        np.testing.assert_allclose(got, module(*args, **kwargs), atol=1e-6)


def test_nested_inputs_come_apart(tmp_path):
    args = ({"a": X, "b c": (X * 2, {"x": X + 1})},)
    module = Nested()
    model = load(saved(tmp_path / "m", module, args)).model
    names = [i.name for i in model.inputs]
    assert len(set(names)) == 3
    assert all(name.isidentifier() for name in names)
    (got,) = runner(model)((X.numpy(), (X * 2).numpy(), (X + 1).numpy()))
    with torch.no_grad():
        np.testing.assert_allclose(got, module(*args), atol=1e-6)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda a, b: a, ["output"]),
        (lambda a, b: (a, None, b), ["output_0", "output_1"]),
        (lambda a, b: {"logits": a, "probability": b}, ["logits", "probability"]),
        (lambda a, b: Pair(a, b), ["boxes", "scores"]),
        (lambda a, b: {"a": {"b": a}, "a_b": b}, ["a_b", "output_a_b"]),
        (lambda a, b: ({"a": a}, {"a": b}), ["a", "output_1_a"]),
        (lambda a, b: (a, {"aux": [b]}), ["output_0", "aux_0"]),
        (lambda a, b: {"p(x | y)/z": a, "0": b}, ["p_x___y__z", "output_0"]),
        (lambda a, b: {"x": a, "ü": b}, ["output_x", "_"]),
    ],
)
def test_outputs_are_called_as_the_network_calls_them(form, names, tmp_path):
    loaded = load(saved(tmp_path / "m", Returns(form), (X,), ({0: BATCH},)))
    again(loaded, tmp_path / "again.pt2")
    assert [o.name for o in loaded.model.outputs] == names
    model, _ = capture(Returns(form).eval(), (X,), event=Event("load"))
    assert model.outputs == loaded.model.outputs


class Nothing(nn.Module):
    def forward(self) -> Tensor:
        return torch.ones(2)


@pytest.mark.parametrize(
    ("module", "args", "why"),
    [
        (Nothing(), (), "takes no tensor"),
        (nn.Identity(), (torch.zeros(2, 0, 3),), "a dimension of size 0"),
    ],
)
def test_a_program_that_cannot_be_fed_is_refused(module, args, why, tmp_path):
    with pytest.raises(ModelError, match=why):
        load(saved(tmp_path / "m", module, args))


def test_a_shape_says_where_the_batch_is():
    assert parse_shape("2xNx16:int16").batch_axis == 1
    assert parse_shape("2xNx16:int16").sizes == (2, 1, 16)


class Half(Linear):
    """Half-precision weights, a constant and a cast."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + torch.tensor([1, 2, 3])).to(torch.float16) * torch.ones(
            2, dtype=torch.float16
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_made_float32(tmp_path, dtype):
    net = Half().eval().to(dtype)
    x = torch.randn(4, 3).to(dtype)
    path = saved(tmp_path / "m.pt2", net, (x,), ({0: Dim("batch", min=1, max=64)},))
    loaded = load(path)
    assert [i.dtype for i in loaded.model.inputs] == [torch.float32]
    assert any("float32" in note for note in loaded.notes)
    (got,) = runner(loaded.model)((x.float().numpy(),))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, net.float()(x.float()).detach().numpy(), atol=1e-2)
