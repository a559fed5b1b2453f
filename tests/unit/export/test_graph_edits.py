# SPDX-License-Identifier: Apache-2.0
"""Edits of graphs before conversion: what they take away, and that nothing else changes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.export.plainer import write_plainly
from edgeprune.export.resampling import (
    hangs_over,
    has_divisor,
    is_antialiased,
    linear_by_matrices,
    nearest_by_index,
    plain_averages,
    scales_by_size,
    shrinks_cubically,
)
from edgeprune.export.transposed import crop_transposed
from edgeprune.model import Event, capture

IMAGE = (2, 8, 11, 13)


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def edited(
    module: nn.Module | Callable[[Tensor], Any],
    edit: Callable[[GraphModule], None],
    shape: tuple[int, ...] = IMAGE,
) -> tuple[set[str], float]:
    """The operators that are left, and the largest change of the output."""
    torch.manual_seed(0)
    network = module if isinstance(module, nn.Module) else Wrapped(module)
    model, _ = capture(network.eval(), (torch.randn(shape),), event=Event("load"))
    graph, x = model.module(), torch.randn(3, *shape[1:])
    with torch.no_grad():
        before = graph(x)
        edit(graph)
        graph.graph.lint()
        after = graph(x)
    assert after.shape == before.shape
    names = {str(n.target) for n in graph.graph.nodes if n.op == "call_function"}
    return names, float((after - before).abs().max() / before.abs().max())


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize(
    "how", [{"size": (7, 20)}, {"size": (5, 6)}, {"scale_factor": 1.5}, {"scale_factor": 0.5}]
)
def test_nearest_by_no_whole_factor_is_a_choice_of_rows(mode: str, how: dict[str, Any]) -> None:
    names, change = edited(partial(F.interpolate, mode=mode, **how), nearest_by_index)
    assert names == {"aten.index_select.default"}
    assert change == 0


def test_nearest_by_a_whole_factor_is_left_alone() -> None:
    names, _ = edited(partial(F.interpolate, scale_factor=3), nearest_by_index)
    assert names == {"aten.upsample_nearest2d.vec"}


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased_resizing_is_a_product_with_matrices(mode: str) -> None:
    resize = partial(F.interpolate, size=(7, 5), mode=mode, antialias=True)
    names, change = edited(resize, lambda graph: linear_by_matrices(graph, is_antialiased))
    assert names == {"aten.matmul.default"}
    assert change < 1e-6


@pytest.mark.parametrize(("factor", "kept"), [(1.5, False), (2, True)])
def test_a_factor_that_the_sizes_do_not_tell_is_kept(factor: float, kept: bool) -> None:
    """11 times 1.5 are 16 pixels, but a step is 1 / 1.5 and not 11 / 16."""
    resize = partial(F.interpolate, scale_factor=factor, mode="bilinear")
    names, change = edited(
        resize, lambda graph: linear_by_matrices(graph, lambda node: not scales_by_size(node))
    )
    assert ("aten.upsample_bilinear2d.vec" in names) is kept
    assert change < 1e-6


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil", [False, True])
def test_a_divisor_is_a_factor_behind_plain_pooling(padding: int, ceil: bool) -> None:
    pool = nn.AvgPool2d(3, 2, padding, ceil_mode=ceil, divisor_override=5)
    names, change = edited(pool, lambda graph: plain_averages(graph, has_divisor))
    assert "aten.mul.Tensor" in names
    assert change < 1e-6


TRANSPOSED: list[tuple[dict[str, Any], bool]] = [
    ({"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}, True),
    ({"kernel_size": 3, "stride": 2, "padding": 1}, True),
    ({"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1}, True),
    ({"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}, True),
    ({"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2}, True),
    ({"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)}, True),
    ({"kernel_size": 2, "stride": 3, "padding": 1, "output_padding": 2}, True),
    ({"kernel_size": 4, "stride": 2, "padding": 1}, False),
    ({"kernel_size": 4, "stride": 3}, False),
]


@pytest.mark.parametrize(("how", "cropped"), TRANSPOSED)
def test_padding_of_a_transposed_convolution_is_a_crop(how: dict[str, Any], cropped: bool) -> None:
    """TensorFlow's own padding, and none, need no crop."""
    names, change = edited(nn.ConvTranspose2d(8, 6, **how), crop_transposed)
    assert ("aten.slice.Tensor" in names) is cropped
    assert change < 1e-6


def test_one_axis_is_cropped_too() -> None:
    names, change = edited(nn.ConvTranspose1d(8, 6, 3, 2, 1, 1), crop_transposed, (2, 8, 11))
    assert names == {"aten.conv_transpose1d.default", "aten.slice.Tensor"}
    assert change < 1e-6


class Bags(nn.Module):
    """Of the ids that five numbers round to."""

    def __init__(self, mode: str, *, weighted: bool = False, **options: Any) -> None:
        super().__init__()
        self.inner = nn.EmbeddingBag(9, 4, mode=mode, **options)
        self.weighted = weighted

    def forward(self, x: Tensor) -> Tensor:
        weights = {"per_sample_weights": x.sigmoid()} if self.weighted else {}
        return self.inner((x.abs() * 2).clamp(max=8).long(), **weights)


PLAINER: list[tuple[str, Any, tuple[int, ...]]] = [
    ("pixel_unshuffle", lambda x: F.pixel_unshuffle(x[:, :, :10, :12], 2), IMAGE),
    ("adaptive_max_pool2d", nn.AdaptiveMaxPool2d((5, 6)), IMAGE),
    ("adaptive_max_pool1d", nn.AdaptiveMaxPool1d(4), (2, 8, 11)),
    ("rrelu", nn.RReLU(), IMAGE),
    ("rsub", lambda x: 1 - x, IMAGE),
    ("expand", lambda x: x / x.norm(dim=1, keepdim=True).expand_as(x), IMAGE),
    ("padding", nn.Conv1d(8, 6, 4, padding="same"), (2, 8, 11)),
    ("padding", nn.Conv1d(8, 6, 2, padding="same", dilation=3), (2, 8, 11)),
    ("padding", nn.Conv1d(8, 6, 3, padding="valid"), (2, 8, 11)),
    ("repeat", lambda x: x.repeat(1, 2, 1, 3), IMAGE),
    ("tile", lambda x: torch.tile(x, (1, 1, 2, 1)), IMAGE),
    ("logical_xor", lambda x: torch.logical_xor(x > 0, x.flip(1)).float(), IMAGE),
    ("argsort", lambda x: x.gather(3, x.argsort(3)), IMAGE),
    ("unfold", lambda x: x.unfold(3, 4, 3), IMAGE),
    ("one_hot", lambda x: F.one_hot(x.argmax(1), 9).float(), IMAGE),
    ("eye", lambda x: x[..., :11] @ torch.eye(11), IMAGE),
    ("col2im", lambda x: F.fold(F.unfold(x, 3, padding=1), (11, 13), 3, padding=1), IMAGE),
    ("col2im", lambda x: F.fold(F.unfold(x, 2, stride=3), (11, 13), 2, stride=3), IMAGE),
    ("sort", lambda x: x.sort(1)[0], IMAGE),
    ("unbind", lambda x: torch.cat(x.unbind(2)[::3], 1), IMAGE),
    *(("embedding_bag", Bags(mode), (2, 5)) for mode in ("sum", "mean", "max")),
    ("embedding_bag", Bags("sum", weighted=True), (2, 5)),
    *(("embedding_bag", Bags(mode, padding_idx=1), (2, 5)) for mode in ("sum", "mean")),
]


@pytest.mark.parametrize(("gone", "module", "shape"), PLAINER)
def test_an_operator_is_written_in_plainer_ones(
    gone: str, module: Any, shape: tuple[int, ...]
) -> None:
    names, change = edited(module, write_plainly, shape)
    assert not any(gone in name for name in names)
    assert change < 1e-6


def test_folded_windows_take_one_convolution_of_one_channel() -> None:
    def fold(x: Tensor) -> Tensor:
        return F.fold(F.unfold(x, 2, stride=2), (11, 13), 2, stride=2)

    model, _ = capture(Wrapped(fold), (torch.randn(IMAGE),), event=Event("load"))
    graph = model.module()
    write_plainly(graph)
    target = torch.ops.aten.conv_transpose2d.input
    (node,) = graph.graph.find_nodes(op="call_function", target=target)
    assert node.args[1].meta["val"].shape[:2] == (4, 1)
    assert node.args[6] == 1


def test_a_new_axis_is_made_before_it_is_expanded() -> None:
    names, change = edited(lambda x: x.expand(3, *x.shape).sum(0), write_plainly)
    assert names >= {"aten.unsqueeze.default", "aten.expand.default"}
    assert change == 0


def test_largest_of_bags_with_padding_are_left_alone() -> None:
    names, _ = edited(Bags("max", padding_idx=3), write_plainly, (2, 5))
    assert "aten.embedding_bag.padding_idx" in names


@pytest.mark.parametrize(
    ("how", "hangs"),
    [
        ({"kernel_size": 2}, True),
        ({"kernel_size": 3, "stride": 2}, False),
        ({"kernel_size": 4, "stride": 3, "padding": 1}, True),
        ({"kernel_size": 3, "stride": 2, "padding": 1}, False),
    ],
)
def test_a_window_that_hangs_over_is_padded_and_counted(how: dict[str, Any], hangs: bool) -> None:
    pool = nn.AvgPool2d(**how, ceil_mode=True)
    names, change = edited(pool, lambda graph: plain_averages(graph, hangs_over))
    assert ("aten.mul.Tensor" in names) is hangs
    assert change < 1e-6


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.AvgPool1d, (2, 8, 11)), (nn.AvgPool3d, (2, 8, 5, 6, 7))]
)
def test_windows_hang_over_along_one_axis_and_three(kind: Any, shape: tuple[int, ...]) -> None:
    pool = kind(2, ceil_mode=True)
    names, change = edited(pool, lambda graph: plain_averages(graph, hangs_over), shape)
    assert "aten.mul.Tensor" in names
    assert change < 1e-6


@pytest.mark.parametrize(("size", "shrinks"), [((5, 20), True), ((20, 6), True), ((11, 20), False)])
def test_bicubic_shrinking_is_a_product_with_matrices(size: tuple[int, int], shrinks: bool) -> None:
    resize = partial(F.interpolate, size=size, mode="bicubic")
    names, change = edited(resize, lambda graph: linear_by_matrices(graph, shrinks_cubically))
    assert ("aten.upsample_bicubic2d.vec" not in names) is shrinks
    assert change < 1e-6


def test_a_mask_is_finite_and_rows_that_attend_nothing_stay_zero() -> None:
    def attend(x: Tensor) -> Tensor:
        mask = torch.ones(11, 11, dtype=torch.bool).tril(-1)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask, scale=0.7)

    model, _ = capture(Wrapped(attend), (torch.randn(IMAGE),), event=Event("load"))
    graph, x = model.module(), torch.randn(IMAGE)
    with torch.no_grad():
        before = graph(x)
        write_plainly(graph)
        after = graph(x)
    fused = torch.ops.aten.scaled_dot_product_attention.default
    (node,) = graph.graph.find_nodes(op="call_function", target=fused)
    assert node.args[3].meta["val"].dtype == torch.float32
    assert not before[..., 0, :].any()
    assert torch.equal(after[..., 0, :], before[..., 0, :])
    assert torch.allclose(after, before, atol=1e-6)


def test_negative_padding_is_a_slice() -> None:
    names, change = edited(lambda x: F.pad(x, (-2, 1, 1, -3), value=2.0), write_plainly)
    assert names == {"aten.slice.Tensor", "aten.pad.default"}
    assert change == 0


def test_a_multiple_is_multiplied_before_it_is_added() -> None:
    names, change = edited(lambda x: torch.add(x, x.flip(1), alpha=3), write_plainly)
    assert "aten.mul.Tensor" in names
    assert change < 1e-6
