# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn
from torch.export import export

from edgeprune.model import Event, capture, recapture, set_training
from tests.unit.model.nets import everything


def literals(module, operator):
    """The arguments of each call of ``operator`` that are no nodes."""
    calls = [n for n in module.graph.nodes if str(n.target) == operator]
    assert calls
    return [(*(a for a in n.args if not isinstance(a, torch.fx.Node)), n.kwargs) for n in calls]


def test_only_the_mode_changes_and_all_comes_back():
    model = everything()[1]
    module = model.module()
    before = module.code
    set_training(module, True)
    pairs = zip(before.splitlines(), module.code.splitlines(), strict=True)
    changed = [old.split("=")[0].strip() for old, new in pairs if old != new]
    named = ["batch_norm_1", "alpha_dropout", "feature_dropout", "dropout_", "rrelu", "lstm"]
    assert sorted(changed) == sorted([*named, "dropout", "dropout_1", "dropout_2"])
    set_training(module, False)
    assert recapture(model, module, Event("x")).fingerprint() == model.fingerprint()


@pytest.mark.parametrize(
    ("operator", "eval_mode", "train_mode"),
    [
        ("aten.alpha_dropout.default", [(0.31, False, {})], [(0.31, True, {})]),
        ("aten.feature_dropout.default", [(0.22, False, {})], [(0.22, True, {})]),
        ("aten.dropout_.default", [(0.25, False, {})], [(0.25, True, {})]),
        ("aten.dropout.default", [(0.12, False, {})] * 3, [(0.12, True, {})] * 3),
        ("aten.rrelu.default", [({},)], [({"training": True},)]),
        (
            "aten.batch_norm.default",  # the first has no statistics: always by its batch
            [(None, None, True, 0.1, 1e-5, False, {}), (False, 0.3, 1e-3, False, {})],
            [(None, None, True, 0.1, 1e-5, False, {}), (True, 0.3, 1e-3, False, {})],
        ),
    ],
)
def test_probabilities_eps_and_momentum_stay(operator, eval_mode, train_mode):
    module = everything()[1].module()
    assert literals(module, operator) == eval_mode
    set_training(module, True)
    assert literals(module, operator) == train_mode


def test_lstm_dropout_follows_its_own_literal():
    module = everything()[1].module()
    ((_, *before),) = [n.args[2:] for n in module.graph.nodes if "aten.lstm" in str(n.target)]
    set_training(module, True)
    ((_, *after),) = [n.args[2:] for n in module.graph.nodes if "aten.lstm" in str(n.target)]
    assert before == [True, 2, 0.15, False, False, True]
    assert after == [True, 2, 0.15, True, False, True]


def test_train_mode_updates_statistics_with_the_modules_own_momentum():
    original = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.25))
    model, _ = capture(original, (torch.randn(2, 1, 6, 6),), event=Event("load"))
    module = model.module()
    x = torch.randn(8, 1, 6, 6) * 3 + 1
    set_training(module, True)
    original.train()
    wanted, got = original(x), module(x)
    assert torch.allclose(wanted, got, atol=1e-6)
    bn = getattr(module, "1")
    assert torch.allclose(bn.running_mean, original[1].running_mean, atol=1e-6)
    assert torch.allclose(bn.running_var, original[1].running_var, atol=1e-6)
    assert not torch.equal(bn.running_mean, torch.zeros(4))
    frozen = bn.running_mean.clone()
    set_training(module, False)
    module(x)
    assert torch.equal(bn.running_mean, frozen)
    again = recapture(model, module, Event("train")).module()
    assert torch.allclose(again(x), original.eval()(x), atol=1e-6)


def test_dropout_drops_in_train_mode_only():
    model, _ = capture(nn.Sequential(nn.Dropout(0.4)), (torch.ones(2, 1000),), event=Event("load"))
    module = model.module()
    x = torch.ones(4, 1000)
    assert torch.equal(module(x), x)
    set_training(module, True)
    assert 0.3 < float((module(x) == 0).float().mean()) < 0.5
    set_training(module, False)
    assert torch.equal(module(x), x)


def test_decomposed_operators_switch_too():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, eps=1e-3), nn.Dropout(0.3)).train()
    graph = export(module, (torch.randn(2, 1, 5, 5),)).run_decompositions().module()
    set_training(graph, False)
    found = {
        str(n.target): [a for a in n.args if isinstance(a, bool | float)]
        for n in graph.graph.nodes
        if "batch_norm" in str(n.target) or "dropout" in str(n.target)
    }
    assert [v for k, v in found.items() if "batch_norm" in k] == [[False, 0.1, 1e-3]]
    assert all(False in v and True not in v for k, v in found.items() if "dropout" in k)


def test_nested_graphs_switch_too():
    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            with torch.no_grad():
                y = self.drop(x)
            return y + x

    model, _ = capture(Guarded(), (torch.randn(2, 8),), event=Event("load"))
    module = model.module()
    x = torch.ones(4, 64)[:, :8]
    set_training(module, True)
    torch.manual_seed(0)
    assert not torch.equal(module(x), x + x)
    set_training(module, False)
    assert torch.equal(module(x), x + x)
