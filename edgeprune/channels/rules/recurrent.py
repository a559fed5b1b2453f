# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: the gates of one hidden unit live together, in all layers and directions."""

from math import prod
from typing import Any

import numpy as np

from edgeprune.channels.atoms import Axis
from edgeprune.channels.op import Op, Rule, Value

__all__ = ["RULES"]

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(op: Op) -> Value:
    """``lstm``, ``gru``, ``rnn``: inputs are the columns of the first weights, and one hidden size
    serves all layers and directions, as the operator demands.

    Raises:
        ValueError: A projected LSTM, or packed input: forms without a rule.
    """
    gates = _GATES[op.name]
    source, params = op.argument("input"), list(op.argument("params"))
    layers, both = op.argument("num_layers"), 1 + bool(op.argument("bidirectional"))
    per = 4 if op.argument("has_biases") else 2
    if len(params) != layers * both * per:
        raise ValueError("a projected or packed recurrent layer")
    x = op.dims(source)
    steps = prod(op.sizes(source)[:-1])
    hidden: Axis | None = None
    entering = x[-1]
    for layer in range(layers):
        for way in range(both):
            first = (layer * both + way) * per
            here = _cell(op, params[first : first + per], gates, entering, steps)
            if hidden is not None:
                op.glue(hidden, here)
            hidden = here
        assert hidden is not None
        entering = np.tile(hidden, both)
    for state in _states(op):
        op.glue(op.dims(state)[-1], hidden)
    last = (None,) * len(x[:-1])
    ends = [(*last, hidden)] * (2 if gates == 4 else 1)
    return [(*x[:-1], entering), *ends]


def _states(op: Op) -> list[Any]:
    state = op.argument("hx")
    return list(state) if isinstance(state, (list, tuple)) else [state]


def _cell(op: Op, params: list[Any], gates: int, entering: Axis | None, steps: int) -> Axis:
    """Glue one layer's weights; returns the atoms of its hidden units."""
    into, back, *biases = (op.dims(p) for p in params)
    rows = into[0]
    assert rows is not None
    hidden = op.atoms.fold(rows, (gates, rows.size // gates), 1)
    op.glue(entering, into[1])
    for axis in (back[0], *(bias[0] for bias in biases if bias)):
        if axis is not None:
            op.glue(op.atoms.fold(axis, (gates, hidden.size), 1), hidden)
    op.glue(back[1], hidden)
    columns = op.shape(params[0])[1]
    op.product(steps * rows.size * columns, hidden, into[1])
    op.product(steps * rows.size * hidden.size, hidden, hidden)
    return hidden


def cell(op: Op) -> Value:
    """``lstm_cell``, ``gru_cell``, ``rnn_*_cell``: one step of one layer."""
    gates = _GATES[op.name.removesuffix("_cell")]
    source = op.argument("input")
    x = op.dims(source)
    params = [op.argument(name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    hidden = _cell(op, params, gates, x[-1], prod(op.sizes(source)[:-1]))
    for state in _states(op):
        op.glue(op.dims(state)[-1], hidden)
    out = (*x[:-1], hidden)
    return [out, out] if gates == 4 else out


RULES: dict[str, Rule] = {
    **dict.fromkeys(_GATES, recurrent),
    **{f"{name}_cell": cell for name in _GATES},
}
