# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune.data import Data
from edgeprune.errors import InputError
from edgeprune.mask import Mask, look
from edgeprune.model import Model
from edgeprune.tickets.at_init.collapse import collapsed
from edgeprune.tickets.at_init.synflow import Flow
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import AtInitOptions
from tests.unit.finetune.toy import captured
from tests.unit.tickets.at_init.nets import ONE_BATCH, altered, full, mlp, model_of, run

SIZES = (6, 9, 7, 4)


@pytest.fixture(scope="module")
def chain() -> Model:
    return model_of(mlp(SIZES), torch.zeros(2, 6))


def scores_of(model: Model, mask: Mask) -> dict[str, Tensor]:
    return dict(Flow(model).scores(mask, Ledger(look(model))))


@pytest.mark.parametrize("ending", [nn.Softmax(1), nn.Sigmoid()])
def test_an_ending_changes_no_score(chain: Model, ending: nn.Module) -> None:
    """Softmax sums to one whatever the weights, so that all scores would be zero."""
    ended = model_of(nn.Sequential(*mlp(SIZES), ending), torch.zeros(2, 6))
    found, wanted = scores_of(ended, full(ended)), scores_of(chain, full(chain))
    torch.testing.assert_close(found, wanted)


def some(mask: Mask) -> Mask:
    random = torch.Generator().manual_seed(3)
    keep = {n: torch.rand(k.shape, generator=random) < 0.6 for n, k in mask.keep.items()}
    return Mask(keep, mask.about)


@pytest.mark.parametrize("masked", [False, True])
def test_scores_are_the_closed_product_of_absolute_weights(chain: Model, masked: bool) -> None:
    """Of a chain of matrices: (1^T W3 W2)_j |w_jk| (W1 1)_k, and so on."""
    mask = some(full(chain)) if masked else full(chain)
    state = chain.program.state_dict
    one, two, three = (state[n].abs().double() * k for n, k in mask.keep.items())
    ends = [(three @ two).sum(0), three.sum(0), torch.ones(4).double()]
    starts = [torch.ones(6).double(), one.sum(1), (two @ one).sum(1)]
    found = scores_of(chain, mask)
    for value, left, weight, right in zip(
        found.values(), ends, (one, two, three), starts, strict=True
    ):
        assert value.dtype == torch.float64
        torch.testing.assert_close(value, left[:, None] * weight * right[None])


@pytest.mark.parametrize("net", ["chain", "deep"])
def test_the_flow_is_conserved_from_layer_to_layer(
    net: str, request: pytest.FixtureRequest
) -> None:
    """Theorem 1: every layer's scores sum to R; new batch norms only divide by the same."""
    model = request.getfixturevalue(net)
    flow = Flow(model)
    sums = [float(v.sum()) for v in flow.scores(full(model), Ledger(look(model))).values()]
    total = float(flow.total(flow.inputs).detach()) - float(sum_of_biases(model))
    assert sums == pytest.approx([total] * len(sums), rel=1e-9)
    assert flow.notes == ()


def sum_of_biases(model: Model) -> Tensor:
    """Of the last layer: they are added to R behind all weights."""
    biases = [
        v.detach() for n, v in model.program.state_dict.items() if n == "13.bias" or n == "25.bias"
    ]
    return sum((b.abs().double().sum() for b in biases), torch.zeros(()).double())


def test_at_999_in_1000_synflow_is_whole_where_snip_and_grasp_have_collapsed(
    deep: Model, images: Data, tmp_path: Path
) -> None:
    """Tanaka et al. 2020, figure 1: a VGG-like network with 8 layers, 109 of 108 000 weights."""
    options = {
        "density": 0.001,
        "data": images,
        "at_init": AtInitOptions(samples=100),
        "train": ONE_BATCH,
    }
    good = run("synflow", deep, tmp_path, density=0.001)
    assert collapsed(good.ticket.mask) == ()
    assert good.details["effective_density"] > 0.0009
    assert good.details["iterations"] == 100
    for method in ("snip", "grasp"):
        bad = run(method, deep, tmp_path, **options)
        assert len(collapsed(bad.ticket.mask)) >= 2
        assert bad.details["effective_density"] == 0
        assert any("layer collapse" in note for note in bad.notes)


def test_one_step_collapses_where_a_hundred_do_not(deep: Model, tmp_path: Path) -> None:
    """Which is what the iterations are for (Tanaka et al. 2020)."""
    once = run("synflow", deep, tmp_path, density=0.001, at_init=AtInitOptions(iterations=1))
    assert collapsed(once.ticket.mask) != ()


def test_the_mask_is_met_exactly_and_the_model_stays(chain: Model, tmp_path: Path) -> None:
    before = chain.fingerprint()
    found = run("synflow", chain, tmp_path, density=0.3, seed=4)
    size = 6 * 9 + 9 * 7 + 7 * 4
    assert found.ticket.mask.kept == round(0.3 * size)
    assert (found.ticket.mask.about.method, found.ticket.mask.about.seed) == ("synflow", 4)
    assert chain.fingerprint() == before
    assert found.ledger.dense == 100 * 6 * size
    assert 0 < found.ledger.sparse < found.ledger.dense
    again = run("synflow", chain, tmp_path, density=0.3, seed=4)
    assert again.ticket.mask.same(found.ticket.mask)


def test_steps_are_exponential_in_each_layer_by_hand_too(chain: Model, tmp_path: Path) -> None:
    found = run(
        "synflow", chain, tmp_path, density=0.4, densities={"0.weight": 0.1, "4.weight": 1.0},
        at_init=AtInitOptions(iterations=5),
    )  # fmt: skip
    densities = found.ticket.mask.densities
    assert densities["0.weight"] == pytest.approx(0.1, abs=0.02)
    assert densities["4.weight"] == 1
    assert found.ticket.mask.kept == round(0.4 * (6 * 9 + 9 * 7 + 7 * 4))
    even = run("synflow", chain, tmp_path, density=0.5, alloc="uniform")
    assert [round(d, 1) for d in even.ticket.mask.densities.values()] == [0.5] * 3


def test_a_pattern_is_chosen_in_one_step(deep: Model, tmp_path: Path) -> None:
    found = run(
        "synflow", deep, tmp_path, density=0.5, pattern="2:4", exclude=("0.weight",)
    )  # fmt: skip
    assert found.details["iterations"] == 1
    kept = found.ticket.mask.keep["3.weight"].movedim(1, -1).reshape(-1, 4).sum(1)
    assert bool((kept == 2).all())


def test_transformers_are_computed_with_a_word_of_warning(
    vit: Model, bert: Model, tmp_path: Path
) -> None:
    few = AtInitOptions(iterations=3)
    found = run("synflow", vit, tmp_path, density=0.2, at_init=few)
    assert found.ticket.mask.density == pytest.approx(0.2, rel=1e-3)
    assert found.notes[0].startswith("gelu, layer_norm, scaled_dot_product_attention: not homog")
    found = run("synflow", bert, tmp_path, density=0.2, at_init=few)
    assert "the input of ones is the embedded one: 'ids' are token ids" in found.notes


def test_the_token_table_does_not_count(bert: Model, tmp_path: Path) -> None:
    few = AtInitOptions(iterations=3)
    first = run("synflow", bert, tmp_path, density=0.2, at_init=few).ticket.mask
    for table, same in (("tokens.weight", True), ("positions.weight", False)):
        new = altered(bert, lambda n, v, t=table: v * torch.linspace(0.1, 9, 16) if n == t else v)
        mask = run("synflow", new, tmp_path, density=0.2, at_init=few).ticket.mask
        assert mask.same(first) == same


def test_a_fixed_batch_and_trained_statistics(fixed: Model, tmp_path: Path) -> None:
    found = run("synflow", fixed, tmp_path, density=0.5)
    assert found.ticket.mask.kept == 9
    assert found.notes == ()
    moved = altered(fixed, lambda n, v: v * 0 - 2 if n == "norm.running_mean" else v)
    (note,) = run("synflow", moved, tmp_path, density=0.5).notes
    assert "batch norms hold the means or shifts of training" in note


def test_a_graph_that_insists_on_single_precision_is_run_in_it() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 3, bias=False)
            self.head = nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x) @ torch.eye(3))  # single precision, whatever x is

    flow = Flow(captured(Stubborn(), torch.zeros(2, 4)))
    assert flow.dtype == torch.float32
    assert any("single precision" in note for note in flow.notes)


def test_a_network_without_flow_is_refused(tmp_path: Path) -> None:
    whole = model_of(mlp((4, 3, 2)), torch.zeros(2, 4))
    model = altered(whole, lambda n, value: value * 0 if n == "2.weight" else value)
    with pytest.raises(InputError, match="synflow: all scores are zero"):
        run("synflow", model, tmp_path)
