# SPDX-License-Identifier: Apache-2.0
"""LiteRT's reference kernels on this machine: the code that TensorFlow Lite Micro's came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import InputError, MissingExtra

__all__ = ["reference_outputs"]

Array = np.ndarray[Any, Any]


def reference_outputs(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run each sample of ``arrays`` (``[samples, *shape]`` by LiteRT's names) in reference kernels.

    Returns:
        Outputs by name, with the sample axis in front.

    Raises:
        MissingExtra: ai-edge-litert isn't installed.
        InputError: LiteRT refuses the file.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise MissingExtra("ai-edge-litert", "device") from None
    try:
        interpreter = Interpreter(
            model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
        once = _runner(interpreter)
        made = []
        for k in range(len(next(iter(arrays.values())))):
            interpreter.reset_all_variables()
            made.append(once({name: array[k] for name, array in arrays.items()}))
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path.name}: LiteRT's reference kernels refuse it: {line}") from None
    return {name: np.stack([outputs[name] for outputs in made]) for name in made[0]}


def _runner(interpreter: Any) -> Any:
    signatures = interpreter.get_signature_list()
    if len(signatures) == 1:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return lambda named: dict(runner(**named))
    inputs = {detail["name"]: detail["index"] for detail in interpreter.get_input_details()}
    outputs = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}

    def once(named: Mapping[str, Array]) -> dict[str, Array]:
        for name, array in named.items():
            interpreter.set_tensor(inputs[name], array)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

    return once
