# SPDX-License-Identifier: Apache-2.0
"""Whether half precision can hold a model's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.model import Model
from edgeprune.quantize.graphs import twin
from edgeprune.quantize.noise import layer_noise
from edgeprune.quantize.simplify import plain
from edgeprune.quantize.weights import round_weights

__all__ = ["require_halves"]

_LARGEST = torch.finfo(torch.float16).max
_LEAST_DB = 40.0
"""Of the outputs. Weights in the type's normal range lose no more than 60 dB."""
_WAY_OUT = "choose --numerics fp32, int8-weights or int8-dynamic, or scale the layer in the model"


def require_halves(model: Model, inputs: tuple[Tensor, ...] | None) -> None:
    """Refuse a model whose parameters are too large or, where it matters, too small for halves.

    Args:
        model: Float.
        inputs: One batch, on which vanishing weights show; ``None``: only large ones are found.

    Raises:
        InputError: A parameter has values over 65504, or the outputs change by rounding alone; the
            tensor or the layer is named.
    """
    gm = model.module()
    plain(gm)
    for name, parameter in gm.named_parameters():
        count = int((parameter.detach().abs() > _LARGEST).sum())
        if parameter.dtype == torch.float32 and count:
            raise InputError(
                f"fp16: '{name}' holds {count} of {parameter.numel()} values beyond {_LARGEST:g}, "
                f"the largest half-precision number; {_WAY_OUT}"
            )
    if inputs is None:
        return
    reference = twin(gm)
    rows, output = layer_noise(reference, gm, round_weights(gm, "fp16"), inputs)
    if output is not None and output < _LEAST_DB:
        worst = f"{rows[0].layer} ({rows[0].own_db:.1f} dB by itself)" if rows else "a constant"
        raise InputError(
            f"fp16: rounding the weights leaves {output:.1f} dB of the outputs; {worst} is too "
            f"small for half precision, whose smallest step is 6e-8; {_WAY_OUT}"
        )
