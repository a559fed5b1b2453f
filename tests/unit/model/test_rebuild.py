# SPDX-License-Identifier: Apache-2.0
"""A graph that is changed without an export is what an export would have made of it."""

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph

from edgeprune.channels import analyse, apply
from edgeprune.errors import EdgepruneError
from edgeprune.model import Event, Model, capture, parameters, read, rebuild, save
from tests.architectures import ARCHITECTURES
from tests.architectures.pruned import Subject, run
from tests.unit.model.nets import INPUTS, captured, everything, sample

FAMILIES = (
    "vit", "swin", "convnext-v2", "mobilenet-v2", "levit", "albert", "llama", "mamba", "yolos",
    "shufflenet-v1", "densenet", "conv-gru", "lstm-tagger", "einsum-attention", "torch-encoder",
    "tcn-weight-norm", "super-resolution", "dlrm",
)  # fmt: skip
QUICK = ("vit", "llama", "shufflenet-v1", "conv-gru", "einsum-attention", "super-resolution")
SHAPING = sys.modules["edgeprune.model.rebuild"]
NEXT = Event("next")


def nothing(graph: Graph) -> None:
    """Leaves the graph as it is."""


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export is an error from here on."""
    monkeypatch.setattr(SHAPING, "recapture", None)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The events of the exports from here on."""
    seen: list[str] = []
    original = SHAPING.recapture

    def noted(model: Model, module: nn.Module, event: Event) -> Model:
        seen.append(event.stage)
        return original(model, module, event)

    monkeypatch.setattr(SHAPING, "recapture", noted)
    return seen


def layouts(model: Model) -> list[object]:
    """Operator, shape, steps in memory and type of each value that something uses."""
    return [
        (node.op, str(node.target) if node.op == "call_function" else "", layout(node.meta["val"]))
        for node in model.program.graph.nodes
        if node.op == "call_function" or node.users
    ]


def layout(value: object) -> object:
    if isinstance(value, list | tuple):
        return [layout(part) for part in value]
    if not isinstance(value, Tensor):
        return str(value)
    # a dimension of one has no step: torch gives it any
    steps = [str(step) for step, size in zip(value.stride(), value.shape, strict=True) if size != 1]
    return tuple(map(str, value.shape)), steps, value.dtype, str(value.device)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_it_is_what_an_export_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(name)
    assert name in ARCHITECTURES
    with monkeypatch.context() as patch:
        patch.setattr(SHAPING, "recapture", None)
        fast = subject.halved
    with monkeypatch.context() as patch:
        patch.setattr(SHAPING, "_is_plain", lambda program: False)
        slow = apply(subject.model, subject.groups, subject.half, Event("prune"))
    assert fast.dynamic_batch == slow.dynamic_batch == subject.model.dynamic_batch
    assert fast.inputs == slow.inputs
    assert fast.program.range_constraints.keys() == subject.model.program.range_constraints.keys()
    mine, other = layouts(fast), layouts(slow)
    different = [(m, o) for m, o in zip(mine, other, strict=True) if m != o]
    assert all("Min(" in str(o) for _, o in different), different
    for a, b in zip(
        run(fast.module(), subject.inputs), run(slow.module(), subject.inputs), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", INPUTS)
def test_no_change_is_the_same_model(name: str, no_export: None) -> None:
    model = captured(name)
    again = rebuild(model, {}, nothing, NEXT)
    assert again.fingerprint() == model.fingerprint()
    assert layouts(again) == layouts(model)
    assert again.history == (*model.history, NEXT)


def test_no_change_to_everything_is_the_same_model(no_export: None) -> None:
    _, model = everything()
    assert rebuild(model, {}, nothing, NEXT).fingerprint() == model.fingerprint()


def halved(model: Model) -> Model:
    groups = analyse(model)
    gone = groups.keep_all()
    for group in groups.groups:
        gone[group.channels[::2]] = True
    return apply(model, groups, gone, NEXT)


@pytest.mark.parametrize("name", INPUTS)
def test_it_runs_at_any_batch_saves_and_is_read(name: str, no_export: None, tmp_path) -> None:
    model = captured(name)
    before = model.fingerprint()
    small = halved(model)
    assert parameters(small) < parameters(model)
    assert model.fingerprint() == before
    for path in ("a.pt2", "b.pt2"):
        save(small, tmp_path / path)
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()
    back = read(tmp_path / "a.pt2")
    assert back.fingerprint() == small.fingerprint()
    assert layouts(back) == layouts(small)
    for batch in (1, 3):
        x = sample(name, batch)
        assert torch.equal(small.module()(x), back.module()(x))
    assert halved(back).fingerprint() == halved(small).fingerprint()


def test_two_of_the_same_are_the_same_file(no_export: None, tmp_path) -> None:
    save(halved(captured("TinyViT")), tmp_path / "a")
    save(halved(captured("TinyViT")), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Tied(nn.Module):
    """One weight under two names, and one input whose name is a word of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.out = nn.Linear(6, 10, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, input: Tensor) -> Tensor:
        return self.out(self.embedding(input)).relu()


def test_tied_weights_stay_one_tensor(no_export: None, tmp_path) -> None:
    model, _ = capture(Tied().eval(), (torch.zeros(2, 5, dtype=torch.int64),), event=NEXT)
    narrow = torch.randn(10, 4)
    names = ("embedding.weight", "out.weight")
    state = {name: narrow for name in names if name in model.program.state_dict}
    assert len(state) == 2
    small = rebuild(model, state, nothing, NEXT)
    assert parameters(small) == 40
    module = small.module()
    assert module.embedding.weight is module.out.weight
    assert isinstance(module.out.weight, nn.Parameter)
    save(small, tmp_path / "m.pt2")
    assert read(tmp_path / "m.pt2").fingerprint() == small.fingerprint()


def without_relu(graph: Graph) -> None:
    (relu,) = graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default)
    relu.replace_all_uses_with(relu.args[0])
    graph.erase_node(relu)


def test_an_output_may_come_from_another_operator(no_export: None) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
    model, _ = capture(net, (torch.zeros(2, 3),), event=NEXT)
    x = torch.randn(5, 3)
    assert torch.equal(rebuild(model, {}, without_relu, NEXT).module()(x), net[0](x))


class Spare(nn.Module):
    """A layer whose result can be left out, and a buffer that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("unused", torch.ones(7))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


def without_b(graph: Graph) -> None:
    (add,) = graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    add.replace_all_uses_with(add.args[0])
    graph.erase_node(add)


@pytest.mark.parametrize("plain", [True, False])
def test_state_goes_with_its_last_use(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Spare().eval()
    model, _ = capture(net, (torch.zeros(2, 3),), event=NEXT)
    if not plain:
        monkeypatch.setattr(SHAPING, "_is_plain", lambda program: False)
    small = rebuild(model, {}, without_b, NEXT)
    assert {"a.weight", "a.bias"} <= small.program.state_dict.keys()
    assert not {"b.weight", "b.bias"} & small.program.state_dict.keys()
    x = torch.randn(4, 3)
    assert torch.equal(small.module()(x), net.a(x))


def test_what_is_dropped_goes_though_nothing_used_it(no_export: None) -> None:
    model, _ = capture(Spare().eval(), (torch.zeros(2, 3),), event=NEXT)
    if "unused" in model.program.state_dict:
        assert "unused" in rebuild(model, {}, nothing, NEXT).program.state_dict
    small = rebuild(model, {}, nothing, NEXT, drop=("unused",))
    assert "unused" not in small.program.state_dict
    assert small.module()(torch.zeros(1, 3)).shape == (1, 3)


class Fixed(nn.Module):
    """Takes one batch size only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(4, 6).relu()


def test_a_static_batch_stays(no_export: None) -> None:
    model, notes = capture(Fixed(), (torch.zeros(4, 2, 3),), event=NEXT)
    assert notes
    again = rebuild(model, {}, nothing, NEXT)
    assert not again.dynamic_batch
    assert again.fingerprint() == model.fingerprint()


class Subgraph(nn.Module):
    """A branch on data, which the graph holds as two graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return torch.cond(y.sum() > 0, lambda v: v + 1, lambda v: v - 1, (y,))


class Odd(nn.Module):
    """A size that is neither fixed nor a multiple of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, torch.cat([y, y[:1]])


class Prime(nn.Module):
    """A size that the run takes the batch for."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 10007)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


@pytest.mark.parametrize("net", [Subgraph, Odd, Prime])
def test_what_it_cannot_vouch_for_is_exported(net: type[nn.Module], exports: list[str]) -> None:
    torch.manual_seed(0)
    module = net().eval()
    model, _ = capture(module, (torch.zeros(2, 3),), event=Event("load"))
    weight = torch.randn(3, 3)
    changed = rebuild(model, {"a.weight": weight}, nothing, NEXT)
    assert exports == ["next"]
    with torch.no_grad():
        module.a.weight.copy_(weight)
    x = torch.randn(5, 3)
    for mine, other in zip(run(changed.module(), (x,)), run(module, (x,)), strict=True):
        assert torch.equal(mine, other)


def test_a_graph_that_does_not_fit_is_refused_by_name() -> None:
    model = captured("digits_cnn")
    name = next(n for n, t in model.program.state_dict.items() if t.ndim == 4)
    wrong = {name: torch.zeros(3, 17, 3, 3)}
    with pytest.raises(EdgepruneError, match="next: the edited graph doesn't run"):
        rebuild(model, wrong, nothing, NEXT)
