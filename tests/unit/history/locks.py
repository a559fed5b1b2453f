# SPDX-License-Identifier: Apache-2.0
"""Lock files, and repositories that have them in their history."""

import os
import subprocess
from pathlib import Path

from edgeprune.figure import Figure, counted, measured
from edgeprune.gate.lock import Accepted, Lock, Machine
from edgeprune.report.files import to_json

NAME = "edgeprune.lock.json"
WHEN = "2026-03-04T05:06:07Z"


def lock(size: int = 1000, *, reason: str = "first", **artifacts: Accepted) -> Lock:
    found = artifacts or {"model.onnx": accepted(size)}
    return Lock(
        accepted=WHEN,
        reason=reason,
        edgeprune="0.1.0",
        models={"classifier": {"rpi4": dict(found)}},
    )


def accepted(
    size: int,
    *,
    latency: float | None = None,
    ratio: float | None = None,
    score: float | None = None,
    machine: str = "a",
    metric: str = "accuracy",
) -> Accepted:
    figures: dict[str, Figure] = {"bytes": counted(size, "B", "size of the file")}
    if latency is not None:
        figures["latency_p50"] = timed(latency, "s")
    if ratio is not None:
        figures["latency_reference"] = timed(ratio, "x")
    if score is not None:
        figures["score"] = measured(
            score, "%", f"{metric} on digits", where="a desk", when=WHEN, runs=360,
            low=score - 1, high=score + 1,
        )  # fmt: skip
    own = Machine(description="a board", fingerprint=machine) if latency is not None else None
    return Accepted(sha256="0" * 64, figures=figures, machine=own)


def timed(value: float, unit: str) -> Figure:
    return measured(
        value, unit, "median of 5 blocks", where="a board", when=WHEN, runs=500,
        low=0.97 * value, high=1.04 * value,
    )  # fmt: skip


class Repository:
    """A git repository in a folder of its own, with a clock that each commit moves by a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._day = 0
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        self._day += 1
        when = f"2026-{1 + self._day // 28:02}-{1 + self._day % 28:02}T12:00:00+00:00"
        names = {f"GIT_{who}_{key}": "t@example.org" for who in ("AUTHOR", "COMMITTER")
                 for key in ("NAME", "EMAIL")}  # fmt: skip
        dates = {f"GIT_{who}_DATE": when for who in ("AUTHOR", "COMMITTER")}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            env={**os.environ, **names, **dates, **quiet},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def commit(self, content: Lock | str | bytes, path: str = NAME, message: str = "work") -> str:
        """Commit one version of a file; the commit's name."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Lock):
            content = to_json(content)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.keep(message)

    def keep(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()
