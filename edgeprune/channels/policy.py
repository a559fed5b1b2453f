# SPDX-License-Identifier: Apache-2.0
"""Which factor of a flat axis is prunable when a reshape splits it.

Only one can be: the kept indices of ``(heads, width)`` must again be a rectangle. In attention it
is the heads by default (removing one is exact and needs no new scale); elsewhere, as in a channel
shuffle's ``(groups, channels)``, it is the channels of each group.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from torch.fx import Node

__all__ = [
    "STANDARD",
    "AttentionFactor",
    "GroupedFactor",
    "Policy",
    "feeds_attention",
    "prunable_factor",
]

AttentionFactor = Literal["heads", "head_dim"]
GroupedFactor = Literal["channels", "groups"]


@dataclass(frozen=True)
class Policy:
    """What to prune where there is a choice."""

    attention: AttentionFactor = "heads"
    """Whole heads, or the width of every head alike."""
    grouped: GroupedFactor = "channels"
    """In a grouped convolution: the same positions of each group, so that groups stay equal, or
    whole groups."""


STANDARD = Policy()
"""Whole heads, equal groups."""

_THROUGH = {
    "permute", "transpose", "unbind", "getitem", "select", "slice", "split", "split_with_sizes",
    "chunk", "mul", "div", "add", "sub", "neg", "cat", "contiguous", "clone", "expand", "reshape",
    "view", "_unsafe_view", "squeeze", "unsqueeze", "flatten", "softmax", "_to_copy", "to",
    "layer_norm", "rms_norm", "linalg_vector_norm", "repeat_interleave", "unflatten", "swapaxes",
    "movedim", "pad", "roll", "index", "clamp_min", "expand_as", "stack", "view_as_complex",
    "view_as_real", "type_as", "elu", "relu", "exp",
}  # fmt: skip
_ATTENTION = {"scaled_dot_product_attention", "matmul", "bmm", "baddbmm", "einsum"}
_HORIZON = 60
"""Nodes looked at behind a reshape; a head's way to its product is far shorter."""


def feeds_attention(node: Node) -> bool:
    """Whether ``node`` reaches a matrix product between activations through views and scalings."""
    queue, seen = deque(node.users), set(node.users)
    while queue and len(seen) < _HORIZON:
        user = queue.popleft()
        name = str(getattr(user.target, "__name__", user.target)).split(".")[0]
        if name in _ATTENTION:
            return True
        if name in _THROUGH:
            new = [u for u in user.users if u not in seen]
            seen.update(new)
            queue.extend(new)
    return False


def prunable_factor(sizes: tuple[int, ...], attention: bool, policy: Policy) -> int:
    """The index of the prunable factor of ``sizes``: see the module's docstring.

    Among several candidates for heads, ``(3, heads, width)`` or ``(heads, 3, width)``, it is the
    one that doesn't count q, k and v.
    """
    if not attention or policy.attention == "head_dim":
        return len(sizes) - 1
    heads = [i for i in range(len(sizes) - 1) if sizes[i] not in (1, 2, 3)]
    return heads[-1] if heads else len(sizes) - 2
