# SPDX-License-Identifier: Apache-2.0
"""Densities of layers: the papers' formulas, and a total that is met whatever saturates."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.mask import Layer, Network
from edgeprune.tickets.allocate import allocate, share_out


def layer(name: str, *shape: int) -> Layer:
    op = "linear" if len(shape) == 2 else "conv2d"
    return Layer(name, shape, op, 0, 1, math.prod(shape), ("node",))


def network(*layers: Layer) -> Network:
    return Network(layers, 0)


def resnet20() -> Network:
    shapes = [(16, 3, 3, 3), *[(16, 16, 3, 3)] * 6, (32, 16, 3, 3), *[(32, 32, 3, 3)] * 5]
    shapes += [(64, 32, 3, 3), *[(64, 64, 3, 3)] * 5, (10, 64)]
    return network(*(layer(f"layer{i}", *shape) for i, shape in enumerate(shapes)))


def resnet50() -> Network:
    """At 224 x 224, with the stride in the 3 x 3 convolutions."""
    layers: list[Layer] = []

    def convolution(name: str, inner: int, outer: int, kernel: int, side: int) -> None:
        shape = (outer, inner, kernel, kernel)
        macs = math.prod(shape) * side**2
        layers.append(Layer(name, shape, "conv2d", 0, 1, macs, (name,)))

    convolution("stem", 3, 64, 7, 112)
    width, side = 64, 56
    for stage, (blocks, middle) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            name, after = f"{stage}.{block}", side // 2 if stage and not block else side
            convolution(f"{name}.a", width, middle, 1, side)
            convolution(f"{name}.b", middle, middle, 3, after)
            convolution(f"{name}.c", middle, 4 * middle, 1, after)
            if block == 0:
                convolution(f"{name}.shortcut", width, 4 * middle, 1, after)
            width, side = 4 * middle, after
    return network(*layers, layer("head", 1000, 2048))


def plain_erk(layers: list[tuple[int, ...]], density: float) -> list[float]:
    """By bisection over the common factor, with no word of saturation but a minimum."""
    sizes = [math.prod(shape) for shape in layers]
    raw = [sum(shape) / math.prod(shape) for shape in layers]
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(min(1, middle * r) * s for r, s in zip(raw, sizes, strict=True))
        low, high = (middle, high) if kept < density * sum(sizes) else (low, middle)
    return [min(1, high * r) for r in raw]


# For conv1, the first stage, the second (first layer, others), the third alike, and the head. The
# first two of a column at 0.2 and 0.1 saturate, as (in + out + w + h) / (in * out * w * h) is
# largest there: 25 / 432 and 74 / 640.
ERK = {
    0.2: (1.0, 0.61784, 0.43899, 0.28453, 0.20731, 0.13617, 1.0),
    0.1: (1.0, 0.30264, 0.21503, 0.13937, 0.10155, 0.06670, 1.0),
    0.05: (0.51743, 0.14747, 0.10478, 0.06791, 0.04948, 0.03250, 1.0),
}
PLACES = (0, *[1] * 6, 2, *[3] * 5, 4, *[5] * 5, 6)


@pytest.mark.parametrize(("density", "told"), [(0.2, 0.42), (0.1, 0.24), (0.05, 0.12)])
def test_a_resnet50_by_erk_costs_what_its_paper_tells(density: float, told: float) -> None:
    """Evci et al. 2020, figure 2 and table 4: FLOPs of an inference, of 8.2e9 dense."""
    net = resnet50()
    assert 2 * net.macs == pytest.approx(8.2e9, rel=0.005)
    densities = allocate(net, density, "erk")
    assert densities is not None
    cost = sum(layer.macs * densities[layer.name] for layer in net.layers) / net.macs
    assert cost == pytest.approx(told, abs=0.01)


@pytest.mark.parametrize("density", ERK)
def test_erk_on_resnet20_by_hand(density: float) -> None:
    net = resnet20()
    found = allocate(net, density, "erk")
    assert found is not None
    plain = plain_erk([la.shape for la in net.layers], density)
    for place, la, again in zip(PLACES, net.layers, plain, strict=True):
        assert ERK[density][place] == pytest.approx(again, abs=2e-5)
        assert abs(found[la.name] - again) * la.size <= 1  # whole weights
    assert found["layer19"] == 1
    assert (found["layer0"] == 1) == (density >= 0.1)
    kept = sum(found[la.name] * la.size for la in net.layers)
    assert kept == pytest.approx(density * net.size, rel=1e-4)


def test_without_redistribution_the_total_would_be_missed() -> None:
    """What leaving the surplus of saturated layers on the table would cost."""
    net = resnet20()
    raw = {la.name: sum(la.shape) / la.size for la in net.layers}
    factor = 0.2 * net.size / sum(raw[la.name] * la.size for la in net.layers)
    cut = sum(min(1, factor * raw[la.name]) * la.size for la in net.layers)
    assert cut < 0.96 * 0.2 * net.size
    shares = share_out(net, 0.2, "erk")
    assert sum(shares.own.values()) == round(0.2 * net.size)


def test_er_counts_channels_and_erk_the_kernel_too() -> None:
    net = network(layer("a", 40, 20, 3, 3), layer("b", 30, 60))
    for rule, raw in {
        "er": ((20 + 40) / (20 * 40), (60 + 30) / (60 * 30)),
        "erk": ((20 + 40 + 3 + 3) / (20 * 40 * 9), (60 + 30) / (60 * 30)),
    }.items():
        found: Any = allocate(net, 0.1, rule)  # type: ignore[arg-type]
        factor = 0.1 * net.size / (raw[0] * 7200 + raw[1] * 1800)
        assert found["a"] == pytest.approx(factor * raw[0], abs=1 / 7200)
        assert found["b"] == pytest.approx(factor * raw[1], abs=1 / 1800)


def test_er_takes_the_axes_that_the_layer_names() -> None:
    turned = Layer("t", (8, 24, 5), "conv_transpose1d", 1, 0, 960, ("node",))
    net = network(turned, layer("b", 50, 50))
    found: Any = allocate(net, 0.05, "er")
    factor = 0.05 * net.size / ((32 / 192) * 960 + (100 / 2500) * 2500)
    assert found["t"] == pytest.approx(factor * 32 / 192, abs=1 / 960)


def test_uniform_is_the_same_everywhere() -> None:
    found: Any = allocate(resnet20(), 0.25, "uniform")
    assert set(found.values()) == {0.25}


def test_global_leaves_it_to_the_ranking() -> None:
    assert allocate(resnet20(), 0.25, "global") is None
    shares = share_out(resnet20(), 0.25, "global", {"layer0": 1.0})
    assert shares.own == {"layer0": 432}
    assert shares.common == round(0.25 * resnet20().size) - 432


@pytest.mark.parametrize("rule", ["by-hand", "uniform", "er", "erk"])
def test_by_hand_holds_under_every_rule_and_the_others_share_the_rest(rule: Any) -> None:
    net = resnet20()
    densities = {"layer0": 1.0, "layer13": 0.0, "layer1[4-8]": 0.125, "*12": 0.25, "layer1?": 0.5}
    rest = [f"layer{i}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 19)]
    for_all = {"layer10": 0.5, "layer11": 0.5, "layer12": 0.25, "layer13": 0.0, "layer0": 1.0}
    named = for_all | {f"layer{i}": 0.125 for i in range(14, 19)}
    found: Any = allocate(net, 0.16, rule, {**densities, "layer19": 1.0})
    assert {name: found[name] for name in named} == named  # the first pattern that fits
    assert sum(found[la.name] * la.size for la in net.layers) == round(0.16 * net.size)
    assert (len({round(found[name], 3) for name in rest[:-1]}) == 1) == (
        rule in ("by-hand", "uniform")
    )


def test_a_layer_has_a_weight_unless_zero_is_asked_for() -> None:
    net = network(layer("tiny", 2, 2), layer("large", 100, 100))
    assert share_out(net, 0.001, "uniform").own == {"tiny": 1, "large": 9}
    tiny = {f"tiny{i}": 1 for i in range(3)}
    more = network(*(layer(name, 2, 2) for name in tiny), layer("large", 100, 100))
    assert share_out(more, 0.001, "uniform").own == {**tiny, "large": 7}
    assert share_out(net, 0.001, "by-hand", {"tiny": 0.0}).own == {"tiny": 0, "large": 10}
    assert share_out(net, 0.001, "by-hand", {"tiny": 0.01}).own == {"tiny": 1, "large": 9}


def test_room_is_a_limit_and_the_others_get_what_is_over() -> None:
    net = network(layer("a", 10, 10), layer("b", 10, 10), layer("c", 10, 10))
    with pytest.raises(
        InputError, match="it is 150 of 300 weights, and 3 layers can share 2 to 120"
    ):
        share_out(net, 0.5, "uniform", room={"a": 20, "b": 0})
    assert share_out(net, 0.4, "erk", room={"a": 20}).own == {"a": 20, "b": 50, "c": 50}


@pytest.mark.parametrize(
    ("density", "rule", "densities", "said"),
    [
        (0.0, "erk", {}, "density 0: takes a share above 0 and up to 1"),
        (1.5, "erk", {}, "density 1.5: takes a share above 0 and up to 1"),
        (math.nan, "erk", {}, "density nan"),
        (0.1, "by-hand", {}, "takes densities"),
        (0.1, "erk", {"layr3": 0.5}, "'layr3' fits no weight; did you mean 'layer3'"),
        (0.1, "erk", {"layer3": 1.5}, "'layer3' is 1.5: takes a share from 0 to 1"),
        (
            0.1,
            "erk",
            {"layer1?": 1.0},
            "it is 26834 of 268336 weights; the 10 that densities name keep 231040",
        ),
        (0.9, "erk", {"layer1?": 0.0}, "can't be met: it is 241502 of"),
        (
            0.1,
            "global",
            {"layer1?": 1.0},
            " keep 231040, and 10 layers can share 0 to 37296",
        ),
        (0.1, "er", {"*": 0.3}, "come to 0.3 in all, not to density 0.1: set density to 0.3"),
        (0.00001, "erk", {}, "it is 3 of 268336 weights, and 20 layers can share 20 to"),
    ],
)
def test_what_cannot_be_is_refused(
    density: float, rule: Any, densities: dict[str, float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        allocate(resnet20(), density, rule, densities)


def test_all_by_hand_is_taken_where_it_meets_the_density() -> None:
    found = allocate(resnet20(), 0.3, "by-hand", {"*": 0.3})
    assert found is not None
    assert all(abs(share - 0.3) < 1e-3 for share in found.values())


shapes = st.one_of(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 5]), st.just(3)),
)


@given(
    st.lists(shapes, min_size=1, max_size=12),
    st.floats(0.001, 1),
    st.sampled_from(["uniform", "er", "erk"]),
)
def test_the_total_is_met_and_what_saturates_is_dense(
    drawn: list[tuple[int, ...]], density: float, rule: Any
) -> None:
    net = network(*(layer(f"w{i}", *shape) for i, shape in enumerate(drawn)))
    total = max(1, round(density * net.size))
    if total < len(drawn):
        with pytest.raises(InputError):
            share_out(net, density, rule)
        return
    own = share_out(net, density, rule).own
    assert sum(own.values()) == total
    assert abs(total - density * net.size) <= max(0.001 * density * net.size, 0.5, 1 - density)
    assert all(1 <= own[la.name] <= la.size for la in net.layers)
    if rule == "erk":
        exact = plain_erk(drawn, total / net.size)
        lifted = sum(share * la.size < 1 for share, la in zip(exact, net.layers, strict=True))
        for share, la in zip(exact, net.layers, strict=True):
            if not lifted:  # whole weights are all that differs then
                assert abs(own[la.name] - share * la.size) < 1 + 1e-6
            if share == 1 and not lifted:
                assert own[la.name] == la.size


@given(st.lists(shapes, min_size=2, max_size=8), st.data())
def test_room_is_never_exceeded(drawn: list[tuple[int, ...]], data: st.DataObject) -> None:
    net = network(*(layer(f"w{i}", *shape) for i, shape in enumerate(drawn)))
    room = {la.name: data.draw(st.integers(0, la.size)) for la in net.layers}
    total = data.draw(st.integers(1, net.size))
    least = sum(limit > 0 for limit in room.values())
    if not least <= total <= sum(room.values()):
        with pytest.raises(InputError):
            share_out(net, total / net.size, "erk", room=room)
        return
    own = share_out(net, total / net.size, "erk", room=room).own
    assert sum(own.values()) == total
    assert all(min(1, room[name]) <= count <= room[name] for name, count in own.items())
