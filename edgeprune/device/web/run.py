# SPDX-License-Identifier: Apache-2.0
"""One measuring job in a fresh process of Node, or of the browser."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.device.web.chromium import run_in_page
from edgeprune.device.web.install import node, node_module, page_files, runtime_name
from edgeprune.errors import DeviceError, InputError

__all__ = ["run_job"]

_HERE = Path(__file__).parent


def run_job(
    name: str,
    model: Path,
    job: Mapping[str, Any],
    *,
    folder: Path,
    engine: str,
    timeout: float,
) -> dict[str, Any]:
    """Do the job that ``measure.mjs`` describes on ``model``, whose name in errors is ``name``.

    Args:
        name: Of the file, in errors.
        model: The file.
        job: Its ``format`` (``tflite`` in Chromium only), ``threads``, ``inputs``, ``outputs``,
            ``warmup``, ``seconds``, ``max_seconds`` and ``min_runs``.
        folder: Where ``set_up`` put the runtimes.
        engine: ``node`` or ``chromium``.
        timeout: Seconds after which it counts as hung and is stopped.

    Raises:
        InputError: The runtime refuses the model.
        DeviceError: The runtime isn't there, died, or took more than ``timeout``.
    """
    form = job["format"]
    if engine == "chromium":
        answer = run_in_page(job, model, page_files(folder, form), timeout=timeout)
    else:
        answer = _in_node(job, model, node_module(folder), timeout)
    if "error" in answer:
        said = " ".join(str(answer["error"]).split())
        if answer.get("refused"):
            raise InputError(f"{name}: {runtime_name(form)} refuses it: {said}")
        raise DeviceError(f"{name}: measuring it in {engine} failed: {said}")
    return answer


def _in_node(job: Mapping[str, Any], model: Path, runtime: Path, timeout: float) -> dict[str, Any]:
    program, _ = node()
    whole = {**job, "runtime": runtime.absolute().as_uri(), "model": model.absolute().as_uri()}
    # NODE_OPTIONS may hold anything: inspectors, other flags of the engine.
    environment = {key: text for key, text in os.environ.items() if key != "NODE_OPTIONS"}
    try:
        done = subprocess.run(
            [program, "--expose-gc", str(_HERE / "node.mjs")],
            input=json.dumps(whole).encode(),
            env=environment,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {timeout:.0f} s and was stopped"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        end = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
        return {"error": f"Node ended with {end}: {lines[-1]}"}
    return answer
