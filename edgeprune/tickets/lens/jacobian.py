# SPDX-License-Identifier: Apache-2.0
"""The empirical neural tangent kernel of a captured network: exact, or estimated in little memory.

The kernel of a batch x_1..x_N is Theta = J J^T, where J has a row for each output of each sample
and a column for each parameter (Jacot et al. 2018; Novak et al. 2022). Of a masked network only
the living weights are parameters: the masked ones are zero and stay so in training, so they move
no output. Biases, norms and all that the mask doesn't cover count. The network is in eval mode:
batch norm uses its running statistics, so that a sample's outputs depend on that sample alone.
Outputs that end in softmax or sigmoid are taken before that, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeprune.errors import InputError
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.progress import Progress, Silent
from edgeprune.tasks import logits

__all__ = ["Kernel", "Outputs", "estimate_ntk", "jacobian_ntk"]

Outputs = Literal["all", "sum"]
Params = Mapping[str, Tensor]

_ENTRY = 12
"""Bytes of an entry of a Jacobian: as computed, and once more in double precision."""
_SLICE = 32
"""Samples in one forward pass."""
_REFUSALS = (RuntimeError, ValueError, TypeError)
"""What torch raises where a graph doesn't go through a transform."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """An empirical neural tangent kernel."""

    values: Tensor
    """Symmetric, float64. ``all``: ``[N*K, N*K]``, an output of a sample a row, samples first;
    ``sum``: ``[N, N]``, the sum over the K outputs of their own kernels (not divided by K)."""
    outputs: Outputs
    samples: int
    """N."""
    width: int
    """K: numbers in the first output of a sample."""
    parameters: int
    """That it is taken over: the living weights, and what no mask covers."""
    how: str
    """How it was computed, in words."""
    directions: int | None = None
    """Of an estimate: its rank is no larger; ``None``: exact."""
    spread: float | None = None
    """Of an estimate: its standard error, relative, in the Frobenius norm: how far estimates with
    other seeds lie apart, from the scatter of the directions."""

    def by_sample(self) -> Tensor:
        """``[N, N]``: the sum over outputs, whichever form is kept."""
        if self.outputs == "sum":
            return self.values
        four = self.values.reshape(self.samples, self.width, self.samples, self.width)
        return four.diagonal(dim1=1, dim2=3).sum(-1)


def jacobian_ntk(
    model: Model,
    mask: Mask | None,
    inputs: tuple[Tensor, ...],
    *,
    outputs: Outputs = "all",
    memory: int = 2**30,
    progress: Progress | None = None,
) -> Kernel:
    """The exact kernel of a batch.

    The Jacobian is built for as many parameters at once as ``memory`` allows and given up after
    its share of the products is added: only the kernel is held whole. Its rows come from
    ``vmap(jacrev)`` over samples where the graph allows that, found out by one trial that is
    compared with plain autograd; otherwise from one backward pass an output.

    Args:
        model: Float.
        mask: ``None``: dense.
        inputs: A tensor an input, N samples along the first axis.
        outputs: ``all`` or ``sum``, see ``Kernel.values``.
        memory: Bytes for a piece of the Jacobian.
        progress: Where to show it.

    Raises:
        InputError: The mask is for another network, the model has no float output or weights that
            are NaN, or the Jacobian of one parameter is larger than ``memory``.
    """
    net = _Net(model, mask)
    count = len(inputs[0])
    width = net.check(inputs)
    blocks = net.blocks(count * width, memory)
    pieces, how = _choose(net, inputs)
    size = count * width if outputs == "all" else count
    values = torch.zeros(size, size, dtype=torch.float64)
    with (progress or Silent()).bar("kernel", len(blocks)) as bar, sdpa_kernel(SDPBackend.MATH):
        for block in blocks:
            for name, rows in pieces(net, block, inputs).items():
                kept = rows.double() * net.keep[name] if name in net.keep else rows.double()
                flat = kept.reshape(size, -1)
                values += flat @ flat.T
            bar.advance()
    return Kernel(values, outputs, count, width, net.living, f"exact: {how}")


def estimate_ntk(
    model: Model,
    mask: Mask | None,
    inputs: tuple[Tensor, ...],
    *,
    probes: int = 64,
    seeds: Sequence[int] = (0, 1, 2, 3),
    outputs: Outputs = "sum",
    progress: Progress | None = None,
) -> Kernel:
    """An unbiased estimate of the kernel that never holds a Jacobian.

    With independent signs u, one for each living parameter, E[(J u)(J u)^T] = J J^T; J u is one
    derivative along a direction, which costs about two forward passes (Novak et al. 2022 use such
    products for the exact kernel; the projection is that of Hutchinson 1990). The mean over
    ``probes`` directions a seed and over the seeds is returned, and its standard error beside it.
    Its rank is at most the number of directions, so small eigenvalues are zero where
    the exact kernel's aren't.

    Args:
        model: Float.
        mask: ``None``: dense.
        inputs: A tensor an input, N samples along the first axis.
        probes: Directions a seed.
        seeds: At least two.
        outputs: ``all`` or ``sum``, see ``Kernel.values``.
        progress: Where to show it.

    Raises:
        InputError: The mask is for another network, the model has no float output or weights that
            are NaN, there is no probe or only one seed.
    """
    if probes < 1 or len(set(seeds)) < 2:
        raise InputError("an estimate of the kernel takes at least one probe and two seeds")
    net = _Net(model, mask)
    net.check(inputs)
    total, squares = torch.zeros(()), 0.0
    with (
        (progress or Silent()).bar("kernel", probes * len(seeds)) as bar,
        sdpa_kernel(SDPBackend.MATH),
    ):
        along, how = _along(net, inputs)
        for seed in seeds:
            drawn = torch.Generator().manual_seed(seed)
            for _ in range(probes):
                moves = _derivative(net, along, inputs, net.signs(drawn)).double()
                flat = moves if outputs == "sum" else moves.reshape(-1, 1)
                total = total + flat @ flat.T
                squares += float((flat.T @ flat).square().sum())  # ||flat flat^T||^2
                bar.advance()
    values = total / (probes * len(seeds))
    text = f"estimate: {len(seeds)} seeds of {probes} directions each, {how}"
    directions, width = probes * len(seeds), moves.shape[1]
    count = len(inputs[0])
    spread = _spread(squares / directions, values, directions)
    return Kernel(values, outputs, count, width, net.living, text, directions, spread)


class _Net:
    """The masked network as a function of its parameters."""

    def __init__(self, model: Model, mask: Mask | None) -> None:
        if mask is not None:
            mask.check(model)
        self.module = logits(model)
        self.fixed = model.fixed_batch
        every = dict(self.module.named_parameters(remove_duplicate=False))
        single = dict(self.module.named_parameters())
        names = {id(parameter): name for name, parameter in single.items()}
        self.keep: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, kept in ({} if mask is None else mask.keep).items():
                every[name].mul_(kept)
                self.keep[names[id(every[name])]] = kept
        self.parameters = {n: p.detach() for n, p in single.items() if p.is_floating_point()}

    @property
    def living(self) -> int:
        """Parameters that train."""
        sizes = {n: p.numel() for n, p in self.parameters.items()}
        return sum({**sizes, **{n: int(k.sum()) for n, k in self.keep.items()}}.values())

    def check(self, inputs: tuple[Tensor, ...]) -> int:
        """How many numbers there are in the output of a sample.

        Raises:
            InputError: There is no float output, or it is NaN by a weight that is NaN or infinite.
        """
        output = self.forward(self.parameters, tuple(i[:1] for i in inputs))
        if not bool(output.isfinite().all()):
            for name, value in self.parameters.items():
                if not bool(value.isfinite().all()):
                    raise InputError(
                        f"'{name}' holds NaN or infinity, so there is no tangent kernel; take "
                        "weights that are finite"
                    )
        return output.shape[1]

    def forward(self, parameters: Params, inputs: tuple[Tensor, ...]) -> Tensor:
        """The first float output ``[N, K]`` of at most ``fixed`` samples."""
        count = inputs[0].shape[0]
        filling = 0 if self.fixed is None else self.fixed - count
        if filling:
            inputs = tuple(torch.cat([i, i[-1:].expand(filling, *i.shape[1:])]) for i in inputs)
        given = functional_call(self.module, dict(parameters), inputs)
        for output in (given,) if isinstance(given, Tensor) else given:
            if output.is_floating_point():
                return torch.as_tensor(output[:count].reshape(count, -1))
        raise InputError("the model has no output of a floating type, so no tangent kernel")

    def signs(self, drawn: torch.Generator) -> dict[str, Tensor]:
        """A direction: +1 or -1 for each living parameter, 0 for the others."""
        found = {}
        for name, value in self.parameters.items():
            sign = torch.randint(0, 2, value.shape, generator=drawn).to(value.dtype) * 2 - 1
            found[name] = sign * self.keep[name] if name in self.keep else sign
        return found

    def blocks(self, rows: int, memory: int) -> list[list[str]]:
        """Names of parameters whose Jacobians fit into ``memory`` together."""
        blocks: list[list[str]] = []
        room = 0
        for name, value in self.parameters.items():
            need = rows * value.numel() * _ENTRY
            if need > memory:
                raise InputError(
                    f"the exact tangent kernel takes {need / 1e9:.1f} GB for '{name}' alone, "
                    f"{memory / 1e9:.1f} GB are allowed: take fewer samples, or estimate it with "
                    "probes"
                )
            if need > room:
                blocks.append([])
                room = memory
            blocks[-1].append(name)
            room -= need
        return blocks


Pieces = Callable[[_Net, list[str], tuple[Tensor, ...]], dict[str, Tensor]]


def _by_vmap(net: _Net, block: list[str], inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The Jacobians ``[N, K, ...]`` of some parameters, samples vectorised."""

    def one(part: Params, sample: tuple[Tensor, ...]) -> Tensor:
        return net.forward({**net.parameters, **part}, tuple(s[None] for s in sample))[0]

    part = {name: net.parameters[name] for name in block}
    rows = vmap(jacrev(one), in_dims=(None, 0), chunk_size=_SLICE)
    found: dict[str, Tensor] = rows(part, inputs)
    return found


def _by_loop(net: _Net, block: list[str], inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The same by one backward pass for each output of each sample."""
    rows: dict[str, list[Tensor]] = {name: [] for name in block}
    for place in range(len(inputs[0])):
        part = {n: net.parameters[n].clone().requires_grad_() for n in block}
        row = net.forward({**net.parameters, **part}, tuple(i[place : place + 1] for i in inputs))
        for number in row[0]:
            leaves = list(part.values())
            found = torch.autograd.grad(number, leaves, retain_graph=True, materialize_grads=True)
            for name, value in zip(block, found, strict=True):
                rows[name].append(value)
    count = len(inputs[0])
    return {n: torch.stack(r).reshape(count, -1, *r[0].shape) for n, r in rows.items()}


def _choose(net: _Net, inputs: tuple[Tensor, ...]) -> tuple[Pieces, str]:
    """How to get the Jacobians: one sample is tried both ways, on the smallest parameters."""
    names = sorted(net.parameters, key=lambda name: net.parameters[name].numel())[:4]
    first = tuple(i[:1] for i in inputs)
    with sdpa_kernel(SDPBackend.MATH):
        plain = _by_loop(net, names, first)
        try:
            fast = _by_vmap(net, names, first)
        except _REFUSALS as error:
            return _by_loop, f"one output at a time, since vmap refuses: {_line(error)}"
    near = {"rtol": 1e-3, "atol": 1e-5}
    if all(torch.allclose(fast[n], plain[n], **near, equal_nan=True) for n in names):
        return _by_vmap, "vmap(jacrev) over samples"
    return _by_loop, "one output at a time, since vmap gives other derivatives"


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:160] if text else type(error).__name__


Along = Callable[[_Net, tuple[Tensor, ...], dict[str, Tensor]], Tensor]


def _forward_mode(net: _Net, inputs: tuple[Tensor, ...], move: dict[str, Tensor]) -> Tensor:
    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        return net.forward(parameters, inputs)

    found: Tensor = jvp(outputs, (net.parameters,), (move,))[1]
    return found


def _reverse_twice(net: _Net, inputs: tuple[Tensor, ...], move: dict[str, Tensor]) -> Tensor:
    """J u as the gradient by v of <J^T v, u>, for operators without a forward derivative."""

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        return net.forward(parameters, inputs)

    value, back, *_ = vjp(outputs, net.parameters)

    def against(v: Tensor) -> Tensor:
        (pulled,) = back(v)
        return torch.stack([(pulled[name] * move[name]).sum() for name in move]).sum()

    found: Tensor = torch.func.grad(against)(torch.zeros_like(value))
    return found


def _along(net: _Net, inputs: tuple[Tensor, ...]) -> tuple[Along, str]:
    """How to get derivatives along a direction, by one trial."""
    first = tuple(i[:1] for i in inputs)
    try:
        _forward_mode(net, first, net.signs(torch.Generator().manual_seed(0)))
    except _REFUSALS:
        return _reverse_twice, "derivatives by two backward passes"
    return _forward_mode, "forward-mode derivatives"


def _derivative(
    net: _Net, along: Along, inputs: tuple[Tensor, ...], move: dict[str, Tensor]
) -> Tensor:
    size = net.fixed or _SLICE
    return torch.cat([along(net, part, move) for part in _slices(inputs, size)])


def _slices(inputs: tuple[Tensor, ...], size: int) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(inputs[0]), size):
        yield tuple(i[start : start + size] for i in inputs)


def _spread(square: float, mean: Tensor, count: int) -> float:
    """The standard error of a mean of ``count`` matrices, relative to it.

    Args:
        square: The mean of their squared norms.
        mean: Of them.
        count: Two or more.
    """
    norm = float(mean.norm())
    variance = max(0.0, square - norm**2) / (count - 1)
    return variance**0.5 / norm if norm else 0.0
