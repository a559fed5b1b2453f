# SPDX-License-Identifier: Apache-2.0
"""``package.module:function`` in the user's folder, and scikit-learn's digits."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeprune.data import open_data
from edgeprune.errors import DataError

MODULE = """
import numpy as np, torch
from torch.utils.data import Dataset

x = torch.arange(60.0).reshape(20, 3)

def arrays():
    return {"x": x, "y": np.arange(20) % 2}

class Made(Dataset):
    def __init__(self, item): self.item = item
    def __len__(self): return 20
    def __getitem__(self, i): return self.item(i)

def pairs(): return Made(lambda i: (x[i], i % 2))
def pairs_of_tensors(): return Made(lambda i: (x[i], torch.tensor(i % 2)))
def bare(): return Made(lambda i: x[i])
def several(): return Made(lambda i: ((x[i], x[i] > 3), i % 2))
def random(): return Made(lambda i: torch.rand(3))
def fails(): raise RuntimeError("no disk\\nreally")
def late(): return Made(lambda i: 1 // (i - 3))
def nothing(): return None
class Empty(Made):
    def __len__(self): return 0
def empty(): return Empty(None)
def ragged(): return Made(lambda i: torch.zeros(i + 1))
def text(): return Made(lambda i: ("hello", 1))
def soft(): return Made(lambda i: (x[i], 0.5))
def some(): return Made(lambda i: (x[i], i % 2) if i else x[i])
def nan(): return Made(lambda i: (x[i] / 0, i % 2))
def negative(): return Made(lambda i: (x[i], -i))

class Rude(BaseException): pass
def leaves(): raise SystemExit(0)
def rude(): raise Rude("no")
def closed(): raise GeneratorExit
def late_leaves(): return Made(lambda i: x[i] if i < 3 else exit(0))
class Sized(Made):
    def __init__(self, size): self.size = size
    def __len__(self): return self.size
def unsized(): return Sized("three")
def below(): return Sized(-1)
def generator(): return (x[i] for i in range(3))
def loader(): return torch.utils.data.DataLoader(["a", "b"])
def strings(): return ["a", "b"]
def number(): return 7
def words(): return {"x": np.array(["a"] * 20)}
def objects(): return {"x": np.array([{}] * 20)}
def halves(): return {"x": torch.zeros(20, dtype=torch.bfloat16)}
def unlike(): return {"x": [[1], [1, 2]]}
def nameless(): return {}
class Bare:
    def __array__(self, *_, **__): raise SystemExit(3)
def bare_array(): return {"x": Bare()}
def hollow(): return Made(lambda i: ())
def items_of_none(): return Made(lambda i: None)
def items_of_tables(): return Made(lambda i: {"x": x[i]})
def wide(): return {"x": np.empty((2**40, 0), np.float32)}
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("my_data", None)


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize("name", ["arrays", "pairs", "pairs_of_tensors"])
def test_samples_and_labels_stay_together(name: str, memory: int) -> None:
    before = list(sys.path)
    data = open_data(f"my_data:{name}", seed=0, memory=memory)
    assert sys.path == before
    seen = []
    for batch in (*data.train(4, seed=0, epoch=0), *data.holdout(4), *data.evaluation(4)):
        assert batch.labels is not None
        for row, label in zip(batch.inputs[0], batch.labels, strict=True):
            assert label == (row[0] / 3) % 2
            seen.append(int(row[0]) // 3)
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize("memory", [2**20, 0])
def test_several_inputs_and_no_labels(memory: int) -> None:
    first, second = open_data("my_data:several", seed=0, memory=memory).example()
    assert torch.equal(second, first > 3)
    assert not open_data("my_data:bare", seed=0, memory=memory).labelled


def test_what_fits_or_not_is_the_same_data() -> None:
    kept, made = (open_data("my_data:pairs", seed=3, memory=memory) for memory in (2**20, 0))
    for a, b in zip(kept.train(4, seed=0, epoch=1), made.train(4, seed=0, epoch=1), strict=True):
        assert torch.equal(a.inputs[0], b.inputs[0])


def test_random_items_come_from_the_seed_and_leave_torch_alone() -> None:
    torch.manual_seed(1)
    first = open_data("my_data:random", seed=0)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    assert first.fingerprint == open_data("my_data:random", seed=0).fingerprint


@pytest.mark.parametrize("memory", [2**20, 0])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "AttributeError"),
        ("fails", "RuntimeError: no disk"),
        ("late", "item 3: ZeroDivisionError"),
        ("nothing", "returned NoneType; needed is a dictionary of arrays, or a torch Dataset"),
        ("empty", "empty dataset"),
        ("text", "item 0: input 0 has type"),
        ("soft", "item 0: label 0.5 is no integer class index"),
        ("some", "19 of 20 items have labels"),
        ("nan", "isn't finite"),
        ("negative", "label -1 in row 1 is out of range"),
        ("leaves", "ended Python (SystemExit: 0)"),
        ("rude", "Rude: no"),
        ("closed", "GeneratorExit"),
        ("late_leaves", "item 3: ended Python (SystemExit: 0)"),
        ("unsized", "TypeError"),
        ("below", "ValueError"),
        ("generator", "returned generator; needed is a dictionary of arrays"),
        ("loader", "returned DataLoader; needed is a dictionary of arrays"),
        ("strings", "item 0: input 0 has type <U1"),
        ("number", "returned int"),
        ("words", "array 'x' has type <U1"),
        ("objects", "array 'x' has type object"),
        ("halves", "'x' is no array: TypeError"),
        ("unlike", "'x' is no array: ValueError"),
        ("nameless", "can't tell the inputs among none"),
        ("bare_array", "'x' is no array: ended Python (SystemExit: 3)"),
        ("hollow", "item 0: has no inputs"),
        ("items_of_none", "item 0: input 0 has type object"),
        ("items_of_tables", "item 0: input 0 has type object"),
        ("wide", "has shape [1099511627776, 0], so no values"),
    ],
)
def test_what_cant_be_used_is_named(name: str, message: str, memory: int) -> None:
    with pytest.raises(DataError) as error:
        open_data(f"my_data:{name}", seed=0, memory=memory)
    assert str(error.value).startswith(f"my_data:{name}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_items_of_different_shapes_are_named() -> None:
    with pytest.raises(DataError, match="items have different shapes"):
        open_data("my_data:ragged", seed=0)


def test_a_module_that_isnt_there_is_named() -> None:
    with pytest.raises(DataError, match="not_there:x: ModuleNotFoundError"):
        open_data("not_there:x", seed=0)


def test_digits_need_no_file() -> None:
    data = open_data("digits", seed=5)
    assert data.sizes == {"train": 1294, "holdout": 144, "calibration": 1294, "evaluation": 359}
    (images,) = data.example()
    assert images.shape == (2, 1, 8, 8)
    assert 0 <= images.min() < images.max() <= 1
    assert data.classes == tuple("0123456789")
    same = next(data.evaluation(359)).inputs[0]
    assert torch.equal(same, next(open_data("digits", seed=6).evaluation(359)).inputs[0])
