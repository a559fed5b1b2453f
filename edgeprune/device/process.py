# SPDX-License-Identifier: Apache-2.0
"""Starting measuring processes on this machine and reading their answers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeprune.errors import DeviceError, InputError
from edgeprune.profiler.memory import STEADY_MALLOC

__all__ = ["run_child"]

_CODE = Path(__file__).parents[2]
"""The child starts here, so that it runs this very code and no file of the user's folder."""


def run_child(name: str, job: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """Do ``job`` in a fresh process; ``name`` is the file's name in errors.

    Raises:
        InputError: The file or its inputs can't be used.
        DeviceError: The process died, or took more than ``timeout`` seconds and was killed.
    """
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    if job["task"] == "memory":
        environment |= STEADY_MALLOC
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgeprune.profiler.child"],
            input=json.dumps(job),
            env=environment,
            cwd=_CODE,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{name}: measuring its {job['task']} took more than {timeout:.0f} s and was stopped"
        ) from None
    return _answer(name, job["task"], done)


def _answer(name: str, task: str, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise DeviceError(f"{name}: measuring its {task} failed: {_cause(done)}") from None
    if "error" in result:
        kind = InputError if result["exit_code"] == InputError.exit_code else DeviceError
        raise kind(f"{name}: {result['error']}")
    return result


def _cause(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -signal.SIGKILL:
        return "the process was killed, most likely for want of memory"
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return f"the process ended with {done.returncode}: {lines[-1] if lines else 'no message'}"
