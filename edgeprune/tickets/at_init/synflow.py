# SPDX-License-Identifier: Apache-2.0
"""SynFlow: iterative pruning by the flow of synaptic strength (Tanaka et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.context import Context
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.tasks import logits
from edgeprune.tickets.at_init.inputs import OnesForTokens, ones, tables
from edgeprune.tickets.at_init.steps import (
    begin,
    check_scores,
    descend,
    finish,
    put,
    weights_of,
)
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import Scores

__all__ = ["ITERATIONS", "Flow", "find"]

ITERATIONS = 100
"""Tanaka et al. 2020."""
_CURVED = frozenset({
    "celu", "elu", "exp", "gelu", "group_norm", "gru", "hardsigmoid", "hardswish", "hardtanh",
    "instance_norm", "layer_norm", "log_softmax", "lstm", "mish", "relu6", "rms_norm", "rnn_tanh",
    "safe_softmax", "scaled_dot_product_attention", "selu", "sigmoid", "silu", "softmax",
    "softplus", "tanh",
})  # fmt: skip
"""Operators that don't give c times as much for c times their input."""


def find(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Keep the weights that carry most of the flow R = 1^T (prod of |W|) 1, in 100 steps.

    The score of a weight is dR/dw * w of the network with absolute weights, which sums to R in
    every layer that all paths cross, where activations are homogeneous and biases zero (theorem 2);
    pruned exponentially in many steps, no layer of such a network loses all weights before it must
    (theorem 3). No data is used.

    As in the released code all parameters and buffers become absolute, the network is in eval mode,
    one sample of ones goes in, and the sum of the outputs is differentiated (of the logits, where
    they end in softmax, whose sum is always 1, or in sigmoid); in double precision, which R of a
    deep network may need. In eval mode batch norm is linear: it divides by its running
    deviation, and a new one, with mean 0 and variance 1, passes everything. Token ids can't be
    ones: their embedding gives ones instead. The model's weights keep their signs: the absolute
    ones live in a copy.

    Raises:
        InputError: A density that can't be met, or scores that are zero or overflow.
    """
    start = begin(model, options)
    flow = Flow(start.model)

    def score(mask: Mask, step: int) -> Scores:
        return flow.scores(mask, start.ledger)

    steps = options.at_init.iterations or ITERATIONS
    mask, steps = descend(start, options, context, score, steps)
    return finish(start, mask, {"iterations": steps, "dtype": str(flow.dtype)[6:]}, flow.notes)


class Flow:
    """The network with absolute weights, and one sample of ones."""

    def __init__(self, model: Model) -> None:
        self.tables = {name: found for name, found in tables(model).items() if found}
        self.module, self.inputs, self.dtype = logits(model), ones(model), torch.float64
        remarks = _remarks(self.module)
        _make_absolute(self.module.double())
        try:
            with torch.no_grad():
                self.total(_as(self.inputs, self.dtype))
        except RuntimeError:  # a constant in the graph insists on single precision
            self.dtype = torch.float32
            self.module.float()
            remarks += ("computed in single precision: the graph takes no double",)
        self.inputs = _as(self.inputs, self.dtype)
        self.weights = weights_of(self.module)
        if self.tables:
            names = ", ".join(self.tables)
            remarks += (f"the input of ones is the embedded one: '{names}' are token ids",)
        self.notes = remarks

    def total(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """R: the sum of all float outputs."""
        module = self.module
        given = OnesForTokens(module, self.tables).run(*inputs) if self.tables else module(*inputs)
        outputs = (given,) if isinstance(given, Tensor) else tuple(given)
        return torch.stack([o.sum() for o in outputs if o.is_floating_point()]).sum()

    def scores(self, mask: Mask, ledger: Ledger) -> Scores:
        """|dR/dw * w| with the mask in force.

        Raises:
            InputError: All are zero.
        """
        leaves = put(self.module, self.weights, mask)
        with ledger.clock():
            total = self.total(self.inputs)
            found = torch.autograd.grad(total, leaves, materialize_grads=True)
        ledger.gradient(len(self.inputs[0]), mask)
        pairs = zip(mask.keep, found, leaves, strict=True)
        scores = {name: (gradient * leaf.detach()).abs() for name, gradient, leaf in pairs}
        check_scores(scores, "synflow")
        return scores


def _as(inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(i.to(dtype) if i.is_floating_point() else i for i in inputs)


@torch.no_grad()
def _make_absolute(module: GraphModule) -> None:
    for value in (*module.parameters(), *module.buffers()):
        if value.is_floating_point():
            value.abs_()


def _remarks(module: GraphModule) -> tuple[str, ...]:
    """Where the theorems don't hold, in words."""
    curved, shifted = set(), False
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for node in module.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = str(node.target._schema.name).split("::")[-1].strip("_")
        curved |= {name} & _CURVED
        if name == "batch_norm":
            shifts = [a.target for a in (node.args[2], node.args[3]) if a is not None]
            shifted |= any(bool(tensors[s].any()) for s in shifts if s in tensors)
    notes: list[str] = []
    if curved:
        notes.append(
            f"{', '.join(sorted(curved))}: not homogeneous, so scores aren't conserved from layer "
            "to layer and nothing guarantees against layer collapse; computed as the authors' code "
            "would"
        )
    if shifted:
        notes.append(
            "batch norms hold the means or shifts of training, whose absolute values are used as "
            "in the authors' code: the theorems hold for newly drawn weights (--fresh)"
        )
    return tuple(notes)
