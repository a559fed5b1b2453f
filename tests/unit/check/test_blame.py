# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.check.blame import blame, changes
from edgeprune.gate.lock import LayerSize


def layer(
    name: str, type: str = "Conv", parameters: int = 100, macs: int | None = 1000
) -> LayerSize:
    return LayerSize(name=name, type=type, parameters=parameters, macs=macs, bytes=4 * parameters)


NET = (layer("a"), layer("b"), layer("c", "Gemm", 50, 50))
LAYERS = st.lists(
    st.builds(
        layer,
        st.sampled_from("abcdef"),
        st.sampled_from(["Conv", "Gemm"]),
        st.integers(0, 3),
        st.none() | st.integers(0, 3),
    ),
    max_size=8,
)


def test_equal_layers_did_not_change() -> None:
    assert changes(NET, NET) == ()


def test_of_a_long_name_the_layers_own_is_told() -> None:
    fused = layer(f"net/relu;{'net/norm;' * 20}net/conv1")
    assert blame((), (fused,)) == ("…net/conv1 (Conv): new: 100 parameters, 1 k MACs, 400 B",)
    (told,) = blame((), (layer(f"{'deep/' * 40}conv2"),))
    assert told.startswith("…")
    assert told.partition(" ")[0].endswith("deep/conv2")
    assert len(told.partition(" ")[0]) == 81


def test_a_new_layer_is_named_though_all_that_follow_have_other_names() -> None:
    before = [layer(f"conv_{k}", parameters=10 * k) for k in range(6)]
    new = layer("conv_3", parameters=7)
    after = [*before[:3], new]
    after += [old.model_copy(update={"name": f"conv_{k + 4}"}) for k, old in enumerate(before[3:])]
    (change,) = changes(before, after)
    assert (change.before, change.after) == (None, new)
    assert blame(before, after) == ("conv_3 (Conv): new: 7 parameters, 1 k MACs, 28 B",)


def test_of_equal_layers_the_name_tells_which_is_new() -> None:
    (change,) = changes([layer("a"), layer("c")], [layer("a"), layer("b"), layer("c")])
    assert change.after is not None
    assert change.after.name == "b"


def test_a_wider_layer_is_told_with_both_sizes() -> None:
    wide = layer("b", parameters=200, macs=2000)
    assert blame(NET, (NET[0], wide, NET[2])) == (
        "b (Conv): parameters 100 -> 200, MACs 1 k -> 2 k, bytes 400 B -> 800 B",
    )


def test_sizes_that_look_equal_are_told_exactly() -> None:
    before, after = layer("a", parameters=100_000), layer("a", parameters=100_001)
    assert "parameters 100,000 -> 100,001" in blame([before], [after])[0]


def test_a_renamed_layer_that_grew_is_matched_by_its_type() -> None:
    (change,) = changes(NET, (NET[0], NET[1], layer("head", "Gemm", 60, 60)))
    assert change.before == NET[2]


def test_at_most_three_are_blamed_those_that_grew_most_first() -> None:
    after = [layer(f"n{k}", parameters=10 * (k + 1)) for k in range(5)]
    assert [text.split()[0] for text in blame((), after)] == ["n4", "n3", "n2"]


def test_layers_that_shrank_are_not_blamed() -> None:
    assert blame(NET, NET[:2]) == ()
    assert [change.after for change in changes(NET, NET[:2])] == [None]


@given(LAYERS, LAYERS)
def test_changes_add_up(before: list[LayerSize], after: list[LayerSize]) -> None:
    """What changed is all of the difference, and no layer is told twice."""
    found = changes(before, after)
    for by in ("bytes", "macs"):
        total = sum((getattr(each, by) or 0) for each in after)
        total -= sum((getattr(each, by) or 0) for each in before)
        assert sum(change.growth(by) for change in found) == total  # type: ignore[arg-type]
    came = sum(change.before is None for change in found)
    went = sum(change.after is None for change in found)
    assert came - went == len(after) - len(before)


@given(LAYERS)
def test_nothing_changes_by_itself(layers: list[LayerSize]) -> None:
    assert changes(layers, layers) == ()
