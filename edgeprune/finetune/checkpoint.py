# SPDX-License-Identifier: Apache-2.0
"""One file from which a killed run goes on, and the deferral of Ctrl-C until it is written."""

import hashlib
import io
import json
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgeprune.errors import OutputError
from edgeprune.finetune.loop import Totals
from edgeprune.model.state import State
from edgeprune.writing import write

__all__ = ["Best", "Checkpoint", "deferred_interrupt", "fetch", "load", "run_key", "save", "store"]

_FORMAT = 1
_DIGEST = hashlib.sha256().digest_size


@dataclass
class Best:
    """The epoch with the lowest held-out loss so far."""

    epoch: int
    loss: float
    state: State


@dataclass
class Checkpoint:
    """Everything that a run needs to go on after ``step`` optimizer steps.

    ``history`` has one entry per finished epoch (its held-out part is measured too); ``sums`` adds
    up the training figures of the epoch under way.
    """

    state: State
    optimizer: dict[str, Any]
    step: int = 0
    sums: Totals = field(default_factory=Totals)
    history: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None
    seconds: float = 0.0


def run_key(**facts: Any) -> str:
    """What a run is: sha256 over its facts, this format and torch's version."""
    text = json.dumps({**facts, "format": _FORMAT, "torch": torch.__version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(path: Path, checkpoint: Checkpoint, key: str) -> None:
    """Write atomically: a reader finds the old file or the new one, whole.

    Raises:
        OutputError: The folder can't be written.
    """
    best = checkpoint.best and vars(checkpoint.best)
    sums = vars(checkpoint.sums)
    store(path, {**vars(checkpoint), "best": best, "sums": sums}, key)


def load(path: Path, key: str) -> tuple[Checkpoint | None, str | None]:
    """The checkpoint at ``path``, or ``None`` and why it isn't used; no file gives neither."""
    found, why_not = fetch(path, key)
    if found is None:
        return None, why_not
    best, sums = found.pop("best"), Totals(**found.pop("sums"))
    return Checkpoint(**found, sums=sums, best=best and Best(**best)), None


def store(path: Path, content: Mapping[str, Any], key: str) -> None:
    """Write tensors, numbers, texts and containers of them as the state of the run ``key``.

    Raises:
        OutputError: The folder can't be written.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, **content}, buffer)
    body = buffer.getbuffer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, [hashlib.sha256(body).digest(), body])
    except OSError as error:
        raise OutputError(f"{path}: can't write the checkpoint: {error.strerror}") from None


def fetch(path: Path, key: str) -> tuple[dict[str, Any] | None, str | None]:
    """What ``store`` wrote for the run ``key``, or ``None`` and why not; no file gives neither."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{path.name} can't be read ({error.strerror}): started anew"
    body = memoryview(content)[_DIGEST:]
    # Checked first, since torch raises anything on damaged bytes, and misses some damage.
    if hashlib.sha256(body).digest() != content[:_DIGEST]:
        return None, f"{path.name} is damaged: started anew"
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None, f"{path.name} holds more than tensors and numbers: started anew"
    if found.pop("key") != key:
        return None, f"{path.name} belongs to another run: started anew"
    return found, None


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Let the step under way finish when Ctrl-C comes; yields "has it come?".

    A second Ctrl-C is not held back. Outside the main thread, and where interrupts are ignored or
    handled outside Python, nothing changes.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield lambda: False
        return
    came = threading.Event()

    def hold(_signal: int, _frame: object) -> None:
        came.set()
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, hold)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, handler)
